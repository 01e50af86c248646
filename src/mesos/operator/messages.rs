//! Replies of the operator API.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentCapability, AgentId, AgentInfo, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, Labels, Offer, Resource,
    TaskId, TaskState, TaskStatus, TimeInfo,
};

/// Reply to GET_AGENTS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agents {
    /// Registered agents.
    #[serde(default)]
    pub agents: Vec<Agent>,
    /// Agents that a new master waits for.
    #[serde(default)]
    pub recovered_agents: Vec<AgentInfo>,
}

/// An agent as its master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Hostname, port, attributes and domain.
    pub agent_info: AgentInfo,
    /// Whether the agent is connected.
    #[serde(default)]
    pub active: bool,
    /// Whether an operator took the agent out of service.
    #[serde(default)]
    pub deactivated: bool,
    /// Version of Mesos.
    #[serde(default)]
    pub version: String,
    /// Actor and address, such as `slave(1)@10.0.0.9:5051`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// All resources of the agent.
    #[serde(default)]
    pub total_resources: Vec<Resource>,
    /// Resources in use by tasks and executors.
    #[serde(default)]
    pub allocated_resources: Vec<Resource>,
    /// Resources that are currently offered to a framework.
    #[serde(default)]
    pub offered_resources: Vec<Resource>,
    /// Features that the agent supports.
    #[serde(default)]
    pub capabilities: Vec<AgentCapability>,
    /// Present while the agent is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_info: Option<serde_json::Value>,
}

impl Agent {
    /// Prefix of the API's paths, such as `/slave(1)`. Where several actors share a port, only the prefix identifies
    /// the agent.
    pub fn path(&self) -> String {
        let actor = self.pid.as_deref().and_then(|pid| pid.split_once('@')).map(|(actor, _)| actor);
        actor.map(|actor| format!("/{actor}")).unwrap_or_default()
    }

    /// `address:port` of the API, as the agent reported it to the master.
    pub fn endpoint(&self) -> Option<&str> {
        self.pid.as_deref().and_then(|pid| pid.split_once('@')).map(|(_, endpoint)| endpoint)
    }
}

/// Reply to GET_FRAMEWORKS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frameworks {
    /// Running frameworks, connected or within their failover timeout.
    #[serde(default)]
    pub frameworks: Vec<Framework>,
    /// Ended frameworks; their ids cannot be used again.
    #[serde(default)]
    pub completed_frameworks: Vec<Framework>,
}

/// A framework as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Id, name, principal and roles.
    pub framework_info: FrameworkInfo,
    /// Whether the framework gets offers.
    #[serde(default)]
    pub active: bool,
    /// Whether the framework's scheduler is connected.
    #[serde(default)]
    pub connected: bool,
    /// Whether a new master knows the framework only from agents.
    #[serde(default)]
    pub recovered: bool,
    /// Time of registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_time: Option<TimeInfo>,
    /// Offers that the framework holds.
    #[serde(default)]
    pub offers: Vec<Offer>,
    /// Resources in use by the framework's tasks and executors.
    #[serde(default)]
    pub allocated_resources: Vec<Resource>,
    /// Resources that are currently offered to the framework.
    #[serde(default)]
    pub offered_resources: Vec<Resource>,
}

/// Reply to GET_TASKS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    /// Tasks that have not ended.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// Tasks on unreachable agents.
    #[serde(default)]
    pub unreachable_tasks: Vec<Task>,
    /// Ended tasks, as many as the master keeps.
    #[serde(default)]
    pub completed_tasks: Vec<Task>,
}

/// A task as the master sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Name, set by the framework.
    pub name: String,
    /// Identifier, chosen by the framework.
    pub task_id: TaskId,
    /// Framework of the task.
    pub framework_id: FrameworkId,
    /// Executor of the task; absent for a command task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_id: Option<ExecutorId>,
    /// Agent of the task.
    pub agent_id: AgentId,
    /// The latest state.
    pub state: TaskState,
    /// Resources of the task.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// Reported states, oldest first.
    #[serde(default)]
    pub statuses: Vec<TaskStatus>,
    /// Labels, set by the framework.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// Reply to GET_EXECUTORS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executors {
    /// Running executors.
    #[serde(default)]
    pub executors: Vec<Executor>,
}

/// An executor as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Executor {
    /// The framework's description of the executor, with the framework's id added.
    pub executor_info: ExecutorInfo,
    /// Agent that runs the executor; absent in an agent's own reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
}

/// Reply to GET_STATE: everything at one point in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// As in the reply to GET_TASKS.
    #[serde(default)]
    pub get_tasks: Tasks,
    /// As in the reply to GET_EXECUTORS.
    #[serde(default)]
    pub get_executors: Executors,
    /// As in the reply to GET_FRAMEWORKS.
    #[serde(default)]
    pub get_frameworks: Frameworks,
    /// As in the reply to GET_AGENTS.
    #[serde(default)]
    pub get_agents: Agents,
}

/// One flag of a master or agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// Name, with underscores.
    pub name: String,
    /// Value; absent if the flag is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Reply to GET_FLAGS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Flags of the master or agent.
    #[serde(default)]
    pub flags: Vec<Flag>,
}

/// A version of Mesos.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// Such as `1.11.0`.
    pub version: String,
}

/// Reply to GET_VERSION.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of the master or agent.
    pub version_info: VersionInfo,
}

/// Reply to GET_ROLES.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Roles {
    /// Roles of the master.
    #[serde(default)]
    pub roles: Vec<Role>,
}

/// A role as the master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// Name of the role.
    pub name: String,
    /// Weight, which determines the role's share.
    #[serde(default)]
    pub weight: f64,
    /// Frameworks in the role.
    #[serde(default)]
    pub frameworks: Vec<FrameworkId>,
    /// Resources in use by these frameworks.
    #[serde(default)]
    pub resources: Vec<Resource>,
}
