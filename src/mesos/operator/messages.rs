//! Replies of the operator API.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentCapability, AgentId, AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, Labels, Offer, Resource,
    TaskId, TaskState, TaskStatus, TimeInfo,
};

/// Agents of a master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agents {
    /// Registered ones.
    #[serde(default)]
    pub agents: Vec<Agent>,
    /// Ones that a new master waits for.
    #[serde(default)]
    pub recovered_agents: Vec<AgentInfo>,
}

/// An agent as its master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Name, port, attributes, domain.
    pub agent_info: AgentInfo,
    /// Whether it is connected.
    #[serde(default)]
    pub active: bool,
    /// Whether an operator took it out of service.
    #[serde(default)]
    pub deactivated: bool,
    /// Version of Mesos.
    #[serde(default)]
    pub version: String,
    /// Actor and address, `slave(1)@10.0.0.9:5051`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// All that it has.
    #[serde(default)]
    pub total_resources: Vec<Resource>,
    /// Taken by tasks and executors.
    #[serde(default)]
    pub allocated_resources: Vec<Resource>,
    /// Offered to somebody right now.
    #[serde(default)]
    pub offered_resources: Vec<Resource>,
    /// What it understands.
    #[serde(default)]
    pub capabilities: Vec<AgentCapability>,
    /// Present while it is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_info: Option<serde_json::Value>,
}

impl Agent {
    /// Prefix of its API's paths, `/slave(1)`: where several actors share a port, only the prefix finds the agent.
    pub fn path(&self) -> String {
        let actor = self.pid.as_deref().and_then(|pid| pid.split_once('@')).map(|(actor, _)| actor);
        actor.map(|actor| format!("/{actor}")).unwrap_or_default()
    }

    /// `address:port` of its API, as it told the master.
    pub fn endpoint(&self) -> Option<&str> {
        self.pid.as_deref().and_then(|pid| pid.split_once('@')).map(|(_, endpoint)| endpoint)
    }
}

/// Frameworks of a master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frameworks {
    /// Living ones, connected or within their failover timeout.
    #[serde(default)]
    pub frameworks: Vec<Framework>,
    /// Ended ones; their ids are used up.
    #[serde(default)]
    pub completed_frameworks: Vec<Framework>,
}

/// A framework as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Id, name, principal, roles.
    pub framework_info: FrameworkInfo,
    /// Whether it gets offers.
    #[serde(default)]
    pub active: bool,
    /// Whether its scheduler is there.
    #[serde(default)]
    pub connected: bool,
    /// Whether a new master knows it from agents only.
    #[serde(default)]
    pub recovered: bool,
    /// When it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_time: Option<TimeInfo>,
    /// Offers that it holds.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// Taken by its tasks and executors.
    #[serde(default)]
    pub allocated_resources: Vec<Resource>,
    /// Offered to it right now.
    #[serde(default)]
    pub offered_resources: Vec<Resource>,
}

/// Tasks of a master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// Living ones.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// On agents that cannot be reached.
    #[serde(default)]
    pub unreachable_tasks: Vec<Task>,
    /// Ended ones, as many as the master keeps.
    #[serde(default)]
    pub completed_tasks: Vec<Task>,
}

/// A task as the master sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its id.
    pub task_id: TaskId,
    /// Its framework.
    pub framework_id: FrameworkId,
    /// Its executor; absent for a command task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_id: Option<ExecutorId>,
    /// Its agent.
    pub agent_id: AgentId,
    /// The newest state.
    pub state: TaskState,
    /// What it takes.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// Its states, oldest first.
    #[serde(default)]
    pub statuses: Vec<TaskStatus>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// Executors of a master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executors {
    /// Living ones.
    #[serde(default)]
    pub executors: Vec<Executor>,
}

/// An executor as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executor {
    /// As its framework described it, with the framework's id added.
    pub executor_info: ExecutorInfo,
    /// Where it lives; an agent that is asked itself leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Tasks.
    #[serde(default)]
    pub get_tasks: Tasks,
    /// Executors.
    #[serde(default)]
    pub get_executors: Executors,
    /// Frameworks.
    #[serde(default)]
    pub get_frameworks: Frameworks,
    /// Agents.
    #[serde(default)]
    pub get_agents: Agents,
}

/// One setting of a master or agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Its name, with underscores.
    pub name: String,
    /// Its value; absent if it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Settings of a master or agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// They.
    #[serde(default)]
    pub flags: Vec<Flag>,
}

/// A version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// `1.11.0`.
    pub version: String,
}

/// A version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// It.
    pub version_info: VersionInfo,
}

/// Roles of a master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Roles {
    /// They.
    #[serde(default)]
    pub roles: Vec<Role>,
}

/// A role as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its share.
    #[serde(default)]
    pub weight: f64,
    /// Frameworks in it.
    #[serde(default)]
    pub frameworks: Vec<FrameworkId>,
    /// Taken by them.
    #[serde(default)]
    pub resources: Vec<Resource>,
}
