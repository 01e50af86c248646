//! Offers into tasks: one node for each agent, and as many of the pods as the offer holds.
use std::time::Duration;

use super::framework::{Effect, Node, Run, Stage, Wanted};
use crate::mesos::types::{Bytes, CommandInfo, ExecutorInfo, ExecutorType, Offer, Resource, TaskInfo, Uri};
use crate::node::launch::{FORMAT, PodLaunch, PortMapping, RunLaunch, TaskData};
use crate::scheduler::agents::{Agent, HeldOffer, scalars, take};
use crate::scheduler::resources::Amount;
use crate::scheduler::time::Time;

/// The task that stands for the node itself: there is no executor without one.
pub(super) const NODE_TASK: Amount = Amount::new(10, 1);

/// Time between SHUTDOWN and the agent's kill, and for the end of a node that is told to. Short: what a killed kmctl
/// leaves must be gone within half a minute, Mesos' own wait for kmctl included.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(18);

/// Seconds for which an offer that is not needed is not wanted again.
const NOT_NEEDED: f64 = 3600.0;
/// Seconds for which an offer that is too small is not wanted again: it may grow.
const TOO_SMALL: f64 = 2.0;

impl Run {
    /// Uses an offer for what fits into it, or gives it back.
    pub(super) fn offered(&mut self, offer: Offer) -> Vec<Effect> {
        let decline = |seconds| vec![Effect::Decline { offer: offer.id.clone(), seconds }];
        if self.ending() || !self.waiting() {
            return decline(NOT_NEEDED);
        }
        let (id, agent_id) = (offer.id.clone(), offer.agent_id.value.clone());
        let mut agent = Agent::default();
        agent.hold(offer.clone(), Time(0));
        let dead = self.nodes.get(&agent_id).is_some_and(|node| !node.alive);
        if dead || !self.allowed(&agent) {
            return decline(NOT_NEEDED);
        }
        let mut offers = agent.offers.clone();
        self.largest = self.largest.max(offers.iter().map(|offer| scalars(&offer.resources)).sum());
        let Some((node, first)) = self.node(&agent_id, &agent, &mut offers) else { return decline(TOO_SMALL) };
        let mut tasks = Vec::new();
        for index in 0..self.pods.len() {
            if self.pods[index].stage != Stage::Waiting {
                continue;
            }
            let Some((resources, ports)) = fit(&self.pods[index].wanted, &mut offers) else { continue };
            let wanted = self.pods[index].wanted.clone();
            let task = format!("pod.{}.{}", wanted.given.uid, self.ids.next_id());
            let launch = PodLaunch {
                format: FORMAT,
                namespace: wanted.namespace.clone(),
                name: wanted.name.clone(),
                uid: wanted.given.uid.clone(),
                ports,
            };
            let title = format!("{}.{}", wanted.name, wanted.namespace);
            tasks.push(task_info(&task, title, &agent_id, &node.executor, resources, &TaskData::Pod(launch)));
            self.pods[index].stage = Stage::Launched { agent: agent_id.clone(), task, running: false };
        }
        if tasks.is_empty() {
            return decline(TOO_SMALL);
        }
        tasks.splice(0..0, first);
        self.nodes.insert(agent_id, node);
        let mut effects = vec![Effect::Accept { offer: id, tasks }];
        if !self.waiting() {
            effects.push(Effect::Suppress);
        }
        effects
    }

    /// Whether the operator lets this agent be used.
    fn allowed(&self, agent: &Agent) -> bool {
        self.settings.constraints.iter().all(|constraint| {
            agent.attributes.get(&constraint.attribute).is_some_and(|value| constraint.values.contains(value))
        })
    }

