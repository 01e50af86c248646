//! The facts about a Mesos cluster that `check` and `status` report.
use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::wire;
use mesos::MesosError;
use mesos::operator::Endpoints;

/// How many agents are queried concurrently.
const AGENTS_AT_ONCE: usize = 8;

/// A flag list as masters and agents print it.
pub type Flags = BTreeMap<String, String>;

/// A Mesos cluster as its leading master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Version of Mesos.
    pub version: String,
    /// The leader's own address, `host:port`.
    pub leader: String,
    /// Its region, if it has a fault domain.
    pub region: Option<String>,
    /// The leader's command-line flags.
    #[serde(skip)]
    pub flags: Flags,
    /// Weights of roles that have one.
    pub weights: BTreeMap<String, f64>,
    /// Limits of roles that have a quota: resource to amount.
    pub limits: BTreeMap<String, BTreeMap<String, f64>>,
    /// All agents, by hostname.
    pub agents: Vec<Agent>,
    /// How many agents do not answer the master.
    pub unreachable: usize,
    /// Frameworks with our framework's name.
    pub frameworks: Vec<Framework>,
    /// What frameworks of each role hold, and what they may hold if the role has a quota. `None` if it could not be
    /// queried.
    pub roles: Option<BTreeMap<String, RoleUse>>,
    /// What could not be queried, in words.
    pub unknown: Vec<String>,
}

/// What a role's frameworks hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleUse {
    /// The sum over its frameworks.
    pub held: Pressure,
    /// The limit of each resource. A resource without a limit is absent.
    pub limit: BTreeMap<String, f64>,
}

/// A task that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedTask {
    pub id: String,
    pub name: String,
    /// The final state, e.g. TASK_FAILED.
    pub state: String,
    /// The message of its last status.
    pub message: String,
    /// The agent's id.
    pub agent: String,
    /// When it ended, in seconds since 1970.
    pub at: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    pub id: String,
    pub hostname: String,
    /// The address that it listens on: `host:port`.
    pub address: String,
    /// The first part of its paths: several agents may share one address.
    #[serde(skip)]
    pub process: String,
    /// Version of Mesos.
    pub version: String,
    /// Whether it is registered and not deactivated.
    pub active: bool,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Region and zone, if it has a fault domain.
    pub domain: Option<(String, String)>,
    /// All resources that it offers.
    pub resources: Pressure,
    /// Resources that are neither reserved nor used.
    pub unreserved: Pressure,
    /// Resources reserved for roles.
    pub reserved: BTreeMap<String, Pressure>,
    /// Resources used by tasks and executors.
    pub used: Pressure,
    /// Its ports, as Mesos writes them: `[31000-32000]`.
    pub ports: String,
    #[serde(skip)]
    pub capabilities: Vec<String>,
    /// What the agent itself reports. `None` if it could not be queried.
    pub flags: Option<AgentFlags>,
}

/// What an agent reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFlags {
    /// Its command-line flags.
    #[serde(skip)]
    pub flags: Flags,
    /// Number of the machine's CPUs.
    pub machine_cpus: Option<f64>,
    /// Memory of the machine in MB.
    pub machine_mem: Option<f64>,
}

