//! The facts about a Mesos cluster that `check` and `status` speak of.
use std::collections::BTreeMap;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::client::{MesosClient, MesosReadError};

/// How many agents are asked at a time.
const AGENTS_AT_ONCE: usize = 8;

/// A flag list as masters and agents print it.
pub type Flags = BTreeMap<String, String>;

/// A Mesos cluster as its leading master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Version.
    pub version: String,
    /// The leader's own address, `host:port`.
    pub leader: String,
    /// Its region, if it has a fault domain.
    pub region: Option<String>,
    /// Its flags.
    #[serde(skip)]
    pub flags: Flags,
    /// Weights of roles that have one.
    pub weights: BTreeMap<String, f64>,
    /// Limits of roles that have quota: resource to amount.
    pub limits: BTreeMap<String, BTreeMap<String, f64>>,
    /// All agents, by hostname.
    pub agents: Vec<Agent>,
    /// Agents that do not answer the master.
    pub unreachable: usize,
    /// What runs under our framework's name.
    pub frameworks: Vec<Framework>,
    /// What could not be asked, in words.
    pub unknown: Vec<String>,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its hostname.
    pub hostname: String,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Version.
    pub version: String,
    /// Whether it takes part.
    pub active: bool,
    /// Attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Region and zone, if it has a fault domain.
    pub domain: Option<(String, String)>,
    /// All it offers.
    pub resources: Pressure,
    /// What is neither reserved nor used.
    pub unreserved: Pressure,
    /// Reserved for roles.
    pub reserved: BTreeMap<String, Pressure>,
    /// Used by tasks and executors.
    pub used: Pressure,
    /// Its ports, as Mesos writes them: `[31000-32000]`.
    pub ports: String,
    /// Agent capabilities.
    #[serde(skip)]
    pub capabilities: Vec<String>,
    /// What the agent itself says; none if it could not be asked.
    pub flags: Option<AgentFlags>,
}

/// What an agent says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFlags {
    /// Its flags.
    #[serde(skip)]
    pub flags: Flags,
    /// Cores of the machine.
    pub machine_cpus: Option<f64>,
    /// Memory of the machine in MB.
    pub machine_mem: Option<f64>,
}

/// Amounts of processor and memory (MB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Cores.
    pub cpus: f64,
    /// MB.
    pub mem: f64,
}

/// A framework.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Framework {
    /// Its id.
    pub id: String,
    /// Whether its scheduler is connected.
    pub connected: bool,
    /// Whether it takes offers.
    pub active: bool,
    /// Who it is.
    pub principal: String,
    /// Its tasks that have not ended.
    pub tasks: Vec<RunningTask>,
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunningTask {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// TASK_RUNNING and the like.
    pub state: String,
    /// The agent's id.
    pub agent: String,
    /// What it holds.
    pub resources: Pressure,
}

