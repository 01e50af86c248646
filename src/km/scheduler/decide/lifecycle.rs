//! Lifecycle of nodes: candidates, registration of the kubelet, idle nodes, bounds, and what happens when a node ends.
use std::collections::BTreeMap;

use super::effect::{ApiRequest, Effect};
use super::parts::{BindState, NodeEntry, NodeState, RemovalCause};
use super::place::Placement;
use super::scheduler::Scheduler;
use super::snapshot::AssumedPods;
use kmctl_core::cluster::NetworkMode;
use kmctl_core::model::candidate::NodeSpec;
use kmctl_core::model::resources::Amount;

impl Scheduler {
    pub(super) fn sync_nodes(&mut self) {
        let amounts = self.granted();
        for name in &self.nodes.keys() {
            self.sync_phase(name);
            self.publish(name, amounts.get(name).copied().unwrap_or_default());
            match self.nodes.get(name).map(NodeEntry::state) {
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
        self.nodes.update_each(|name, node| {
            if node.renew_lease(now) {
                self.effects.push(Effect::Api(ApiRequest::RenewLease { node: name.clone() }));
            }
        });
    }

    /// Updates the state from the kubelet's, and writes it to the Node.
    pub(super) fn sync_phase(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get(name) else { return };
        if *node.state() == NodeState::Starting && node.facts().is_some_and(|facts| facts.ready) {
            self.troubles.forget(node.agent());
            let ready = self.nodes.update(name, |node| node.ready());
            self.legal(name, ready);
        }
        if let Some((phase, why)) = self.nodes.update(name, |node| node.mark(now)).flatten() {
            self.push(Effect::Api(ApiRequest::MarkNode { node: name.to_owned(), phase, why }));
        }
    }

    /// What Mesos has granted to the pods of each node: the resources of their tasks, even if the pods' requests have
    /// changed since.
    fn granted(&self) -> BTreeMap<String, Amount> {
        let mut granted: BTreeMap<String, Amount> = BTreeMap::new();
        for pod in self.pods.values() {
            let facts = pod.facts();
            let (node, recorded) = match pod.bind_state() {
                BindState::Launched { node, task, .. } | BindState::Binding { node, task } => {
                    (Some(node), self.tasks.get(task).and_then(|task| task.granted()))
                }
                _ => (facts.node.as_ref().filter(|_| facts.occupies() && facts.task.is_some()), facts.granted),
            };
            if let Some(node) = node {
                *granted.entry(node.clone()).or_default() += recorded.unwrap_or(facts.amount);
            }
        }
        granted
    }

    fn publish(&mut self, name: &str, pods: Amount) {
        let (now, first_launch) = (self.now, self.first_launch());
        let due = self.nodes.update(name, |node| {
            let grant = pods + node.own_share().unwrap_or(first_launch);
            node.publish(grant, now).then_some(grant)
        });
        if let Some(grant) = due.flatten() {
            self.push(Effect::Api(ApiRequest::PublishGrant { node: name.to_owned(), grant }));
        }
    }

    fn sync_idle(&mut self, name: &str) {
        let now = self.now;
        let busy = self.pods.values().any(|pod| {
            let bound = pod.is_on(name) && pod.facts().keeps_node();
            bound || (pod.bind_state().node() == Some(name) && !pod.facts().daemon)
        });
        let purge = self.bounds.purge;
        let (timeout, needed) = (self.settings.idle_timeout, self.needed_for_min(name));
        let idle = self.nodes.update(name, |node| {
            node.idle(busy, now).is_some_and(|idle| idle >= timeout) && !node.may_be_chosen(now) && !needed
        });
        if idle == Some(true) || purge {
            let why = if purge { "the cluster is being removed".to_owned() } else { format!("idle for {timeout:?}") };
            self.leave(name, RemovalCause::Unneeded, why);
        }
    }

    /// Whether fewer than `nodes.min` would be left without this node. Only nodes that are at least as far along count,
    /// because a node that has not started yet may fail to start.
    fn needed_for_min(&self, name: &str) -> bool {
        let ready = self.nodes.get(name).is_some_and(|node| *node.state() == NodeState::Ready);
        let as_far = |state: &NodeState| *state == NodeState::Ready || (!ready && *state == NodeState::Starting);
        let others = self.nodes.iter().filter(|(other, node)| *other != name && as_far(node.state())).count();
        others < self.bounds.min as usize
    }

    /// Nothing of the node runs any more: deletes its pods and its object.
    pub(super) fn node_ended(&mut self, name: &str, clean: bool, why: &str) {
        let Some(node) = self.nodes.get(name).filter(|node| *node.state() != NodeState::Gone) else { return };
        let starting = *node.state() == NodeState::Starting;
        let (agent, executor) = (node.agent().to_owned(), node.executor_id().map(str::to_owned));
        let ended = self.nodes.update(name, |node| node.end());
        if self.legal(name, ended).is_none() {
            return;
        }
        self.push(Effect::Report(format!("node {name} ended: {why}")));
        if let Some(executor) = executor.filter(|_| !clean) {
            self.agents.note_failure(&agent, self.now);
            self.sweeps.add(&agent, &executor, false, self.now);
            self.demand.grow();
            if starting {
                self.note_trouble(&agent);
            }
        }
        self.fail_binds(name, "the node ended");
        let lost = self.pods.values().filter(|pod| pod.is_on(name) && pod.facts().occupies());
        self.effects.extend(lost.map(|pod| Effect::Api(ApiRequest::delete_pod(pod.facts(), true))));
        self.delete(name);
    }

    /// Deletes the object of a node that is gone. Repeated until the API shows it.
    pub(super) fn delete(&mut self, name: &str) {
        let now = self.now;
        if let Some(deletion) = self.nodes.update(name, |node| node.delete(now)).flatten() {
            let token_id = deletion.token_id;
            self.push(Effect::Api(ApiRequest::DeleteNode { node: name.to_owned(), token_id }));
            if !deletion.has_object {
                self.nodes.remove(name);
            }
        }
    }

    pub(super) fn creation_failed(&mut self, name: &str, why: &str) {
        self.push(Effect::Report(format!("node {name} cannot be created: {why}")));
        if let Some(node) = self.nodes.get(name)
            && node.facts().is_none()
            && *node.state() == NodeState::Candidate
        {
            let agent = node.agent().to_owned();
            self.nodes.remove(name);
            self.note_trouble(&agent);
        }
    }

    /// Makes the next node on the agent wait longer than this one did, and other agents be preferred.
    pub(super) fn note_trouble(&mut self, agent: &str) {
        self.troubles.note(agent, self.now);
        self.agents.note_failure(agent, self.now);
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
        (self.bounds.min as usize).saturating_sub(self.nodes.count(NodeState::launched))
    }

    /// Creates candidates for pods that no node can run and for `nodes.min`, and withdraws candidates that are not
    /// needed.
    pub(super) fn sync_candidates(&mut self, placement: &Placement) {
        for agent in &placement.wake {
            self.create(agent);
        }
        let open = self.nodes.count(NodeState::open);
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
        let mut open = self.nodes.count(NodeState::open);
        for name in self.nodes.keys() {
            let used = placement.on_node.values().any(|node| *node == name)
                || self.pods.values().any(|pod| pod.bind_state().node() == Some(&name));
            let Some(node) = self.nodes.get(&name) else { continue };
            let surplus = open > needed_for_min && !used && !node.is_fresh(now);
            if *node.state() == NodeState::Candidate && node.facts().is_some() && (surplus || self.bounds.purge) {
                open -= 1;
                self.withdraw(&name);
            }
        }
    }

    fn create(&mut self, agent: &str) {
        if self.nodes.on_agent(agent).is_some() || self.in_trouble(agent) {
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
        let unlabelled = agent.unlabelled().join(", ");
        self.nodes.create(name.clone(), agent.id.clone(), labels, agent.capacity(), self.now);
        self.push(Effect::Api(ApiRequest::CreateNode(spec)));
        if !unlabelled.is_empty() {
            self.push(Effect::Report(format!(
                "node {name} has no labels for these attributes of its agent: {unlabelled}"
            )));
        }
    }
}
