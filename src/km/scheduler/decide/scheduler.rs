//! The scheduler's state, and how an event is processed.
use kmctl_core::protocol::Summary;
use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::Effect;
use super::event::{Bounds, Event, NodeStep};
use super::parts::{
    Agents, Demand, FailedReturns, GonePods, Illegal, Knowledge, NodeState, Nodes, ObjectLoss, Pods, Sweeps, Tasks,
    Troubles,
};
use super::settings::Settings;
use kmctl_core::model::ids::IdSource;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::time::Time;

/// Interval of ticks while nothing is pending.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// Interval of ticks while pods wait: short compared with the second that a nudge takes to have an effect.
const BUSY_TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) bounds: Bounds,
    pub(super) ids: IdSource,
    pub(super) now: Time,
    pub(super) effects: Vec<Effect>,
    pub(super) agents: Agents,
    pub(super) pods: Pods,
    pub(super) nodes: Nodes,
    pub(super) tasks: Tasks,
    pub(super) troubles: Troubles,
    pub(super) gone: GonePods,
    pub(super) sweeps: Sweeps,
    pub(super) demand: Demand,
    pub(super) failed_returns: FailedReturns,
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
            agents: Agents::default(),
            pods: Pods::default(),
            nodes: Nodes::default(),
            tasks: Tasks::default(),
            troubles: Troubles::default(),
            gone: GonePods::default(),
            sweeps: Sweeps::default(),
            demand: Demand::default(),
            failed_returns: FailedReturns::default(),
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
        let busy = self.pods.values().any(|pod| pod.facts().pending())
            || self.nodes.values().any(|node| *node.state() != NodeState::Ready);
        let flush = self.nodes.values().filter_map(|node| node.flush_at()).min();
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
            *nodes.entry(node.state().word().to_owned()).or_default() += 1;
        }
        Summary {
            nodes,
            pending_pods: self.pods.values().filter(|pod| pod.facts().pending()).count(),
            pods_in_flight: self.pods.values().filter(|pod| pod.is_binding()).count(),
            tasks: self.tasks.values().filter(|task| !task.is_terminal()).count(),
            offers: self.agents.values().map(|agent| agent.offers.len()).sum(),
            agents: self.agents.len(),
            suppressed: self.demand.is_suppressed(),
            acting: self.acting(),
            held: None,
            min: self.bounds.min,
            max: self.bounds.max,
        }
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Reports a step that was refused although its rule had checked that it is legal. It has changed nothing, and
    /// everything is derived again with the next event: going on is safer than ending. Tests end here.
    pub(super) fn legal<T>(&mut self, of: &str, step: Option<Result<T, Illegal>>) -> Option<T> {
        match step? {
            Ok(value) => Some(value),
            Err(illegal) => {
                debug_assert!(false, "{of}: {illegal}");
                self.push(Effect::Report(format!("{of}: {illegal}: nothing is changed")));
                None
            }
        }
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
            Event::Node(facts) => self.nodes.see(*facts, self.now),
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
                // It was logged as every failed write.
                NodeStep::Publish => {
                    self.nodes.update(&node, |node| node.publish_failed(self.now));
                }
            },
            Event::BindingPosted { uid, error } => self.binding_posted(&uid, error),
            Event::OffersNotReturned { offers, seconds } => self.failed_returns.note(offers, seconds, self.now),
            Event::PurgeNotRecorded => self.sweeps.purge_not_recorded(self.now),
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
        if self.pods.see(facts, self.now) {
            self.demand.grow();
        }
    }

    fn pod_gone(&mut self, uid: &str) {
        self.gone.note(uid, self.now);
        self.answer_bind(uid, Some("the pod is gone".to_owned()));
        self.pods.remove(uid);
    }

    /// Records a pod as kube-scheduler sees it, which may be earlier or later than our own watch does. A deleted pod is
    /// not recorded again: it would wait forever.
    pub(super) fn pod_asked(&mut self, facts: PodFacts) {
        if !self.pods.contains(&facts.uid) && !self.gone.contains(&facts.uid) {
            self.pod_seen(facts);
        }
    }

    fn node_gone(&mut self, name: &str) {
        let now = self.now;
        match self.nodes.update(name, |node| node.lose_object(now)) {
            Some(ObjectLoss::Forget) => {
                self.fail_binds(name, "the node is gone");
                self.nodes.remove(name);
            }
            // The garbage collector removes its pods.
            Some(ObjectLoss::Leaves) => self.fail_binds(name, "the node is gone"),
            Some(ObjectLoss::Nothing) | None => {}
        }
    }
}
