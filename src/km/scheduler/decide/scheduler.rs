//! The scheduler's state, and how an event is processed.
use kmctl_core::protocol::Summary;
use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::{Answer, Effect};
use super::event::{Bounds, Event, NodeStep};
use super::parts::{
    BindState, Demand, Knowledge, NodeEntry, NodeState, PodEntry, RemovalCause, Sweeps, Task, Troubles,
};
use super::settings::Settings;
use kmctl_core::model::agents::Agent;
use kmctl_core::model::ids::IdSource;
use kmctl_core::model::nodes::{NodeFacts, NodePhase};
use kmctl_core::model::pods::{PodFacts, Uid};
use kmctl_core::model::time::Time;

/// Interval of ticks while nothing is pending.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How long a deleted pod is remembered: well above kube-scheduler's possible lag.
const GONE_KEPT: Duration = Duration::from_secs(300);

/// Interval of ticks while pods wait: short compared with the second that a nudge takes to have an effect.
const BUSY_TICK: Duration = Duration::from_millis(100);

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
    pub(super) troubles: Troubles,
    /// Deleted pods, and since when: a request about one of them may still be in progress.
    pub(super) gone: BTreeMap<Uid, Time>,
    pub(super) sweeps: Sweeps,
    pub(super) demand: Demand,
    pub(super) known: Knowledge,
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
            troubles: Troubles::default(),
            gone: BTreeMap::new(),
            sweeps: Sweeps::default(),
            demand: Demand::default(),
            known: Knowledge::default(),
        }
    }

    /// Handles an event, and returns what is to be done.
    pub fn on(&mut self, event: Event, now: Time) -> Vec<Effect> {
        self.now = self.now.max(now);
        // These requests must be answered quickly, and they change nothing that could not wait for the next tick.
        let settle = !matches!(event, Event::Filter { .. } | Event::Prioritize { .. });
        self.apply_event(event);
        if settle {
            self.sync();
        }
        std::mem::take(&mut self.effects)
    }

    /// Latest time of the next [`Event::Tick`].
    pub fn deadline(&self) -> Time {
        let busy = self.pods.values().any(|pod| pod.facts.pending())
            || self.nodes.values().any(|node| node.state != NodeState::Ready);
        let flush = self.nodes.values().filter_map(|node| node.flush_at).min();
        let tick = self.now + if busy { BUSY_TICK } else { IDLE_TICK };
        flush.map_or(tick, |flush| flush.min(tick))
    }

    /// Figures for status and metrics.
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
            pods_in_flight: self.pods.values().filter(|pod| pod.bind_state != BindState::None).count(),
            tasks: self.tasks.values().filter(|task| !task.is_terminal()).count(),
            offers: self.agents.values().map(|agent| agent.offers.len()).sum(),
            agents: self.agents.len(),
            suppressed: self.demand.is_suppressed(),
            acting: self.acting(),
            min: self.bounds.min,
            max: self.bounds.max,
        }
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn apply_event(&mut self, event: Event) {
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
            Event::PodsSynced => self.known.learn_pods(),
            Event::NodesSynced => self.known.learn_nodes(),
            Event::Bounds(bounds) => {
                self.known.learn_bounds();
                self.bounds = bounds;
            }
            Event::KnownAgents(agents) => self.sweeps.know_agents(agents.into_iter().collect()),
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

    /// Everything that follows from what is known, derived again each time, so that a lost event or effect is
    /// recovered.
    fn sync(&mut self) {
        self.sync_leases();
        self.reconcile();
        if !self.acting() {
            return;
        }
        self.sync_tasks();
        self.sync_excess_nodes();
        self.sync_nodes();
        self.sync_sweeps();
        let placement = self.place();
        self.sync_candidates(&placement);
        self.launch();
        self.sync_offers(&placement);
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
                let mut facts = facts;
                entry.overwritten = facts.keep_record(&entry.facts).then(|| entry.overwritten.flatten());
                entry.facts = facts;
            }
            None => {
                self.demand.grow();
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
                self.push(Effect::Answer(request, Answer::Bind(Some("the pod is gone".to_owned()))));
            }
        }
    }

    /// Records a pod as kube-scheduler sees it, which may be earlier or later than our own watch does. A deleted pod is
    /// not recorded again: it would wait forever.
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
                // A recorded executor without the matching state: the process was killed in between. The executor was
                // not launched.
                NodePhase::Candidate => NodeState::Candidate,
                NodePhase::Starting => NodeState::Starting,
                NodePhase::Ready => NodeState::Ready,
                NodePhase::Leaving => NodeState::Leaving { since: now, killed: None, cause: RemovalCause::Given },
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
            // The object was deleted by another client: that ends the node. The garbage collector removes its pods.
            entry.state = NodeState::Leaving { since: now, killed: None, cause: RemovalCause::Given };
            self.fail_binds(name, "the node is gone");
        }
    }
}
