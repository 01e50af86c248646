//! Nodes that leave: which nodes do when there are more than `nodes.max`, and how a node is drained: taint, evict,
//! kill.
use std::time::Duration;

use super::effect::{ApiRequest, Effect};
use super::lifecycle::REPEAT;
use super::parts::{NodeState, PodEntry, RemovalCause, Task};
use super::scheduler::Scheduler;
use kmctl_core::model::drain_cost::{DrainCost, Stage, surplus};
use kmctl_core::model::nodes::LEAVING_TAINT;

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
        let open = self.nodes.values().filter(|node| node.state.open()).count();
        if open > max {
            for (burden, why) in surplus(self.burdens(|state| state.open()), max) {
                self.start_removal(burden.node(), why);
            }
        } else if open < max {
            self.cancel_removals(max - open);
        }
    }

    /// What it would cost to remove each of these nodes.
    fn burdens(&self, of: impl Fn(&NodeState) -> bool) -> Vec<DrainCost> {
        let nodes = self.nodes.iter().filter(|(_, node)| of(&node.state));
        nodes
            .map(|(name, node)| {
                let stage = match node.state {
                    NodeState::Ready | NodeState::Leaving { .. } => Stage::Ready,
                    NodeState::Starting => Stage::Starting,
                    _ => Stage::Candidate,
                };
                let mut burden = DrainCost::new(name, stage);
                for pod in self.pods.values().filter(|pod| on(pod, name) && pod.facts.keeps_node()) {
                    burden.add(pod.facts.amount, pod.facts.controlled);
                }
                burden
            })
            .collect()
    }

    fn start_removal(&mut self, name: &str, why: String) {
        match self.nodes.get(name).map(|node| &node.state) {
            Some(NodeState::Candidate | NodeState::Prepared { .. }) => self.withdraw(name),
            Some(NodeState::Starting | NodeState::Ready) => self.leave(name, RemovalCause::Surplus, why),
            // Its token is being written. The token can be deleted with the node once it exists.
            _ => {}
        }
    }

    /// Removes a node on which nothing runs.
    pub(super) fn withdraw(&mut self, name: &str) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.state = NodeState::Gone;
        }
        self.fail_binds(name, "node is leaving");
        self.delete(name);
    }

    /// From now on the node accepts no pods.
    pub(super) fn leave(&mut self, name: &str, cause: RemovalCause, why: String) {
        let since = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.state = NodeState::Leaving { since, killed: None, cause };
        node.why = why;
        self.fail_binds(name, "node is leaving");
        self.sync_phase(name);
    }

    /// Keeps nodes that were leaving, those with the most pods first.
    fn cancel_removals(&mut self, room: usize) {
        let undecided =
            |state: &NodeState| matches!(state, NodeState::Leaving { killed: None, cause: RemovalCause::Surplus, .. });
        let mut burdens = self.burdens(undecided);
        burdens.sort_by(|a, b| b.cmp(a));
        for burden in burdens.into_iter().take(room) {
            let Some(node) = self.nodes.get_mut(burden.node()) else { continue };
            let Some(facts) = &node.facts else { continue };
            node.state = if facts.ready { NodeState::Ready } else { NodeState::Starting };
            (node.why, node.deleted, node.idle_since) = (String::new(), None, None);
            self.demand.grow();
        }
    }

    /// Taint, then drain, then kill.
    pub(super) fn sync_leaving(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get(name) else { return };
        let NodeState::Leaving { since, killed, .. } = node.state else { return };
        let Some(task) = node.task.clone() else { return self.node_ended(name, true, "it has no task") };
        if killed.is_some() {
            return self.kill(&task);
        }
        let deleted_by_hand = node.facts.is_none();
        let tainted =
            node.facts.as_ref().is_none_or(|facts| facts.taints.iter().any(|taint| taint.key == LEAVING_TAINT));
        if !tainted {
            return;
        }
        let patience_over = self.bounds.purge && now.since(since) > DRAIN;
        let staying: Vec<(&String, &PodEntry)> =
            self.pods.iter().filter(|(_, pod)| on(pod, name) && self.still_there(pod)).collect();
        if !staying.is_empty() && !patience_over && !deleted_by_hand {
            let requests: Vec<Effect> = staying.into_iter().filter_map(|(uid, pod)| self.eviction(uid, pod)).collect();
            let Some(node) = self.nodes.get_mut(name) else { return };
            if node.deleted.is_none_or(|at| now.since(at) >= REPEAT) {
                node.deleted = Some(now);
                self.effects.extend(requests);
            }
            return;
        }
        if let Some(NodeState::Leaving { killed, .. }) = self.nodes.get_mut(name).map(|node| &mut node.state) {
            *killed = Some(now);
        }
        self.kill(&task);
    }

    /// Whether a pod still runs. A pod whose task is over does not, even if a finalizer keeps its object.
    fn still_there(&self, pod: &PodEntry) -> bool {
        let over = || pod.facts.task.as_ref().and_then(|task| self.tasks.get(task)).is_some_and(Task::is_terminal);
        pod.facts.keeps_node() && !(pod.facts.deleting && over())
    }

    /// Effect that makes a pod move: an eviction, which respects its disruption budget. A pod without a controller,
    /// which would not be created again, is left to its owner, except during a purge.
    fn eviction(&self, uid: &str, pod: &PodEntry) -> Option<Effect> {
        let facts = &pod.facts;
        let (namespace, name, uid) = (facts.namespace.clone(), facts.name.clone(), uid.to_owned());
        if facts.deleting {
            None
        } else if self.bounds.purge {
            Some(Effect::Api(ApiRequest::DeletePod { namespace, name, uid, force: false }))
        } else if facts.controlled {
            Some(Effect::Api(ApiRequest::EvictPod { namespace, name, uid }))
        } else {
            None
        }
    }
}

fn on(pod: &PodEntry, node: &str) -> bool {
    pod.facts.node.as_deref() == Some(node)
}
