//! Mesos' answers, reduced to the fields that are used.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::facts::{self, Agent, EndedTask, Flags, Pressure, RoleUse, RunningTask};

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
            // Mesos prints scalars as floats: an attribute written as 2015 is printed as 2015.0.
            serde_json::Value::Number(number) => number.to_string().trim_end_matches(".0").to_owned(),
            other => other.to_string(),
        };
        Agent {
            address: self.pid.split('@').next_back().unwrap_or_default().to_owned(),
            process: self.pid.split_once('@').map_or("slave(1)", |(process, _)| process).to_owned(),
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

impl From<Framework> for facts::Framework {
    fn from(framework: Framework) -> Self {
        let task = |task: Task| RunningTask {
            id: task.id,
            name: task.name,
            state: task.state,
            agent: task.slave_id,
            resources: task.resources,
        };
        facts::Framework {
            id: framework.id,
            connected: framework.connected,
            active: framework.active,
            principal: framework.principal,
            tasks: framework.tasks.into_iter().map(task).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Roles {
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    #[serde(default)]
    resources: Pressure,
    #[serde(default)]
    quota: Option<RoleQuota>,
}

#[derive(Deserialize)]
struct RoleQuota {
    #[serde(default)]
    consumed: Option<Pressure>,
    #[serde(default)]
    limit: BTreeMap<String, serde_json::Value>,
}

impl Roles {
    pub(super) fn used(self) -> BTreeMap<String, RoleUse> {
        let used = |role: Role| {
            let quota = role.quota.unwrap_or(RoleQuota { consumed: None, limit: BTreeMap::new() });
            let limit = quota.limit.into_iter().filter_map(|(name, limit)| Some((name, limit.as_f64()?))).collect();
            (role.name, RoleUse { held: quota.consumed.unwrap_or(role.resources), limit })
        };
        self.roles.into_iter().map(used).collect()
    }
}

#[derive(Deserialize)]
pub(super) struct Ended {
    #[serde(default)]
    get_tasks: EndedTasks,
}

#[derive(Default, Deserialize)]
struct EndedTasks {
    #[serde(default)]
    completed_tasks: Vec<Completed>,
}

#[derive(Deserialize)]
struct Completed {
    name: String,
    task_id: Id,
    framework_id: Id,
    agent_id: Id,
    state: String,
    #[serde(default)]
    statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Id {
    value: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
    #[serde(default)]
    timestamp: Option<f64>,
}

impl Ended {
    pub(super) fn of(self, framework: &str) -> Vec<EndedTask> {
        let ours = self.get_tasks.completed_tasks.into_iter().filter(|task| task.framework_id.value == framework);
        let mut all: Vec<EndedTask> = ours
            .map(|task| {
                let last = task.statuses.into_iter().next_back();
                EndedTask {
                    id: task.task_id.value,
                    name: task.name,
                    state: task.state,
                    agent: task.agent_id.value,
                    at: last.as_ref().and_then(|status| status.timestamp).map(|at| at as i64),
                    message: last.map(|status| status.message).unwrap_or_default(),
                }
            })
            .collect();
        all.sort_by_key(|task| task.at);
        all
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
    /// For a role with a quota, what the endpoint calls a guarantee is also its limit.
    pub(super) fn limits(self) -> BTreeMap<String, BTreeMap<String, f64>> {
        let amounts = |amounts: Vec<Amount>| {
            amounts.into_iter().filter_map(|amount| Some((amount.name, amount.scalar?.value))).collect()
        };
        self.infos.into_iter().map(|info| (info.role, amounts(info.guarantee))).collect()
    }
}
