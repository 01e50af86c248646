//! All that the scheduler knows, and the way of an event through it.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effect::Effect;
use super::event::{Bounds, Event, NodeStep, RequestId, Token};
use super::settings::Settings;
use super::sweep::Sweeps;
use crate::mesos::types::{ExecutorInfo, TaskState};
use crate::node::launch::PortMapping;
use crate::scheduler::agents::Agent;
use crate::scheduler::ids::{IdSource, TaskKind};
use crate::scheduler::nodes::{NodeFacts, NodePhase};
use crate::scheduler::pods::{PodFacts, Uid};
use crate::scheduler::resources::Amount;
use crate::scheduler::selectors::Labels;
use crate::scheduler::time::Time;

/// How often time alone is worth an event while nothing is going on.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How long a pod's end is remembered: well above the time that kube-scheduler may be behind.
const GONE_KEPT: Duration = Duration::from_secs(300);

/// How often while pods wait: short beside the second that a nudge takes to have an effect.
const BUSY_TICK: Duration = Duration::from_millis(100);

/// The scheduler.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) bounds: Bounds,
    pub(super) ids: IdSource,
    pub(super) now: Time,
    pub(super) effects: Vec<Effect>,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) pods: BTreeMap<Uid, PodEntry>,
    pub(super) nodes: BTreeMap<String, NodeEntry>,
    pub(super) tasks: BTreeMap<String, Task>,
    /// By agent.
    pub(super) troubles: BTreeMap<String, super::lifecycle::Trouble>,
    /// Pods that are gone, and since when: a question about one of them may still be under way.
    pub(super) gone: BTreeMap<Uid, Time>,
    pub(super) sweeps: Sweeps,
    pub(super) demand: super::offers::Demand,
    pub(super) known: super::reconcile::Known,
}

/// A pod, and what is going on with it.
#[derive(Clone, Debug)]
pub(super) struct PodEntry {
    pub facts: PodFacts,
    pub flight: Flight,
    /// Bind requests that wait for the outcome.
    pub answers: Vec<RequestId>,
    /// When it was first seen.
    pub since: Time,
    /// The last time kube-scheduler asked about it, and whether any node was left.
    pub asked: Option<(Time, bool)>,
    /// Since when there is a place for it on a node.
    pub placeable_since: Option<Time>,
    /// The last nudge, and how many since there is a place.
    pub nudged: Option<Time>,
    pub nudges: u32,
    /// The last explanation.
    pub explained: Option<Explained>,
    /// Since when its topology spread waits for domains to wake up.
    pub spread_wait: Option<Time>,
    /// The only node that kube-scheduler was last left with, and when: it will be bound there.
    pub let_onto: Option<(String, Time)>,
    /// Since when its task is over though it is not.
    pub orphaned: Option<Time>,
}

/// What a pod's owner was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Explained {
    pub text: String,
    pub at: Time,
    /// When it was last worked out whether the text is still true.
    pub checked: Time,
    /// How often the text has changed.
    pub changes: u32,
}

/// A pod's way to its node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Flight {
    /// Not on its way, or arrived.
    None,
    /// Waits for resources of this node's agent.
    Waiting { node: String, since: Time },
    /// Its task is launched.
    Launched { node: String, task: String, ports: Vec<PortMapping> },
    /// Its task has started, and the Binding is being posted.
    Binding { node: String, task: String },
}

impl Flight {
    /// The node it is bound for.
    pub fn node(&self) -> Option<&str> {
        match self {
            Flight::None => None,
            Flight::Waiting { node, .. } | Flight::Launched { node, .. } | Flight::Binding { node, .. } => Some(node),
        }
    }

    /// Waits for resources.
    pub fn waits_for(&self, name: &str) -> bool {
        matches!(self, Flight::Waiting { node, .. } if node == name)
    }
}

