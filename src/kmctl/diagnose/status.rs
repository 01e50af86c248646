//! Builds the report of `status` from facts. No I/O. `text` formats it.
use std::collections::BTreeMap;

use serde::Serialize;

use crate::failure::Code;
use crate::inventory::bounds::Bounds;
use crate::inventory::certificates::CertificateFacts;
use crate::inventory::mesos::{Framework, Master, Pressure, RunningTask};
use crate::inventory::objects::Objects;
use crate::inventory::units::Unit;
use kmctl_core::cluster::NetworkMode;

/// Everything that `status` shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) cluster: String,
    pub(crate) endpoint: String,
    pub(crate) hosts: Vec<HostReport>,
    /// `None` if it could not be queried. A problem says why.
    pub(crate) api: Option<ApiReport>,
    /// The same for Mesos.
    pub(crate) mesos: Option<MesosReport>,
    pub(crate) nodes: Vec<NodeReport>,
    /// `None` if the API server could not be queried.
    pub(crate) bounds: Option<BoundsReport>,
    pub(crate) pods: PodsReport,
    /// Where Kubernetes and Mesos disagree.
    pub(crate) disagreements: Vec<String>,
    /// What works differently than its author may expect.
    pub(crate) warnings: Vec<String>,
    pub(crate) problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostReport {
    pub(crate) name: String,
    pub(crate) address: String,
    /// `None` if the host could not be queried.
    pub(crate) units: Option<Vec<Unit>>,
    pub(crate) certificates: Vec<CertificateFacts>,
    /// What is older than cluster.yaml. `None` if it could not be compared.
    pub(crate) outdated: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiReport {
    pub(crate) version: String,
    pub(crate) ready: bool,
    pub(crate) unready: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MesosReport {
    pub(crate) version: String,
    pub(crate) leader: String,
    pub(crate) framework: Option<String>,
    pub(crate) connected: bool,
    pub(crate) tasks: usize,
    /// Tasks that do not run, with their states.
    pub(crate) not_running: Vec<String>,
    pub(crate) resources: Pressure,
}

/// Bounds of nodes, live and in the file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BoundsReport {
    pub(crate) live: Bounds,
    pub(crate) file: Bounds,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeReport {
    pub(crate) name: String,
    pub(crate) agent: String,
    pub(crate) state: String,
    pub(crate) ready: bool,
    pub(crate) grant: String,
    pub(crate) pods: usize,
    /// How its kube-proxy writes its rules, as the node itself reported.
    pub(crate) proxy: String,
    /// It was started with a different km than the hosts have now.
    pub(crate) outdated: bool,
    /// Why it is in its state, if the km scheduler reported it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodsReport {
    pub(crate) running: usize,
    pub(crate) starting: usize,
    pub(crate) unscheduled: usize,
}

impl Report {
    /// A report of the hosts. The rest is added once it is known.
    pub(crate) fn new(cluster: &str, endpoint: &str, hosts: Vec<HostReport>) -> Self {
        Report {
            cluster: cluster.to_owned(),
            endpoint: endpoint.to_owned(),
            hosts,
            api: None,
            mesos: None,
            nodes: Vec::new(),
            bounds: None,
            pods: PodsReport::default(),
            disagreements: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds what the API server and Mesos returned, as far as they answered. `km` is the digest of the binary that new
    /// nodes get.
    pub(crate) fn add(&mut self, objects: Option<&Objects>, master: Option<&Master>, km: Option<&str>) {
        // Of several frameworks, the one with tasks is the live one. The others are left over from failovers.
        let framework =
            master.and_then(|master| master.frameworks.iter().max_by_key(|one| (one.connected, one.tasks.len())));
        if let Some(master) = master {
            self.mesos = Some(mesos(master, framework));
        }
        let Some(objects) = objects else { return };
        self.api = Some(ApiReport {
            version: objects.version.clone(),
            ready: objects.unready.is_empty(),
            unready: objects.unready.clone(),
        });
        let hostnames: BTreeMap<&str, &str> = master
            .iter()
            .flat_map(|master| &master.agents)
            .map(|agent| (agent.id.as_str(), agent.hostname.as_str()))
            .collect();
        self.nodes = objects
            .nodes
            .iter()
            .map(|node| {
                let agent = node.agent_id.as_deref();
                NodeReport {
                    name: node.name.clone(),
                    agent: agent.and_then(|id| hostnames.get(id).copied().or(Some(id))).unwrap_or("-").to_owned(),
                    state: node.state.clone().unwrap_or_else(|| "-".to_owned()),
                    ready: node.ready,
                    grant: node.grant.clone().unwrap_or_else(|| "-".to_owned()),
                    pods: objects.pods.iter().filter(|pod| pod.node.as_ref() == Some(&node.name)).count(),
                    proxy: node.proxy.clone().unwrap_or_else(|| "-".to_owned()),
                    outdated: match (&node.executor, km) {
                        (Some(executor), Some(km)) => !executor.contains(km),
                        _ => false,
                    },
                    why: node.why.clone().unwrap_or_default(),
                }
            })
            .collect();
        for node in &objects.nodes {
            if let (Some(mode), Some(why)) = (&node.proxy, &node.proxy_why) {
                self.warnings.push(format!("{}: kube-proxy uses {mode}, not network.proxyMode: {why}", node.name));
            }
        }
        for pod in &objects.pods {
            match (&pod.node, pod.phase.as_str()) {
                (None, _) => self.pods.unscheduled += 1,
                (Some(_), "Running") => self.pods.running += 1,
                (Some(_), _) => self.pods.starting += 1,
            }
        }
        if master.is_some() {
            let tasks = framework.map(|framework| framework.tasks.as_slice()).unwrap_or_default();
            self.disagreements = disagreements(objects, tasks);
        }
    }

    /// Adds warnings about objects in the API that have no effect with this network.
    pub(crate) fn warn(&mut self, mode: NetworkMode, objects: &Objects) {
        let policies = &objects.network_policies;
        if let (NetworkMode::HostPorts, Some(first)) = (mode, policies.first()) {
            let others = match policies.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let text = format!("NetworkPolicy {first}{others} is not enforced: network.mode is hostPorts");
            self.warnings.push(text);
        }
    }

    pub(crate) fn code(&self) -> Code {
        let unseen = self.hosts.iter().filter(|host| host.units.is_none()).count();
        let broken = self.hosts.iter().flat_map(|host| host.units.iter().flatten()).any(|unit| !unit.runs());
        let unready = self.api.as_ref().is_none_or(|api| !api.ready);
        if unseen > 0 {
            Code::SomeHosts
        } else if broken || unready || self.mesos.is_none() {
            Code::Failed
        } else {
            Code::Ok
        }
    }
}

fn mesos(master: &Master, framework: Option<&Framework>) -> MesosReport {
    let tasks = framework.map(|framework| framework.tasks.as_slice()).unwrap_or_default();
    let sum = |amount: fn(&RunningTask) -> f64| tasks.iter().map(amount).fold(0.0, |sum, one| sum + one);
    MesosReport {
        version: master.version.clone(),
        leader: master.leader.clone(),
        framework: framework.map(|framework| framework.id.clone()),
        connected: framework.is_some_and(|framework| framework.connected),
        tasks: tasks.len(),
        not_running: tasks
            .iter()
            .filter(|task| task.state != "TASK_RUNNING")
            .map(|task| format!("{} {}", task.name, task.state))
            .collect(),
        resources: Pressure { cpus: sum(|task| task.resources.cpus), mem: sum(|task| task.resources.mem) },
    }
}

/// Every bound pod has a task and every pod's task has a pod. Both sides change while they are read, so a disagreement
/// may be momentary. One that persists needs inspection.
fn disagreements(objects: &Objects, tasks: &[RunningTask]) -> Vec<String> {
    let mut found = Vec::new();
    let uid =
        |task: &RunningTask| task.id.strip_prefix("pod.").and_then(|rest| rest.split('.').next()).map(str::to_owned);
    let with_task: BTreeMap<String, &RunningTask> = tasks.iter().filter_map(|task| Some((uid(task)?, task))).collect();
    for pod in objects.pods.iter().filter(|pod| pod.node.is_some()) {
        if !with_task.contains_key(&pod.uid) {
            found.push(format!("pod {} has no Mesos task", pod.name));
        }
    }
    for (uid, task) in &with_task {
        if !objects.pods.iter().any(|pod| pod.uid == *uid) {
            found.push(format!("Mesos task {} ({}) has no pod", task.name, task.id));
        }
    }
    found
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
