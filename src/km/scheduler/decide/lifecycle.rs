//! Lifecycle of nodes: candidates, registration of the kubelet, idle nodes, bounds, and what happens when a node ends.
use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::{ApiRequest, Effect};
use super::parts::{BindState, NodeEntry, NodeState, RemovalCause};
use super::place::Placement;
use super::scheduler::Scheduler;
use super::snapshot::AssumedPods;
use kmctl_core::cluster::NetworkMode;
use kmctl_core::model::agents::scalars;
use kmctl_core::model::candidate::NodeSpec;
use kmctl_core::model::nodes::{LEAVING_TAINT, NodePhase};
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::resources::Amount;

/// The Lease lasts 40 s. A kubelet renews it every 10 s, and so does the scheduler in its place.
const RENEW_LEASE: Duration = Duration::from_secs(10);

/// A node that passed a filter this recently may be about to get a pod.
const MAY_BE_CHOSEN: Duration = Duration::from_secs(5);

/// Deletions, evictions and marks are repeated at this interval until the API shows them. kubectl waits equally long
/// between evictions.
pub(super) const REPEAT: Duration = Duration::from_secs(5);

impl Scheduler {
    pub(super) fn sync_nodes(&mut self) {
        let amounts = self.granted();
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            self.sync_phase(name);
            self.publish(name, amounts.get(name).copied().unwrap_or_default());
            match self.nodes.get(name).map(|node| node.state.clone()) {
                Some(NodeState::Starting | NodeState::Ready) => self.sync_idle(name),
                Some(NodeState::Leaving { .. }) => self.sync_leaving(name),
                Some(NodeState::Gone) => self.delete(name),
                _ => {}
            }
        }
    }

    /// Renews Leases, also while Mesos is unreachable: Kubernetes must not consider the nodes dead meanwhile.
    pub(super) fn sync_leases(&mut self) {
        let now = self.now;
        for (name, node) in &mut self.nodes {
            let alone = node.facts.as_ref().is_some_and(|facts| !facts.kubelet);
            if alone && node.state.open() && node.leased.is_none_or(|leased| now.since(leased) >= RENEW_LEASE) {
                node.leased = Some(now);
                self.effects.push(Effect::Api(ApiRequest::RenewLease { node: name.clone() }));
            }
        }
    }

    /// Updates the state from the kubelet's, and writes it to the Node.
    pub(super) fn sync_phase(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(facts) = &node.facts else { return };
        if node.state == NodeState::Starting && facts.ready {
            node.state = NodeState::Ready;
            self.troubles.forget(&node.agent);
        }
        let phase = match node.state {
            NodeState::Candidate => NodePhase::Candidate,
            // Written during the preparation, before the launch.
            NodeState::Preparing | NodeState::Prepared { .. } | NodeState::Gone => return,
            NodeState::Starting => NodePhase::Starting,
            NodeState::Ready => NodePhase::Ready,
            NodeState::Leaving { .. } => NodePhase::Leaving,
        };
        let tainted = facts.taints.iter().any(|taint| taint.key == LEAVING_TAINT);
        let written = facts.phase == phase && tainted == (phase == NodePhase::Leaving);
        if !written && node.marked.is_none_or(|(marked, at)| marked != phase || now.since(at) >= REPEAT) {
            node.marked = Some((phase, now));
            let why = if phase == NodePhase::Leaving { node.why.clone() } else { String::new() };
            self.push(Effect::Api(ApiRequest::MarkNode { node: name.to_owned(), phase, why }));
        }
    }

    /// What Mesos has granted to the pods of each node: the resources of their tasks, even if the pods' requests have
    /// changed since.
    fn granted(&self) -> BTreeMap<String, Amount> {
        let mut granted: BTreeMap<String, Amount> = BTreeMap::new();
        for pod in self.pods.values() {
            let (node, recorded) = match &pod.bind_state {
                BindState::Launched { node, task, .. } | BindState::Binding { node, task } => {
                    (Some(node), self.tasks.get(task).and_then(|task| task.granted))
                }
                _ => {
                    let node = pod.facts.node.as_ref().filter(|_| pod.facts.occupies() && pod.facts.task.is_some());
                    (node, pod.facts.granted)
                }
            };
            if let Some(node) = node {
                *granted.entry(node.clone()).or_default() += recorded.unwrap_or(pod.facts.amount);
            }
        }
        granted
    }

    fn publish(&mut self, name: &str, pods: Amount) {
        let first_launch = self.first_launch();
        let Some(node) = self.nodes.get_mut(name) else { return };
        // The executor keeps what it was launched with, even if `nodes.overhead` has changed since.
        let own = node.executor.as_ref().map_or(first_launch, |executor| scalars(&executor.resources) + NODE_TASK);
        let launched = matches!(node.state, NodeState::Starting | NodeState::Ready);
        let grant = pods + own;
        if launched && node.facts.is_some() && node.published != Some(grant) {
            node.published = Some(grant);
            self.push(Effect::Api(ApiRequest::PublishGrant { node: name.to_owned(), grant }));
        }
    }

    fn sync_idle(&mut self, name: &str) {
        let now = self.now;
        let busy = self.pods.values().any(|pod| {
            let bound = pod.facts.node.as_deref() == Some(name) && pod.facts.keeps_node();
            bound || (pod.bind_state.node() == Some(name) && !pod.facts.daemon)
        });
        let purge = self.bounds.purge;
        let (timeout, needed) = (self.settings.idle_timeout, self.needed_for_min(name));
        let Some(node) = self.nodes.get_mut(name) else { return };
        if busy {
            node.idle_since = None;
        }
        let chosen = node.filtered.is_some_and(|filtered| now.since(filtered) < MAY_BE_CHOSEN);
        let idle = !busy && now.since(*node.idle_since.get_or_insert(now)) >= timeout && !chosen && !needed;
        if busy && !purge {
            node.idle_since = None;
        }
        if idle || purge {
            let why = if purge { "the cluster is being removed".to_owned() } else { format!("idle for {timeout:?}") };
            self.leave(name, RemovalCause::Unneeded, why);
        }
    }

    /// Whether fewer than `nodes.min` would be left without this node. Only nodes that are at least as far along count,
    /// because a node that has not started yet may fail to start.
    fn needed_for_min(&self, name: &str) -> bool {
        let ready = self.nodes.get(name).is_some_and(|node| node.state == NodeState::Ready);
        let as_far = |state: &NodeState| *state == NodeState::Ready || (!ready && *state == NodeState::Starting);
        let others = self.nodes.iter().filter(|(other, node)| *other != name && as_far(&node.state)).count();
        others < self.bounds.min as usize
    }

    /// Nothing of the node runs any more: deletes its pods and its object.
    pub(super) fn node_ended(&mut self, name: &str, clean: bool, why: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.state == NodeState::Gone {
            return;
        }
        let starting = node.state == NodeState::Starting;
        node.state = NodeState::Gone;
        node.deleted = None;
        let (agent, executor) = (node.agent.clone(), node.executor_id().map(str::to_owned));
        self.push(Effect::Report(format!("node {name} ended: {why}")));
        if let Some(executor) = executor.filter(|_| !clean) {
            if let Some(known) = self.agents.get_mut(&agent) {
                known.ended = Some(self.now);
            }
            self.sweeps.add(&agent, &executor, false, self.now);
            self.demand.grow();
            if starting {
                self.note_trouble(&agent);
            }
        }
        self.fail_binds(name, "the node ended");
        let lost = self.pods.iter().filter(|(_, pod)| pod.facts.node.as_deref() == Some(name) && pod.facts.occupies());
        let lost: Vec<Effect> = lost
            .map(|(uid, pod)| {
                Effect::Api(ApiRequest::DeletePod {
                    namespace: pod.facts.namespace.clone(),
                    name: pod.facts.name.clone(),
                    uid: uid.clone(),
                    force: true,
                })
            })
            .collect();
        self.effects.extend(lost);
        self.delete(name);
    }

    /// Deletes the object of a node that is gone. Repeated until the API shows it.
    pub(super) fn delete(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.facts.is_none() && node.deleted.is_some() {
            return;
        }
        if node.deleted.is_none_or(|at| now.since(at) >= REPEAT) {
            node.deleted = Some(now);
            let token_id = node.facts.as_ref().and_then(|facts| facts.token_id.clone());
            let without_object = node.facts.is_none();
            self.push(Effect::Api(ApiRequest::DeleteNode { node: name.to_owned(), token_id }));
            if without_object {
                self.nodes.remove(name);
            }
        }
    }

    pub(super) fn creation_failed(&mut self, name: &str, why: &str) {
        self.push(Effect::Report(format!("node {name} cannot be created: {why}")));
        if let Some(node) = self.nodes.get(name)
            && node.facts.is_none()
            && node.state == NodeState::Candidate
        {
            let agent = node.agent.clone();
            self.nodes.remove(name);
            self.note_trouble(&agent);
        }
    }

    /// Makes the next node on the agent wait longer than this one did, and other agents be preferred.
    pub(super) fn note_trouble(&mut self, agent: &str) {
        let now = self.now;
        self.troubles.note(agent, now);
        if let Some(known) = self.agents.get_mut(agent) {
            known.ended = Some(now);
        }
    }

    /// Whether it is too early for another node on the agent.
    pub(super) fn in_trouble(&self, agent: &str) -> bool {
        self.troubles.hold_off(agent, self.now)
    }

    /// How many launched nodes are missing to reach `nodes.min`.
    pub(super) fn nodes_short_of_min(&self) -> usize {
        if self.bounds.purge {
            return 0;
        }
        let launched = |node: &&NodeEntry| matches!(node.state, NodeState::Starting | NodeState::Ready);
        (self.bounds.min as usize).saturating_sub(self.nodes.values().filter(launched).count())
    }

    /// Creates candidates for pods that no node can run and for `nodes.min`, and withdraws candidates that are not
    /// needed.
    pub(super) fn sync_candidates(&mut self, placement: &Placement) {
        for agent in &placement.wake {
            self.create(agent);
        }
        let open = self.nodes.values().filter(|node| node.state.open()).count();
        let missing = (self.bounds.min as usize).saturating_sub(open).min(self.room_for_nodes());
        if missing > 0 && !self.bounds.purge {
            let mut sites = self.snapshot(AssumedPods::Left).sites;
            sites.retain(|site| !site.exists && site.offered.covers(Amount::default()));
            sites.sort_by_key(|site| (-site.offered.cpus, -site.offered.mem, site.name.clone()));
            for site in sites.into_iter().take(missing) {
                self.create(&site.agent);
            }
        }
        let now = self.now;
        let needed_for_min = self.bounds.min as usize;
        let mut open = self.nodes.values().filter(|node| node.state.open()).count();
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            let used = placement.on_node.values().any(|node| *node == name)
                || self.pods.values().any(|pod| pod.bind_state.node() == Some(&name));
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            let recent = now.since(node.filtered.unwrap_or(node.created).max(node.created)) < MAY_BE_CHOSEN;
            let surplus = open > needed_for_min && !used && !recent;
            if node.state == NodeState::Candidate && node.facts.is_some() && (surplus || self.bounds.purge) {
                open -= 1;
                self.withdraw(&name);
            }
        }
    }

    fn create(&mut self, agent: &str) {
        if self.node_on(agent).is_some() || self.in_trouble(agent) {
            return;
        }
        let Some(agent) = self.agents.get(agent) else { return };
        let name = self.name_for(agent);
        let labels = agent.labels(&name);
        let host_ports = self.settings.network_mode == NetworkMode::HostPorts;
        let spec = NodeSpec {
            name: name.clone(),
            agent: agent.id.clone(),
            labels: labels.clone(),
            address: agent.address,
            capacity: agent.capacity(),
            disk: agent.disk,
            pod_cidr: host_ports.then(|| self.settings.node.pod_cidr.clone()),
            declared_features: self.settings.node.declared_features(),
        };
        let entry = NodeEntry::new(agent.id.clone(), labels, agent.capacity(), self.now);
        self.nodes.insert(name, entry);
        self.push(Effect::Api(ApiRequest::CreateNode(spec)));
    }
}
