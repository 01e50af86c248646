//! What `status` shows, put together from facts and written as text. No I/O.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::failure::Code;
use crate::cluster::NetworkMode;
use crate::inventory::mesos::{Framework, Master, Pressure, RunningTask};
use crate::inventory::objects::Objects;
use crate::inventory::units::Unit;

/// Everything that `status` shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) cluster: String,
    pub(super) endpoint: String,
    pub(super) hosts: Vec<HostReport>,
    /// None where it could not be asked; a problem says why.
    pub(super) api: Option<ApiReport>,
    /// The same for Mesos.
    pub(super) mesos: Option<MesosReport>,
    pub(super) nodes: Vec<NodeReport>,
    pub(super) pods: PodsReport,
    /// Where Kubernetes and Mesos do not agree.
    pub(super) disagreements: Vec<String>,
    /// What works otherwise than its author may think.
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostReport {
    pub(super) name: String,
    pub(super) address: String,
    /// None where the host could not be asked.
    pub(super) units: Option<Vec<Unit>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiReport {
    version: String,
    ready: bool,
    unready: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MesosReport {
    version: String,
    leader: String,
    framework: Option<String>,
    connected: bool,
    tasks: usize,
    resources: Pressure,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeReport {
    name: String,
    agent: String,
    state: String,
    ready: bool,
    grant: String,
    pods: usize,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodsReport {
    running: usize,
    starting: usize,
    unscheduled: usize,
}

impl Report {
    /// A report of the hosts; the rest is added as it becomes known.
    pub(super) fn new(cluster: &str, endpoint: &str, hosts: Vec<HostReport>) -> Self {
        Report {
            cluster: cluster.to_owned(),
            endpoint: endpoint.to_owned(),
            hosts,
            api: None,
            mesos: None,
            nodes: Vec::new(),
            pods: PodsReport::default(),
            disagreements: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Adds what the API server and Mesos said, as far as they did.
    pub(super) fn add(&mut self, objects: Option<&Objects>, master: Option<&Master>) {
        // Of several, the one with tasks is the living one; the others are what failovers left.
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
                }
            })
            .collect();
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

    /// Adds what is in the API but has no effect with this network.
    pub(super) fn warn(&mut self, mode: NetworkMode, objects: &Objects) {
        let policies = &objects.network_policies;
        if let (NetworkMode::HostPorts, Some(first)) = (mode, policies.first()) {
            let others = match policies.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            let text = format!("nothing enforces NetworkPolicy {first}{others}: network.mode is hostPorts");
            self.warnings.push(text);
        }
    }

    /// The exit code.
    pub(super) fn code(&self) -> Code {
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

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = format!("cluster {}, https://{}\n", self.cluster, self.endpoint);
        // Writing to a String cannot fail.
        for host in &self.hosts {
            let _ = writeln!(out, "host {} ({}): {}", host.name, host.address, describe(host.units.as_deref()));
        }
        if let Some(api) = &self.api {
            let state = if api.ready { "ready".to_owned() } else { format!("not ready: {}", api.unready.join("; ")) };
            let _ = writeln!(out, "api {}: {state}", api.version);
        }
        if let Some(mesos) = &self.mesos {
            let framework = match &mesos.framework {
                Some(id) => {
                    let connected = if mesos.connected { "connected" } else { "NOT connected" };
                    format!(
                        "framework {id} {connected}, tasks {}, holding {} cpus and {} MB",
                        mesos.tasks,
                        round(mesos.resources.cpus),
                        round(mesos.resources.mem)
                    )
                }
                None => "no framework of this cluster".to_owned(),
            };
            let _ = writeln!(out, "mesos {} at {}: {framework}", mesos.version, mesos.leader);
        }
        if self.api.is_some() {
            out.push_str(&self.nodes_text());
            let PodsReport { running, starting, unscheduled } = self.pods;
            let _ = writeln!(out, "pods: {running} running, {starting} starting, {unscheduled} waiting for a node");
        }
        for remark in self.disagreements.iter().chain(&self.warnings) {
            let _ = writeln!(out, "! {remark}");
        }
        for problem in &self.problems {
            let _ = writeln!(out, "✗ {problem}");
        }
        out
    }

    fn nodes_text(&self) -> String {
        if self.nodes.is_empty() {
            return "nodes: none, which is normal while no pod needs one\n".to_owned();
        }
        let header = ["  NODE", "AGENT", "STATE", "READY", "GRANT", "PODS"].map(str::to_owned);
        let rows = self.nodes.iter().map(|node| {
            let ready = if node.ready { "yes" } else { "no" };
            let name = format!("  {}", node.name);
            [name, node.agent.clone(), node.state.clone(), ready.to_owned(), node.grant.clone(), node.pods.to_string()]
        });
        format!("nodes: {}\n{}", self.nodes.len(), table(std::iter::once(header).chain(rows).collect()))
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
        resources: Pressure { cpus: sum(|task| task.resources.cpus), mem: sum(|task| task.resources.mem) },
    }
}

/// Every bound pod has a task and every pod's task a pod. Both sides change while they are read, so a moment later it
/// may look different; what stays is worth a look.
fn disagreements(objects: &Objects, tasks: &[RunningTask]) -> Vec<String> {
    let mut found = Vec::new();
    let uid =
        |task: &RunningTask| task.id.strip_prefix("pod.").and_then(|rest| rest.split('.').next()).map(str::to_owned);
    let with_task: BTreeMap<String, &RunningTask> = tasks.iter().filter_map(|task| Some((uid(task)?, task))).collect();
    for pod in objects.pods.iter().filter(|pod| pod.node.is_some()) {
        if !with_task.contains_key(&pod.uid) {
            found.push(format!("pod {} runs without a Mesos task", pod.name));
        }
    }
    for (uid, task) in &with_task {
        if !objects.pods.iter().any(|pod| pod.uid == *uid) {
            found.push(format!("Mesos task {} ({}) has no pod", task.name, task.id));
        }
    }
    found
}

fn describe(units: Option<&[Unit]>) -> String {
    let Some(units) = units else { return "not seen".to_owned() };
    if units.iter().all(|unit| unit.state == "missing") {
        return "nothing is installed".to_owned();
    }
    let wrong: Vec<String> = units
        .iter()
        .filter(|unit| !unit.runs() || unit.restarts > 0)
        .map(|unit| {
            let state = match (unit.runs(), unit.detail.as_str()) {
                (true, _) => "runs".to_owned(),
                (false, "") => unit.state.clone(),
                (false, detail) => format!("{} ({detail})", unit.state),
            };
            let restarts = match unit.restarts {
                0 => String::new(),
                1 => ", restarted once".to_owned(),
                count => format!(", restarted {count} times"),
            };
            format!("{} {state}{restarts}", unit.name)
        })
        .collect();
    let running = units.iter().filter(|unit| unit.runs()).count();
    let summary = format!("{running} of {} units run", units.len());
    if wrong.is_empty() { summary } else { format!("{summary}; {}", wrong.join("; ")) }
}

/// Three decimals, which is what Mesos keeps, and no more zeros than needed.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::mesos::Agent;
    use crate::inventory::objects::{NodeFacts, PodFacts};
    use crate::inventory::units::UNITS;

    fn units() -> Vec<Unit> {
        let unit = |name: &&str| Unit {
            name: (*name).to_owned(),
            state: "active".to_owned(),
            detail: "running".to_owned(),
            restarts: 0,
        };
        UNITS.iter().map(unit).collect()
    }

    fn report(units: Option<Vec<Unit>>) -> Report {
        let host = HostReport { name: "cp1".to_owned(), address: "10.0.0.11".to_owned(), units };
        Report::new("demo", "10.0.0.11:6443", vec![host])
    }

    fn pod(name: &str, uid: &str, node: Option<&str>, phase: &str) -> PodFacts {
        PodFacts {
            name: format!("default/{name}"),
            uid: uid.to_owned(),
            node: node.map(str::to_owned),
            phase: phase.to_owned(),
            task: None,
        }
    }

    fn task(id: &str, name: &str) -> RunningTask {
        RunningTask {
            id: id.to_owned(),
            name: name.to_owned(),
            state: "TASK_RUNNING".to_owned(),
            agent: "S0".to_owned(),
            resources: Pressure { cpus: 0.1, mem: 64.0 },
        }
    }

    fn master(tasks: Vec<RunningTask>) -> Master {
        let framework =
            Framework { id: "F-0001".to_owned(), connected: true, active: true, principal: String::new(), tasks };
        let agent = Agent { id: "S0".to_owned(), hostname: "agent1".to_owned(), ..Agent::default() };
        Master {
            version: "1.11.0".to_owned(),
            leader: "10.0.0.5:5050".to_owned(),
            agents: vec![agent],
            frameworks: vec![framework],
            ..Master::default()
        }
    }

    fn node(name: &str, state: &str) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            agent_id: Some("S0".to_owned()),
            state: Some(state.to_owned()),
            grant: Some("cpus:0.75;mem:644".to_owned()),
            ready: state == "ready",
        }
    }

    fn objects(nodes: Vec<NodeFacts>, pods: Vec<PodFacts>) -> Objects {
        Objects { version: "v1.20.2".to_owned(), unready: Vec::new(), nodes, pods, network_policies: Vec::new() }
    }

    #[test]
    fn an_idle_cluster_is_well_without_nodes() {
        let mut report = report(Some(units()));
        report.add(Some(&objects(Vec::new(), Vec::new())), Some(&master(Vec::new())));
        insta::assert_snapshot!(report.text());
        assert_eq!(report.code(), Code::Ok);
    }

    #[test]
    fn a_busy_cluster_shows_nodes_and_pods_and_tasks_that_agree() {
        let mut report = report(Some(units()));
        let pods = vec![pod("web", "u1", Some("agent1"), "Running"), pod("wait", "u2", None, "Pending")];
        let tasks = vec![task("pod.u1.0a1b2c3d", "web.default"), task("node.agent1.0a1b2c3d", "node.agent1")];
        report.add(
            Some(&objects(vec![node("agent1", "ready"), node("a-longer-name", "candidate")], pods)),
            Some(&master(tasks)),
        );
        insta::assert_snapshot!(report.text());
        assert_eq!(report.code(), Code::Ok);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut units = units();
        units[3].state = "activating".to_owned();
        units[3].detail = "auto-restart".to_owned();
        units[3].restarts = 7;
        let mut report = report(Some(units));
        let pods = vec![pod("web", "u1", Some("agent1"), "Pending")];
        let mut facts = objects(vec![node("agent1", "starting")], pods);
        facts.unready = vec!["etcd failed: reason withheld".to_owned()];
        report.add(Some(&facts), Some(&master(vec![task("pod.u9.0a1b2c3d", "old.default")])));
        report.problems.push("cp2: connect to 10.0.0.12:22: connection refused".to_owned());
        insta::assert_snapshot!(report.text());
        assert_eq!(report.code(), Code::Failed);
    }

    #[test]
    fn a_host_that_is_not_seen_and_one_that_is_empty_look_different() {
        let mut unseen = report(None);
        unseen.add(None, None);
        assert_eq!(unseen.code(), Code::SomeHosts);
        let missing = |unit: Unit| Unit { state: "missing".to_owned(), detail: String::new(), ..unit };
        let empty = report(Some(units().into_iter().map(missing).collect()));
        assert_eq!(empty.code(), Code::Failed);
        insta::assert_snapshot!(format!("{}---\n{}", unseen.text(), empty.text()));
    }

    #[test]
    fn policies_that_nothing_enforces_are_named() {
        let mut facts = objects(Vec::new(), Vec::new());
        let mut quiet = report(Some(units()));
        quiet.warn(NetworkMode::HostPorts, &facts);
        facts.network_policies = vec!["shop/deny".to_owned(), "shop/allow".to_owned()];
        quiet.warn(NetworkMode::Cni, &facts);
        assert!(quiet.warnings.is_empty(), "with a plugin it is the plugin's matter");
        let mut told = report(Some(units()));
        told.warn(NetworkMode::HostPorts, &facts);
        let line = "! nothing enforces NetworkPolicy shop/deny and 1 more: network.mode is hostPorts\n";
        assert!(told.text().contains(line), "{}", told.text());
    }
}