/// A node, and what is going on with it.
#[derive(Clone, Debug)]
pub(super) struct NodeEntry {
    pub agent: String,
    pub state: NodeState,
    /// The API's view; none until the object is there, and after it is gone.
    pub facts: Option<NodeFacts>,
    /// What the object was created with.
    pub labels: Labels,
    pub capacity: Amount,
    pub executor: Option<ExecutorInfo>,
    pub task: Option<String>,
    pub created: Time,
    /// The last time that it passed a filter.
    pub filtered: Option<Time>,
    /// When the binds that have come in go out together.
    pub flush_at: Option<Time>,
    pub idle_since: Option<Time>,
    pub leased: Option<Time>,
    pub published: Option<Amount>,
    /// The last state written to the object.
    pub marked: Option<(NodePhase, Time)>,
    pub deleted: Option<Time>,
    /// Why it leaves, for people.
    pub why: String,
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NodeState {
    /// A Node object without an executor.
    Candidate,
    /// Token and annotations are being written.
    Preparing,
    /// They are; the launch waits for an offer.
    Prepared { token: Token, since: Time },
    /// Launched, the kubelet not heard of.
    Starting,
    /// The kubelet is there.
    Ready,
    /// No new pods; the node task is killed once it is drained.
    Leaving { since: Time, killed: Option<Time>, cause: Leave },
    /// The executor is gone; the object is being deleted.
    Gone,
}

/// Why a node leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// It has been idle, or everything goes.
    Unneeded,
    /// There are more nodes than there may be.
    Surplus,
    /// An earlier process decided so, or somebody deleted its object.
    Given,
}

impl NodeState {
    /// Not launched yet.
    pub fn unlaunched(&self) -> bool {
        matches!(self, NodeState::Candidate | NodeState::Preparing | NodeState::Prepared { .. })
    }

    /// Takes pods.
    pub fn open(&self) -> bool {
        !matches!(self, NodeState::Leaving { .. } | NodeState::Gone)
    }

    /// For people.
    pub fn word(&self) -> &'static str {
        match self {
            NodeState::Candidate => "candidate",
            NodeState::Preparing | NodeState::Prepared { .. } | NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Leaving { .. } => "leaving",
            NodeState::Gone => "gone",
        }
    }
}

impl NodeEntry {
    /// A node that has no object yet.
    pub fn new(agent: String, labels: Labels, capacity: Amount, now: Time) -> NodeEntry {
        NodeEntry {
            agent,
            state: NodeState::Candidate,
            facts: None,
            labels,
            capacity,
            executor: None,
            task: None,
            created: now,
            filtered: None,
            flush_at: None,
            idle_since: None,
            leased: None,
            published: None,
            marked: None,
            deleted: None,
            why: String::new(),
        }
    }

    /// Labels as the API has them, or will.
    pub fn labels(&self) -> &Labels {
        self.facts.as_ref().map_or(&self.labels, |facts| &facts.labels)
    }

    /// Its executor's id.
    pub fn executor_id(&self) -> Option<&str> {
        self.executor.as_ref().map(|executor| executor.executor_id.as_str())
    }
}

/// A Mesos task of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Task {
    pub kind: TaskKind,
    pub agent: Option<String>,
    pub executor: Option<String>,
    /// What it was launched with, where this process launched it.
    pub granted: Option<Amount>,
    pub state: TaskState,
    /// What Mesos or the executor said about the state.
    pub message: String,
    /// When it came into this state.
    pub since: Time,
    /// The last KILL, and how many there were.
    pub killed: Option<Time>,
    pub kills: u32,
    /// When its state was last asked for, and how often since it is in it.
    pub asked: Option<Time>,
    pub asks: u32,
}

impl Task {
    /// Holds nothing any more.
    pub fn over(&self) -> bool {
        // For a task that the master never heard of there is nothing to wait for either.
        self.state.is_terminal() || self.state == TaskState::TaskUnknown
    }
}

