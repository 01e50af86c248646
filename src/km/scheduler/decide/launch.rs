//! Launches tasks from offers: a node's first launch, and the pods that wait for the node, in one ACCEPT per agent.
use std::time::Duration;

use super::effect::{ApiRequest, Effect, MesosCall};
use super::event::Token;
use super::parts::NodeState;
use super::scheduler::Scheduler;
use kmctl_core::model::agents::{HeldOffer, take};
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::resources::to_thousandths;
use kmctl_core::model::selectors::tolerates;
use kmctl_core::model::tasks::{self, ExecutorNames, Unnamed, pod_task, take_for_pod, task_info};
use kmctl_core::protocol::launch::{FORMAT, NodeLaunch, PodLaunch, PortMapping, TaskData};
use mesos::types::{ExecutorInfo, Resource, TaskInfo};

/// Time between SHUTDOWN and the end of an executor. The node agent stops its pods within it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(90);

/// A prepared node whose offer is gone after this time is prepared again with what is offered then.
const PREPARED_FOR: Duration = Duration::from_secs(30);

impl Scheduler {
    pub(super) fn launch(&mut self) {
        self.expire_binds();
        for name in self.nodes.keys() {
            let Some(node) = self.nodes.get(&name) else { continue };
            let waiting = self.pods.waiting_for(&name).next().is_some();
            match node.state() {
                NodeState::Candidate if waiting || self.too_few_launched() => self.prepare(&name),
                NodeState::Prepared { token, since } => {
                    if self.now.since(*since) > PREPARED_FOR {
                        let undone = self.nodes.update(&name, |node| node.undo_preparation());
                        self.legal(&name, undone);
                    } else if node.may_launch(self.now) {
                        let token = token.clone();
                        self.accept(&name, Some(token));
                    }
                }
                NodeState::Starting | NodeState::Ready if waiting && node.may_launch(self.now) => {
                    self.accept(&name, None);
                }
                _ => {}
            }
        }
    }

    fn too_few_launched(&self) -> bool {
        let launched = self.nodes.count(|state| state.open() && *state != NodeState::Candidate);
        !self.bounds.purge && launched < self.bounds.min as usize
    }

    /// Determines the node's executor, before anything can be launched with it.
    fn prepare(&mut self, name: &str) {
        let Some(node) = self.nodes.get(name).filter(|node| node.facts().is_some()) else { return };
        if self.in_trouble(node.agent()) {
            return;
        }
        let Some(agent) = self.agents.get(node.agent()) else { return };
        let mut offers = agent.offers.clone();
        let Some(resources) = take(&mut offers, self.settings.overhead, &[]) else { return };
        if take(&mut offers, NODE_TASK, &[]).is_none() {
            return;
        }
        let (agent, executor_id) = (node.agent().to_owned(), format!("{name}.{}", self.ids.next_id()));
        let executor = self.executor(&executor_id, format!("node {name}"), resources);
        let task = format!("node.{executor_id}");
        let begun = self.nodes.update(name, |node| node.prepare(executor.clone(), task.clone()));
        if self.legal(name, begun).is_none() {
            return;
        }
        self.push(Effect::Api(ApiRequest::PrepareNode {
            node: name.to_owned(),
            agent,
            executor: Box::new(executor),
            task,
        }));
    }

    /// An executor that runs `km node`.
    pub(super) fn executor(&self, id: &str, name: String, resources: Vec<Resource>) -> ExecutorInfo {
        let names = ExecutorNames { id: id.to_owned(), name, source: self.settings.cluster.clone() };
        tasks::executor(&self.settings.km, &self.settings.user, names, resources, SHUTDOWN_GRACE)
    }

    pub(super) fn prepared(&mut self, name: &str, token: Token) {
        let now = self.now;
        // Refused if the node was given up meanwhile. Its token is deleted with its object.
        let _late = self.nodes.update(name, |node| node.prepared(token, now));
    }

    pub(super) fn preparation_failed(&mut self, name: &str, why: &str) {
        self.push(Effect::Report(format!("node {name} cannot be prepared: {why}")));
        if self.nodes.get(name).is_some_and(|node| *node.state() == NodeState::Preparing) {
            let undone = self.nodes.update(name, |node| node.undo_preparation().map(|()| node.agent().to_owned()));
            if let Some(agent) = self.legal(name, undone) {
                self.note_trouble(&agent);
            }
        }
        self.fail_binds(name, &format!("the node cannot be prepared: {why}"));
    }