/// Asks the leading master, and every agent for its flags. `framework` is ours.
pub async fn read(client: &MesosClient, masters: &[String], framework: &str) -> Result<Master, MesosReadError> {
    let mut last = MesosReadError::Address(String::new());
    for master in masters {
        let base = base(master);
        match client.get::<wire::State>(&base, "/state").await {
            Ok(state) => return Ok(complete(client, &base, state, framework).await),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `host:port` means http.
fn base(master: &str) -> String {
    if master.contains("://") { master.trim_end_matches('/').to_owned() } else { format!("http://{master}") }
}

async fn complete(client: &MesosClient, base: &str, state: wire::State, framework: &str) -> Master {
    let mut unknown = Vec::new();
    let mut note = |what: &str, error: &MesosReadError| unknown.push(format!("{what}: {error}"));
    let weights = match client.get::<Vec<wire::Weight>>(base, "/weights").await {
        Ok(weights) => weights.into_iter().map(|weight| (weight.role, weight.weight)).collect(),
        Err(error) => {
            note("weights of roles", &error);
            BTreeMap::new()
        }
    };
    let limits = match client.get::<wire::Quota>(base, "/quota").await {
        Ok(quota) => quota.limits(),
        Err(error) => {
            note("quota of roles", &error);
            BTreeMap::new()
        }
    };
    let scheme = base.split("://").next().unwrap_or("http").to_owned();
    let ask = |agent: wire::Slave| {
        let scheme = scheme.clone();
        async move { read_agent(client, &scheme, agent).await }
    };
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
        agents,
        unreachable: state.unreachable_slaves as usize,
        frameworks: state.frameworks.into_iter().filter(|found| found.name == framework).map(Into::into).collect(),
        unknown,
    }
}

async fn read_agent(client: &MesosClient, scheme: &str, slave: wire::Slave) -> (Agent, Option<MesosReadError>) {
    // `slave(1)@10.0.0.21:5051`: behind one address there may be several processes, so the first part is needed too.
    let (process, address) = slave.pid.split_once('@').unwrap_or(("slave(1)", slave.pid.as_str()));
    let base = format!("{scheme}://{address}");
    let answer = client.get::<wire::FlagList>(&base, &format!("/{process}/flags")).await;
    let mut agent = slave.into_agent();
    match answer {
        Ok(list) => {
            // Only a nicety: an agent may hide its metrics.
            let metrics = client.get::<BTreeMap<String, f64>>(&base, "/metrics/snapshot").await.unwrap_or_default();
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

/// Mesos' answers, as far as they are used.
mod wire {
    use super::{Agent, BTreeMap, Deserialize, Flags, Pressure, RunningTask};

    #[derive(Deserialize)]
    pub(super) struct State {
        pub(super) version: String,
        pub(super) pid: String,
        #[serde(default)]
        pub(super) domain: Option<Domain>,
        #[serde(default)]
        pub(super) flags: Flags,
        #[serde(default)]
        pub(super) slaves: Vec<Slave>,
        #[serde(default)]
        pub(super) unreachable_slaves: f64,
        #[serde(default)]
        pub(super) frameworks: Vec<Framework>,
    }

    #[derive(Deserialize)]
    pub(super) struct Domain {
        pub(super) fault_domain: FaultDomain,
    }

    #[derive(Deserialize)]
    pub(super) struct FaultDomain {
        pub(super) region: Named,
        pub(super) zone: Named,
    }

    #[derive(Deserialize)]
    pub(super) struct Named {
        pub(super) name: String,
    }

    #[derive(Deserialize)]
    pub(super) struct Slave {
        id: String,
        hostname: String,
        pub(super) pid: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        active: bool,
        #[serde(default)]
        deactivated: bool,
        #[serde(default)]
        attributes: BTreeMap<String, serde_json::Value>,
        #[serde(default)]
        domain: Option<Domain>,
        #[serde(default)]
        resources: Offer,
        #[serde(default)]
        unreserved_resources: Offer,
        #[serde(default)]
        reserved_resources: BTreeMap<String, Offer>,
        #[serde(default)]
        used_resources: Offer,
        #[serde(default)]
        capabilities: Vec<String>,
    }

    #[derive(Default, Deserialize)]
    pub(super) struct Offer {
        #[serde(flatten)]
        amounts: Pressure,
        #[serde(default)]
        ports: String,
    }

    impl Slave {
        pub(super) fn into_agent(self) -> Agent {
            let text = |value: serde_json::Value| match value {
                serde_json::Value::String(text) => text,
                // Mesos prints scalars as floats; 2015.0 was written as 2015.
                serde_json::Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
                other => other.to_string(),
            };
            Agent {
                address: self.pid.split('@').next_back().unwrap_or_default().to_owned(),
                id: self.id,
                hostname: self.hostname,
                version: self.version,
                active: self.active && !self.deactivated,
                attributes: self.attributes.into_iter().map(|(name, value)| (name, text(value))).collect(),
                domain: self.domain.map(|domain| (domain.fault_domain.region.name, domain.fault_domain.zone.name)),
                ports: self.resources.ports,
                resources: self.resources.amounts,
                unreserved: self.unreserved_resources.amounts,
                reserved: self.reserved_resources.into_iter().map(|(role, offer)| (role, offer.amounts)).collect(),
                used: self.used_resources.amounts,
                capabilities: self.capabilities,
                flags: None,
            }
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Framework {
        id: String,
        pub(super) name: String,
        #[serde(default)]
        connected: bool,
        #[serde(default)]
        active: bool,
        #[serde(default)]
        principal: String,
        #[serde(default)]
        tasks: Vec<Task>,
    }

    #[derive(Deserialize)]
    struct Task {
        id: String,
        name: String,
        state: String,
        slave_id: String,
        #[serde(default)]
        resources: Pressure,
    }

    impl From<Framework> for super::Framework {
        fn from(framework: Framework) -> Self {
            let task = |task: Task| RunningTask {
                id: task.id,
                name: task.name,
                state: task.state,
                agent: task.slave_id,
                resources: task.resources,
            };
            super::Framework {
                id: framework.id,
                connected: framework.connected,
                active: framework.active,
                principal: framework.principal,
                tasks: framework.tasks.into_iter().map(task).collect(),
            }
        }
    }

    #[derive(Deserialize)]
    pub(super) struct FlagList {
        pub(super) flags: Flags,
    }

    #[derive(Deserialize)]
    pub(super) struct Weight {
        pub(super) role: String,
        pub(super) weight: f64,
    }

    #[derive(Deserialize)]
    pub(super) struct Quota {
        #[serde(default)]
        infos: Vec<Info>,
    }

    #[derive(Deserialize)]
    struct Info {
        role: String,
        #[serde(default)]
        guarantee: Vec<Amount>,
    }

    #[derive(Deserialize)]
    struct Amount {
        name: String,
        #[serde(default)]
        scalar: Option<Scalar>,
    }

    #[derive(Deserialize)]
    struct Scalar {
        value: f64,
    }

    impl Quota {
        /// What the endpoint calls a guarantee is, for a role with quota, also its limit.
        pub(super) fn limits(self) -> BTreeMap<String, BTreeMap<String, f64>> {
            let amounts = |amounts: Vec<Amount>| {
                amounts.into_iter().filter_map(|amount| Some((amount.name, amount.scalar?.value))).collect()
            };
            self.infos.into_iter().map(|info| (info.role, amounts(info.guarantee))).collect()
        }
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
}