/// Figures for /metrics and /state.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes by state.
    pub nodes: BTreeMap<String, usize>,
    /// Pods without a node.
    pub pending_pods: usize,
    /// Pods between bind and Binding.
    pub pods_in_flight: usize,
    /// Mesos tasks that are not over.
    pub tasks: usize,
    /// Offers held.
    pub offers: usize,
    /// Agents known.
    pub agents: usize,
    /// Whether offers are unwanted.
    pub suppressed: bool,
    /// Whether everything is known, so that decisions are taken.
    pub acting: bool,
    /// Nodes kept even when idle, as read from the live settings.
    #[serde(default)]
    pub min: u32,
    /// Most nodes, as read from the live settings; none means every agent that fits.
    #[serde(default)]
    pub max: Option<u32>,
}

impl Scheduler {
    /// A scheduler that knows nothing yet. `seed` must differ from process to process.
    pub fn new(settings: Settings, seed: u64) -> Scheduler {
        Scheduler {
            settings,
            bounds: Bounds::default(),
            ids: IdSource::new(seed),
            now: Time::default(),
            effects: Vec::new(),
            agents: BTreeMap::new(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
            tasks: BTreeMap::new(),
            troubles: BTreeMap::new(),
            gone: BTreeMap::new(),
            sweeps: Sweeps::default(),
            demand: super::offers::Demand::default(),
            known: super::reconcile::Known::default(),
        }
    }

    /// Takes an event in, and returns what is to be done.
    pub fn on(&mut self, event: Event, now: Time) -> Vec<Effect> {
        self.now = self.now.max(now);
        // Answers must be quick, and change nothing that could not wait for the next tick.
        let settle = !matches!(event, Event::Filter { .. } | Event::Prioritize { .. });
        self.take_in(event);
        if settle {
            self.settle();
        }
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Time {
        let busy = self.pods.values().any(|pod| pod.facts.pending())
            || self.nodes.values().any(|node| node.state != NodeState::Ready);
        let flush = self.nodes.values().filter_map(|node| node.flush_at).min();
        let tick = self.now + if busy { BUSY_TICK } else { IDLE_TICK };
        flush.map_or(tick, |flush| flush.min(tick))
    }

    /// Figures.
    pub fn summary(&self) -> Summary {
        let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
        for word in ["candidate", "starting", "ready", "leaving"] {
            nodes.insert(word.to_owned(), 0);
        }
        for node in self.nodes.values() {
            *nodes.entry(node.state.word().to_owned()).or_default() += 1;
        }
        Summary {
            nodes,
            pending_pods: self.pods.values().filter(|pod| pod.facts.pending()).count(),
            pods_in_flight: self.pods.values().filter(|pod| pod.flight != Flight::None).count(),
            tasks: self.tasks.values().filter(|task| !task.over()).count(),
            offers: self.agents.values().map(|agent| agent.offers.len()).sum(),
            agents: self.agents.len(),
            suppressed: self.demand.suppressed,
            acting: self.acting(),
            min: self.bounds.min,
            max: self.bounds.max,
        }
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Subscribed => self.subscribed(),
            Event::Disconnected => self.disconnected(),
            Event::Offers(offers) => offers.into_iter().for_each(|offer| self.offered(offer)),
            Event::Rescinded(offer) => self.rescinded(&offer),
            Event::Update(status) => self.updated(&status),
            Event::ExecutorEnded { agent, executor } => self.executor_ended(&agent, &executor),
            Event::AgentLost(agent) => self.agent_lost(&agent),
            Event::Agents(agents) => self.learn_agents(&agents),
            Event::Pod(facts) => self.pod_seen(*facts),
            Event::PodGone(uid) => self.pod_gone(&uid),
            Event::Node(facts) => self.node_seen(*facts),
            Event::NodeGone(name) => self.node_gone(&name),
            Event::PodsSynced => self.known.pods = true,
            Event::NodesSynced => self.known.nodes = true,
            Event::Bounds(bounds) => {
                self.known.bounds = true;
                self.bounds = bounds;
            }
            Event::KnownAgents(agents) => self.sweeps.agents = agents.into_iter().collect::<BTreeSet<_>>(),
            Event::Filter { request, pod, nodes } => self.filter(request, *pod, nodes),
            Event::Prioritize { request, nodes } => self.prioritize(request, nodes),
            Event::Bind { request, uid, node } => self.bind(request, &uid, &node),
            Event::NodePrepared { node, token } => self.prepared(&node, token),
            Event::NodeFailed { node, step, why } => match step {
                NodeStep::Create => self.creation_failed(&node, &why),
                NodeStep::Prepare => self.preparation_failed(&node, &why),
            },
            Event::BindingPosted { uid, error } => self.binding_posted(&uid, error),
            Event::Tick => {}
        }
    }

    /// Everything that follows from what is known, derived anew each time, so that nothing lost stays lost.
    fn settle(&mut self) {
        self.settle_leases();
        self.reconcile();
        if !self.acting() {
            return;
        }
        self.settle_tasks();
        self.settle_surplus();
        self.settle_nodes();
        self.settle_sweeps();
        let placement = self.place();
        self.settle_candidates(&placement);
        self.launch();
        self.settle_offers(&placement);
        self.nudge(&placement);
        self.explain(&placement);
    }

    fn pod_seen(&mut self, facts: PodFacts) {
        let now = self.now;
        match self.pods.get_mut(&facts.uid) {
            Some(entry) => {
                if facts.node.is_some() || facts.deleting {
                    entry.placeable_since = None;
                }
                entry.facts = facts;
            }
            None => {
                self.demand.grown = true;
                self.pods.insert(facts.uid.clone(), PodEntry::new(facts, now));
            }
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        let now = self.now;
        self.gone.retain(|_, since| now.since(*since) < GONE_KEPT);
        self.gone.insert(uid.to_owned(), now);
        if let Some(entry) = self.pods.remove(uid) {
            for request in entry.answers {
                self.push(Effect::AnswerBind { request, error: Some("the pod is gone".to_owned()) });
            }
        }
    }

    /// Takes a pod in as kube-scheduler sees it, which may be before our own watch does, or after: one that is gone would
    /// wait for ever.
    pub(super) fn pod_asked(&mut self, facts: PodFacts) {
        if !self.pods.contains_key(&facts.uid) && !self.gone.contains_key(&facts.uid) {
            self.pod_seen(facts);
        }
    }

    fn node_seen(&mut self, facts: NodeFacts) {
        let now = self.now;
        let entry = self.nodes.entry(facts.name.clone()).or_insert_with(|| {
            let mut entry = NodeEntry::new(facts.agent.clone(), facts.labels.clone(), facts.allocatable, now);
            entry.state = match facts.phase {
                // An executor on record without the state that goes with it: killed in between. It was not launched.
                NodePhase::Candidate => NodeState::Candidate,
                NodePhase::Starting => NodeState::Starting,
                NodePhase::Ready => NodeState::Ready,
                NodePhase::Leaving => NodeState::Leaving { since: now, killed: None, cause: Leave::Given },
            };
            entry.why.clone_from(&facts.why);
            if facts.phase != NodePhase::Candidate {
                entry.executor.clone_from(&facts.executor);
                entry.task.clone_from(&facts.task);
            }
            entry
        });
        entry.facts = Some(facts);
    }

    fn node_gone(&mut self, name: &str) {
        let now = self.now;
        let Some(entry) = self.nodes.get_mut(name) else { return };
        entry.facts = None;
        if entry.state.unlaunched() || entry.state == NodeState::Gone {
            self.fail_binds(name, "the node is gone");
            self.nodes.remove(name);
        } else if entry.state.open() {
            // Somebody deleted it: that ends the node. Its pods are the garbage collector's.
            entry.state = NodeState::Leaving { since: now, killed: None, cause: Leave::Given };
            self.fail_binds(name, "the node is gone");
        }
    }
}

impl PodEntry {
    /// A pod seen for the first time.
    pub fn new(facts: PodFacts, since: Time) -> PodEntry {
        PodEntry {
            facts,
            flight: Flight::None,
            answers: Vec::new(),
            since,
            asked: None,
            placeable_since: None,
            nudged: None,
            nudges: 0,
            explained: None,
            spread_wait: None,
            let_onto: None,
            orphaned: None,
        }
    }
}
