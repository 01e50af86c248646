//! Turns offers into tasks: one node per agent, and as many of the pods as the offer holds.
use std::time::Duration;

use super::framework::{Effect, Node, Run, Stage};
use kmctl_core::model::agents::{Agent, HeldOffer, scalars, take};
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::tasks::{ExecutorNames, Unnamed, executor, pod_task, take_for_pod, task_info};
use kmctl_core::model::time::Time;
use kmctl_core::protocol::launch::{FORMAT, PodLaunch, RunLaunch, TaskData};
use mesos::types::{Offer, TaskInfo};

/// Time between SHUTDOWN and the kill by the agent, and for a node to stop on request. It is short because a killed
/// kmctl must leave nothing after half a minute, including Mesos' own wait for kmctl.
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(18);

/// Seconds for which an offer that is not needed is not offered again.
const NOT_NEEDED: f64 = 3600.0;
/// Seconds for which an offer that is too small is not offered again: it may grow.
const TOO_SMALL: f64 = 2.0;

impl Run {
    /// Uses an offer for the pods that it can hold, or declines it.
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
            let wanted = self.pods[index].wanted.clone();
            let taken = take_for_pod(&mut offers, wanted.amount, &wanted.ports, Unnamed::WhileThereAre);
            let Some((resources, ports)) = taken else { continue };
            let task = format!("pod.{}.{}", wanted.given.uid, self.ids.next_id());
            let launch = PodLaunch {
                format: FORMAT,
                namespace: wanted.namespace.clone(),
                name: wanted.name.clone(),
                uid: wanted.given.uid.clone(),
                ports,
            };
            tasks.push(pod_task(&task, launch, &agent_id, &node.executor, resources));
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

    /// Whether the operator's constraints allow this agent.
    fn allowed(&self, agent: &Agent) -> bool {
        self.settings.constraints.iter().all(|constraint| {
            agent.attributes.get(&constraint.attribute).is_some_and(|value| constraint.values.contains(value))
        })
    }

    /// The agent's node, and its task if the node is new. None if the offer is too small for the node.
    fn node(&mut self, agent_id: &str, agent: &Agent, offers: &mut [HeldOffer]) -> Option<(Node, Option<TaskInfo>)> {
        if let Some(node) = self.nodes.get(agent_id) {
            return Some((node.clone(), None));
        }
        let own = take(offers, self.settings.overhead, &[])?;
        let resources = take(offers, NODE_TASK, &[])?;
        let id = self.ids.next_id();
        let settings = &self.settings;
        let names =
            ExecutorNames { id: format!("once.{id}"), name: "runonce".to_owned(), source: settings.cluster.clone() };
        let executor = executor(&settings.km, &settings.user, names, own, SHUTDOWN_GRACE);
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
}
