//! Nodes that leave: which nodes do when there are more than `nodes.max`, and how a node is drained: taint, evict,
//! kill.
use std::time::Duration;

use super::effect::{ApiRequest, Effect};
use super::parts::{NodeEntry, NodeState, PodEntry, RemovalCause};
use super::scheduler::Scheduler;
use kmctl_core::model::drain_cost::{DrainCost, Stage, surplus};

/// During a purge, the pods of a leaving node have this long to stop before the node task is killed. Otherwise a node
/// is killed only after its pods have moved, however long their disruption budgets take.
const DRAIN: Duration = Duration::from_secs(60);

impl Scheduler {
    /// With more nodes than allowed, the cheapest ones leave. If the limit has room again, nodes that were leaving for
    /// that reason are kept.
    pub(super) fn sync_excess_nodes(&mut self) {
        if self.bounds.purge {
            return;
        }
        let max = self.bounds.max.map_or(usize::MAX, |max| max as usize);
        let open = self.nodes.count(NodeState::open);
        if open > max {
            for (burden, why) in surplus(self.burdens(|node| node.state().open()), max) {
                self.start_removal(burden.node(), why);
            }
        } else if open < max {
            self.cancel_removals(max - open);
        }
    }

    /// What it would cost to remove each of these nodes.
    fn burdens(&self, of: impl Fn(&NodeEntry) -> bool) -> Vec<DrainCost> {
        let nodes = self.nodes.iter().filter(|(_, node)| of(node));
        nodes
            .map(|(name, node)| {
                let stage = match node.state() {
                    NodeState::Ready | NodeState::Leaving { .. } => Stage::Ready,
                    NodeState::Starting => Stage::Starting,
                    _ => Stage::Candidate,
                };
                let mut burden = DrainCost::new(name, stage);
                for pod in self.pods.values().filter(|pod| pod.is_on(name) && pod.facts().keeps_node()) {
                    burden.add(pod.facts().amount, pod.facts().controlled);
                }
                burden
            })
            .collect()
    }

    fn start_removal(&mut self, name: &str, why: String) {
        match self.nodes.get(name).map(NodeEntry::state) {
            Some(NodeState::Candidate | NodeState::Prepared { .. }) => self.withdraw(name),
            Some(NodeState::Starting | NodeState::Ready) => self.leave(name, RemovalCause::Surplus, why),
            // Its token is being written. The token can be deleted with the node once it exists.
            _ => {}
        }
    }

    /// Removes a node on which nothing runs.
    pub(super) fn withdraw(&mut self, name: &str) {
        let withdrawn = self.nodes.update(name, |node| node.withdraw());
        if self.legal(name, withdrawn).is_some() {
            self.fail_binds(name, "node is leaving");
            self.delete(name);
        }
    }

    /// From now on the node accepts no pods.
    pub(super) fn leave(&mut self, name: &str, cause: RemovalCause, why: String) {
        let now = self.now;
        let begun = self.nodes.update(name, |node| node.start_removal(cause, why, now));
        if self.legal(name, begun).is_some() {
            self.fail_binds(name, "node is leaving");
            self.sync_phase(name);
        }
    }

    /// Keeps nodes that were leaving, those with the most pods first.
    fn cancel_removals(&mut self, room: usize) {
        let mut burdens = self.burdens(|node| node.state().may_stay());
        burdens.sort_by(|a, b| b.cmp(a));
        for burden in burdens.into_iter().take(room) {
            // Refused if its object was deleted meanwhile: then it leaves for that.
            if self.nodes.update(burden.node(), |node| node.stay()) == Some(Ok(())) {
                self.demand.grow();
            }
        }
    }

    /// Taint, then drain, then kill.
    pub(super) fn sync_leaving(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get(name) else { return };
        let NodeState::Leaving { since, killed, .. } = node.state() else { return };
        let Some(task) = node.task().map(str::to_owned) else {
            return self.node_ended(name, true, "it has no task");
        };
        if killed.is_some() {
            return self.kill(&task);
        }
        if !node.is_cordoned() {
            return;
        }
        let deleted_by_hand = node.facts().is_none();
        let patience_over = self.bounds.purge && now.since(*since) > DRAIN;
        let staying: Vec<&PodEntry> =
            self.pods.values().filter(|pod| pod.is_on(name) && self.still_there(pod)).collect();
        if !staying.is_empty() && !patience_over && !deleted_by_hand {
            let requests: Vec<Effect> = staying.into_iter().filter_map(|pod| self.eviction(pod)).collect();
            if self.nodes.update(name, |node| node.evict(now)) == Some(true) {
                self.effects.extend(requests);
            }
            return;
        }
        let killed = self.nodes.update(name, |node| node.kill(now));
        if self.legal(name, killed).is_some() {
            self.kill(&task);
        }
    }

    /// Whether a pod still runs. A pod whose task is over does not, even if a finalizer keeps its object.
    fn still_there(&self, pod: &PodEntry) -> bool {
        let facts = pod.facts();
        let over = || facts.task.as_ref().is_some_and(|task| self.tasks.is_over(task));
        facts.keeps_node() && !(facts.deleting && over())
    }

    /// Effect that makes a pod move: an eviction, which respects its disruption budget. A pod without a controller,
    /// which would not be created again, is left to its owner, except during a purge.
    fn eviction(&self, pod: &PodEntry) -> Option<Effect> {
        let facts = pod.facts();
        if facts.deleting {
            None
        } else if self.bounds.purge {
            Some(Effect::Api(ApiRequest::delete_pod(facts, false)))
        } else if facts.controlled {
            let (namespace, name, uid) = (facts.namespace.clone(), facts.name.clone(), facts.uid.clone());
            Some(Effect::Api(ApiRequest::EvictPod { namespace, name, uid }))
        } else {
            None
        }
    }
}