/// Amounts of CPU and memory (MB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Number of CPUs.
    pub cpus: f64,
    /// MB of memory.
    pub mem: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Framework {
    pub id: String,
    /// Whether its scheduler is connected.
    pub connected: bool,
    /// Whether it accepts offers.
    pub active: bool,
    /// The principal that it registered with.
    pub principal: String,
    /// Its tasks that have not ended.
    pub tasks: Vec<RunningTask>,
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningTask {
    pub id: String,
    pub name: String,
    /// The state, e.g. TASK_RUNNING.
    pub state: String,
    /// The agent's id.
    pub agent: String,
    /// The resources that it holds.
    pub resources: Pressure,
}

/// Queries the leading master, and every agent for its flags. `framework` is the name of our framework.
pub async fn read(mesos: &Endpoints, framework: &str) -> Result<Master, MesosError> {
    Ok(complete(mesos, mesos.leading("/state").await?, framework).await)
}

/// The agents as the leading master knows them, without what they report themselves: one request instead of at least
/// one per agent.
pub async fn agents(mesos: &Endpoints) -> Result<Vec<Agent>, MesosError> {
    let state: wire::State = mesos.leading("/state").await?;
    Ok(state.slaves.into_iter().map(wire::Slave::into_agent).collect())
}

/// The framework's tasks that have ended, as many as the master remembers, the newest last.
pub async fn ended(mesos: &Endpoints, framework: &str) -> Result<Vec<EndedTask>, MesosError> {
    // /state reports a task's end without its message.
    Ok(mesos.call::<wire::Ended>("GET_TASKS").await?.of(framework))
}

async fn complete(mesos: &Endpoints, state: wire::State, framework: &str) -> Master {
    let mut unknown = Vec::new();
    let mut note = |what: &str, error: &MesosError| unknown.push(format!("{what}: {error}"));
    let weights = match mesos.leading::<Vec<wire::Weight>>("/weights").await {
        Ok(weights) => weights.into_iter().map(|weight| (weight.role, weight.weight)).collect(),
        Err(error) => {
            note("weights of roles", &error);
            BTreeMap::new()
        }
    };
    let limits = match mesos.leading::<wire::Quota>("/quota").await {
        Ok(quota) => quota.limits(),
        Err(error) => {
            note("quota of roles", &error);
            BTreeMap::new()
        }
    };
    // Only `why` needs it, and reports if it is missing.
    let roles = mesos.leading::<wire::Roles>("/roles").await.ok().map(wire::Roles::used);
    let ask = |agent: wire::Slave| read_agent(mesos, agent);
    let asked: Vec<_> = futures::stream::iter(state.slaves).map(ask).buffered(AGENTS_AT_ONCE).collect().await;
    let mut agents = Vec::new();
    for (agent, error) in asked {
        if let Some(error) = error {
            note(&format!("flags of agent {}", agent.hostname), &error);
        }
        agents.push(agent);
    }
    agents.sort_by(|a, b| (&a.hostname, &a.id).cmp(&(&b.hostname, &b.id)));
    Master {
        version: state.version,
        leader: state.pid.split('@').next_back().unwrap_or_default().to_owned(),
        region: state.domain.map(|domain| domain.fault_domain.region.name),
        flags: state.flags,
        weights,
        limits,
        roles,
        agents,
        unreachable: state.unreachable_slaves as usize,
        frameworks: state.frameworks.into_iter().filter(|found| found.name == framework).map(Into::into).collect(),
        unknown,
    }
}

async fn read_agent(mesos: &Endpoints, slave: wire::Slave) -> (Agent, Option<MesosError>) {
    // `slave(1)@10.0.0.21:5051`: several processes may share one address, so the first part is needed too.
    let (process, address) = slave.pid.split_once('@').unwrap_or(("slave(1)", slave.pid.as_str()));
    let (process, address) = (process.to_owned(), address.to_owned());
    let answer = mesos.at::<wire::FlagList>(&address, &format!("/{process}/flags")).await;
    let mut agent = slave.into_agent();
    match answer {
        Ok(list) => {
            // Optional: an agent may hide its metrics.
            let metrics = mesos.at::<BTreeMap<String, f64>>(&address, "/metrics/snapshot").await.unwrap_or_default();
            agent.flags = Some(AgentFlags {
                flags: list.flags,
                machine_cpus: metrics.get("system/cpus_total").copied(),
                machine_mem: metrics.get("system/mem_total_bytes").map(|bytes| bytes / f64::from(1 << 20)),
            });
            (agent, None)
        }
        Err(error) => (agent, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_state_is_read_as_far_as_it_is_used() {
        let state: wire::State = serde_json::from_value(serde_json::json!({
            "version": "1.11.0", "pid": "master@10.0.0.5:5050", "unreachable_slaves": 1.0, "flags": { "roles": "a" },
            "domain": { "fault_domain": { "region": { "name": "eu" }, "zone": { "name": "a" } } },
            "slaves": [{
                "id": "S0", "hostname": "a1", "pid": "slave(1)@10.0.0.21:5051", "version": "1.11.0", "active": true,
                "attributes": { "rack": "r1", "generation": 2015.0, "cores": [1, 2] },
                "resources": { "cpus": 2.0, "mem": 3072.0, "disk": 1.0, "ports": "[31000-32000]" },
                "unreserved_resources": { "cpus": 1.0, "mem": 1024.0 },
                "reserved_resources": { "dev": { "cpus": 1.0, "mem": 2048.0 } },
                "capabilities": ["MULTI_ROLE"]
            }],
            "frameworks": [{
                "id": "F", "name": "kubernetes-demo", "connected": true, "active": false, "principal": "p",
                "tasks": [{ "id": "t", "name": "web.default", "state": "TASK_RUNNING", "slave_id": "S0",
                            "resources": { "cpus": 0.5, "mem": 128.0, "ports": "[31000-31000]" } }]
            }, { "id": "G", "name": "other" }]
        }))
        .unwrap();
        let agent = state.slaves.into_iter().next().unwrap().into_agent();
        assert_eq!(agent.address, "10.0.0.21:5051");
        assert_eq!(agent.attributes["generation"], "2015");
        assert_eq!(agent.ports, "[31000-32000]");
        assert_eq!(agent.reserved["dev"], Pressure { cpus: 1.0, mem: 2048.0 });
        let framework: Framework = state.frameworks.into_iter().next().unwrap().into();
        assert_eq!(framework.tasks[0].resources, Pressure { cpus: 0.5, mem: 128.0 });
    }

    #[test]
    fn roles_tell_what_is_held_and_what_may_be() {
        let roles: wire::Roles = serde_json::from_value(serde_json::json!({"roles": [
            {"name": "kubernetes", "weight": 1.0, "resources": {"cpus": 1.5, "mem": 2048, "ports": "[1-2]"},
             "quota": {"role": "kubernetes", "consumed": {"cpus": 1.0, "mem": 1024}, "guarantee": {}, "limit": {"cpus": 2}}},
            {"name": "*", "resources": {"cpus": 0.0}},
        ]}))
        .unwrap();
        let used = roles.used();
        assert_eq!(used["kubernetes"].held, Pressure { cpus: 1.0, mem: 1024.0 });
        assert_eq!(used["kubernetes"].limit, BTreeMap::from([("cpus".to_owned(), 2.0)]));
        assert_eq!(used["*"], RoleUse::default());
    }

    #[test]
    fn tasks_that_ended_come_with_what_was_said_and_others_do_not() {
        let task = |id: &str, framework: &str, at: f64| {
            serde_json::json!({"name": "node.a", "task_id": {"value": id}, "framework_id": {"value": framework},
                "agent_id": {"value": "S0"}, "state": "TASK_FAILED",
                "statuses": [{"state": "TASK_STARTING"}, {"message": "no disk", "timestamp": at}]})
        };
        let ended: wire::Ended = serde_json::from_value(serde_json::json!({"type": "GET_TASKS", "get_tasks": {
            "tasks": [task("living", "F", 1.0)],
            "completed_tasks": [task("new", "F", 9.5), task("old", "F", 3.0), task("other", "G", 1.0)],
        }}))
        .unwrap();
        let ended = ended.of("F");
        let seen: Vec<_> = ended.iter().map(|task| (task.id.as_str(), task.message.as_str(), task.at)).collect();
        assert_eq!(seen, [("old", "no disk", Some(3)), ("new", "no disk", Some(9))]);
    }
}
