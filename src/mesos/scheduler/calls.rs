//! Calls of a framework to the master.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentId, Bytes, ExecutorId, Filters, FrameworkId, FrameworkInfo, KillPolicy, OfferId, Operation, TaskId, TaskStatus,
};

/// A call, with the framework that sends it; the client sets the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameworkCall {
    /// Absent only in the very first subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework_id: Option<FrameworkId>,
    /// The call itself, with its `type`, in the same JSON object.
    #[serde(flatten)]
    pub call: Call,
}

/// A call. The only field of each variant has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Call {
    /// Opens the stream of events.
    Subscribe {
        /// The framework that subscribes.
        subscribe: Subscribe,
    },
    /// Tears down the framework and all its tasks.
    Teardown,
    /// Accepts offers.
    Accept {
        /// The offers and the operations on them.
        accept: Accept,
    },
    /// Declines offers.
    Decline {
        /// The offers.
        decline: Decline,
    },
    /// Requests offers again, and removes all filters.
    Revive {
        /// Roles to revive.
        revive: Roles,
    },
    /// Stops offers.
    Suppress {
        /// Roles to suppress.
        suppress: Roles,
    },
    /// Kills a task.
    Kill {
        /// The task, and how to kill it.
        kill: Kill,
    },
    /// Shuts down an executor and its tasks.
    Shutdown {
        /// The executor.
        shutdown: Shutdown,
    },
    /// Acknowledges a status.
    Acknowledge {
        /// The status.
        acknowledge: Acknowledge,
    },
    /// Requests the states of tasks.
    Reconcile {
        /// The tasks; empty means all that the master knows.
        reconcile: Reconcile,
    },
    /// Sends a message to an executor; it may be lost.
    Message {
        /// The receiving executor, and opaque bytes for it.
        message: super::Message,
    },
    /// Updates the framework's info.
    UpdateFramework {
        /// The new info.
        update_framework: UpdateFramework,
    },
    /// A call that this crate does not know.
    #[serde(other)]
    Unknown,
}

/// Opens the stream of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The framework that subscribes.
    pub framework_info: FrameworkInfo,
    /// Roles that get no offers for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_roles: Vec<String>,
}

/// Accepts offers. All must be of one agent and one role. What is not used is returned to the master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// Offers to accept.
    #[serde(default)]
    pub offer_ids: Vec<OfferId>,
    /// Operations on the offers, in order.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Filter for the unused rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
}

/// Declines offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decline {
    /// Offers to decline.
    #[serde(default)]
    pub offer_ids: Vec<OfferId>,
    /// How long the resources are not offered again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
}

/// Roles; empty means all roles of the framework.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Names of the roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// Kills a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Task to kill.
    pub task_id: TaskId,
    /// Agent of the task; helps a master that does not know the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// Replaces the task's own kill policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_policy: Option<KillPolicy>,
}

/// Shuts down an executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Executor to shut down.
    pub executor_id: ExecutorId,
    /// Agent that runs the executor.
    pub agent_id: AgentId,
}

/// Acknowledges a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// Agent named in the status.
    pub agent_id: AgentId,
    /// Task named in the status.
    pub task_id: TaskId,
    /// UUID of the status.
    pub uuid: Bytes,
}

/// A task to reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileTask {
    /// Task whose state is requested.
    pub task_id: TaskId,
    /// Expected agent of the task; lets the master answer for agents that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
}

/// Requests the states of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// The tasks; empty means all that the master knows.
    #[serde(default)]
    pub tasks: Vec<ReconcileTask>,
}

/// Updates the framework's info.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateFramework {
    /// The new info, which replaces the old one completely.
    pub framework_info: FrameworkInfo,
    /// Roles that get no offers for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_roles: Vec<String>,
}

impl Call {
    /// Applies operations to offers of one agent and role.
    pub fn accept(offer_ids: Vec<OfferId>, operations: Vec<Operation>, filters: Filters) -> Self {
        Self::Accept { accept: Accept { offer_ids, operations, filters: Some(filters) } }
    }