    /// One ACCEPT over all offers of the node's agent. With a token, it is the node's first.
    fn accept(&mut self, name: &str, first: Option<Token>) {
        let Some(node) = self.nodes.get(name) else { return };
        let (Some(executor), Some(agent)) = (node.executor().cloned(), self.agents.get(node.agent())) else { return };
        let (agent_id, address) = (node.agent().to_owned(), agent.address);
        let (mut offers, grants) = (agent.offers.clone(), self.grants_ports(agent));
        let mut tasks = Vec::new();
        if let Some(token) = &first {
            let Some(address) = address else { return };
            let own = take_exactly(&mut offers, &executor.resources).and_then(|()| take(&mut offers, NODE_TASK, &[]));
            let (Some(own), Some(task)) = (own, node.task().map(str::to_owned)) else { return };
            let data = TaskData::Node(Box::new(self.node_data(name, address, token)));
            tasks.push(task_info(&task, format!("node.{name}"), &agent_id, &executor, own, &data));
            self.launch_daemonset_pods(name);
        }
        let mut waiting: Vec<_> = self.pods.waiting_for(name).collect();
        waiting.sort_by_key(|(uid, pod)| (pod.facts().daemon, pod.since(), *uid));
        let waiting: Vec<PodFacts> = waiting.into_iter().map(|(_, pod)| pod.facts().clone()).collect();
        for pod in &waiting {
            let Some((resources, ports)) = Self::take_for(pod, &mut offers, grants) else { continue };
            let task = format!("pod.{}.{}", pod.uid, self.ids.next_id());
            let launch = PodLaunch {
                format: FORMAT,
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                ports: ports.clone(),
            };
            tasks.push(pod_task(&task, launch, &agent_id, &executor, resources));
            let launched = self.pods.update(&pod.uid, |pod| pod.launched(name, &task, ports));
            self.legal(&pod.uid, launched);
        }
        self.nodes.update(name, |node| node.flushed());
        if first.is_some() {
            let launched = self.nodes.update(name, |node| node.launched());
            self.legal(name, launched);
        }
        if tasks.is_empty() {
            return;
        }
        self.accept_tasks(&agent_id, tasks);
    }

    /// Launches tasks with all offers of an agent.
    pub(super) fn accept_tasks(&mut self, agent: &str, tasks: Vec<TaskInfo>) {
        let offers = self.agents.take_offers_of(agent);
        for task in &tasks {
            self.tasks.launch(agent, task, self.now);
        }
        self.demand.grow();
        self.push(Effect::Mesos(MesosCall::Accept { offers, tasks }));
    }

    /// Daemon pods of a node are launched with it: their share would be in use by another pod by the time
    /// kube-scheduler queries them.
    fn launch_daemonset_pods(&mut self, name: &str) {
        let now = self.now;
        let Some(node) = self.nodes.get(name) else { return };
        let taints = node.facts().map(|facts| facts.taints.as_slice()).unwrap_or_default();
        let own = self.pods.iter().filter(|(_, pod)| {
            let facts = pod.facts();
            facts.daemon
                && facts.ungranted.is_empty()
                && pod.is_unplaced()
                && facts.demand.pinned() == Some(name)
                && tolerates(&facts.tolerations, taints)
        });
        let own: Vec<String> = own.map(|(uid, _)| uid.clone()).collect();
        for uid in own {
            let waits = self.pods.update(&uid, |pod| pod.wait_for(name, now));
            self.legal(&uid, waits);
        }
    }

    fn take_for(pod: &PodFacts, offers: &mut [HeldOffer], grants: bool) -> Option<(Vec<Resource>, Vec<PortMapping>)> {
        let unnamed = if grants && !pod.host_network { Unnamed::Granted } else { Unnamed::Left };
        take_for_pod(offers, pod.amount, &pod.ports, unnamed)
    }

    fn node_data(&self, name: &str, address: std::net::IpAddr, token: &Token) -> NodeLaunch {
        let template = self.settings.node.clone();
        NodeLaunch {
            format: FORMAT,
            cluster: self.settings.cluster.clone(),
            node_name: name.to_owned(),
            node_ip: address,
            api_servers: template.api_servers,
            ca_certificate: template.ca_certificate,
            bootstrap_token: token.0.clone(),
            kubernetes_version: template.kubernetes_version,
            root_dir: template.root_dir,
            network_mode: self.settings.network_mode,
            pod_cidr: template.pod_cidr,
            proxy_mode: template.proxy_mode,
            service_cidr: template.service_cidr,
            cluster_domain: template.cluster_domain,
            artifacts: template.artifacts,
            overhead: self.settings.overhead.grant(),
        }
    }
}

/// Takes exactly these scalars, with their reservations.
fn take_exactly(offers: &mut [HeldOffer], pieces: &[Resource]) -> Option<()> {
    for piece in pieces {
        let need = to_thousandths(piece.amount());
        let from = offers.iter_mut().flat_map(|offer| &mut offer.resources).find(|resource| {
            resource.name == piece.name
                && resource.reservations == piece.reservations
                && resource.allocation_info == piece.allocation_info
                && to_thousandths(resource.amount()) >= need
        })?;
        from.scalar =
            Resource::scalar("", kmctl_core::model::resources::from_thousandths(to_thousandths(from.amount()) - need))
                .scalar;
    }
    Some(())
}