    /// The agent's node, and its task if it is a new one; none where the offer does not hold it.
    fn node(&mut self, agent_id: &str, agent: &Agent, offers: &mut [HeldOffer]) -> Option<(Node, Option<TaskInfo>)> {
        if let Some(node) = self.nodes.get(agent_id) {
            return Some((node.clone(), None));
        }
        let own = take(offers, self.settings.overhead, &[])?;
        let resources = take(offers, NODE_TASK, &[])?;
        let id = self.ids.next_id();
        let executor = self.executor(&format!("once.{id}"), own);
        let settings = &self.settings;
        let launch = RunLaunch {
            format: FORMAT,
            run: format!("once-{id}"),
            node_name: agent.node_name(),
            node_ip: agent.address,
            kubernetes_version: settings.kubernetes_version.clone(),
            root_dir: settings.root_dir.clone(),
            pod_cidr: settings.pod_cidr.clone(),
            cluster_domain: settings.cluster_domain.clone(),
            artifacts: settings.artifacts.clone(),
            overhead: settings.overhead.grant(),
            keep: settings.keep,
        };
        let task = format!("node.once.{id}");
        let data = TaskData::Run(Box::new(launch));
        let info = task_info(&task, "runonce".to_owned(), agent_id, &executor, resources, &data);
        Some((Node::new(agent.hostname.clone(), executor, task), Some(info)))
    }

    /// An executor that runs `km node`.
    fn executor(&self, id: &str, resources: Vec<Resource>) -> ExecutorInfo {
        let settings = &self.settings;
        let uri = Uri {
            value: settings.km.url.clone(),
            executable: Some(true),
            extract: Some(false),
            cache: Some(true),
            output_file: Some("km".to_owned()),
        };
        let command = CommandInfo {
            uris: vec![uri],
            shell: Some(true),
            // The fetcher verifies nothing, and what it brought is about to run as root.
            value: Some(format!("echo \"{}  km\" | sha256sum -c - && exec ./km node", settings.km.sha256)),
            user: Some(settings.user.clone()),
            ..CommandInfo::default()
        };
        ExecutorInfo {
            kind: Some(ExecutorType::Custom),
            executor_id: id.into(),
            command: Some(command),
            resources,
            name: Some("runonce".to_owned()),
            source: Some(settings.cluster.clone()),
            shutdown_grace_period: Some(SHUTDOWN_GRACE.into()),
            ..ExecutorInfo::default()
        }
    }
}

/// Takes what a pod needs. Ports that name none of the agent's get one where there is one.
fn fit(wanted: &Wanted, offers: &mut [HeldOffer]) -> Option<(Vec<Resource>, Vec<PortMapping>)> {
    let named: Vec<u16> = wanted.ports.iter().filter_map(|port| port.host_port).collect();
    let mut free: Vec<u16> = offers
        .iter()
        .flat_map(|offer| &offer.resources)
        .filter(|resource| resource.name == "ports")
        .flat_map(Resource::intervals)
        .flat_map(|(begin, end)| begin..=end)
        .filter_map(|port| u16::try_from(port).ok())
        .filter(|port| !named.contains(port))
        .collect();
    free.sort_unstable();
    free.reverse();
    let mut mappings = Vec::new();
    for port in &wanted.ports {
        let Some(host_port) = port.host_port.or_else(|| free.pop()) else { continue };
        mappings.push(PortMapping { container_port: port.container_port, host_port, protocol: port.protocol.clone() });
    }
    // TCP and UDP of one port are one port to Mesos.
    let mut ports: Vec<u16> = mappings.iter().map(|mapping| mapping.host_port).collect();
    ports.sort_unstable();
    ports.dedup();
    Some((take(offers, wanted.amount, &ports)?, mappings))
}

fn task_info(
    id: &str,
    name: String,
    agent: &str,
    executor: &ExecutorInfo,
    resources: Vec<Resource>,
    data: &TaskData,
) -> TaskInfo {
    TaskInfo {
        name,
        task_id: id.into(),
        agent_id: agent.into(),
        resources,
        executor: Some(executor.clone()),
        data: serde_json::to_vec(data).ok().map(Bytes),
        ..TaskInfo::default()
    }
}