    /// Declines offers.
    pub fn decline(offer_ids: Vec<OfferId>, filters: Filters) -> Self {
        Self::Decline { decline: Decline { offer_ids, filters: Some(filters) } }
    }

    /// Requests offers again for these roles; empty means all.
    pub fn revive(roles: Vec<String>) -> Self {
        Self::Revive { revive: Roles { roles } }
    }

    /// Stops offers for these roles; empty means all.
    pub fn suppress(roles: Vec<String>) -> Self {
        Self::Suppress { suppress: Roles { roles } }
    }

    /// Kills a task.
    pub fn kill(task_id: TaskId, agent_id: Option<AgentId>) -> Self {
        Self::Kill { kill: Kill { task_id, agent_id, kill_policy: None } }
    }

    /// Shuts down an executor.
    pub fn shutdown(executor_id: ExecutorId, agent_id: AgentId) -> Self {
        Self::Shutdown { shutdown: Shutdown { executor_id, agent_id } }
    }

    /// Requests the states of these tasks; empty means all.
    pub fn reconcile(tasks: Vec<ReconcileTask>) -> Self {
        Self::Reconcile { reconcile: Reconcile { tasks } }
    }

    /// Acknowledges a status. Returns none if the status needs no acknowledgement (it is from the master itself).
    pub fn acknowledge(status: &TaskStatus) -> Option<Self> {
        let (agent_id, uuid) = (status.agent_id.clone()?, status.uuid.clone()?);
        Some(Self::Acknowledge { acknowledge: Acknowledge { agent_id, task_id: status.task_id.clone(), uuid } })
    }

    /// The call's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Subscribe { .. } => "SUBSCRIBE",
            Self::Teardown => "TEARDOWN",
            Self::Accept { .. } => "ACCEPT",
            Self::Decline { .. } => "DECLINE",
            Self::Revive { .. } => "REVIVE",
            Self::Suppress { .. } => "SUPPRESS",
            Self::Kill { .. } => "KILL",
            Self::Shutdown { .. } => "SHUTDOWN",
            Self::Acknowledge { .. } => "ACKNOWLEDGE",
            Self::Reconcile { .. } => "RECONCILE",
            Self::Message { .. } => "MESSAGE",
            Self::UpdateFramework { .. } => "UPDATE_FRAMEWORK",
            Self::Unknown => "UNKNOWN",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{TaskInfo, TaskState};

    fn wire(call: Call) -> serde_json::Value {
        serde_json::to_value(FrameworkCall { framework_id: Some("f".into()), call }).unwrap()
    }

    #[test]
    fn calls_look_as_the_master_reads_them() {
        assert_eq!(wire(Call::Teardown), json!({"framework_id": {"value": "f"}, "type": "TEARDOWN"}));
        assert_eq!(
            wire(Call::suppress(vec!["a".into()])),
            json!({"framework_id": {"value": "f"}, "type": "SUPPRESS", "suppress": {"roles": ["a"]}})
        );
        let task = TaskInfo { name: "n".into(), task_id: "t".into(), agent_id: "a".into(), ..TaskInfo::default() };
        assert_eq!(
            wire(Call::accept(vec!["o".into()], vec![Operation::launch(vec![task])], Filters::refuse(0.0))),
            json!({"framework_id": {"value": "f"}, "type": "ACCEPT", "accept": {
                "offer_ids": [{"value": "o"}],
                "operations": [{"type": "LAUNCH", "launch": {"task_infos": [
                    {"name": "n", "task_id": {"value": "t"}, "agent_id": {"value": "a"}}]}}],
                "filters": {"refuse_seconds": 0.0}}})
        );
    }

    #[test]
    fn a_call_is_read_back_as_it_was_written() {
        let call = FrameworkCall { framework_id: None, call: Call::reconcile(vec![]) };
        let text = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<FrameworkCall>(&text).unwrap(), call);
    }

    #[test]
    fn a_status_without_uuid_is_not_acknowledged() {
        let mut status = TaskStatus::new("t", TaskState::Lost);
        assert!(Call::acknowledge(&status).is_none());
        status.agent_id = Some("a".into());
        status.uuid = Some(Bytes(vec![1]));
        assert!(Call::acknowledge(&status).is_some());
    }
}
