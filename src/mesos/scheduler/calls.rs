//! What a framework asks of the master.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentId, Bytes, ExecutorId, Filters, FrameworkId, FrameworkInfo, KillPolicy, OfferId, Operation, TaskId, TaskStatus,
};

/// A call, with the framework that makes it; the client adds the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameworkCall {
    /// Absent only at the very first subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework_id: Option<FrameworkId>,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
}

/// A call. Each variant's one field has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Call {
    /// Opens the stream of events.
    Subscribe {
        /// As whom.
        subscribe: Subscribe,
    },
    /// Ends the framework and all its tasks.
    Teardown,
    /// Uses offers.
    Accept {
        /// How.
        accept: Accept,
    },
    /// Gives offers back.
    Decline {
        /// Which.
        decline: Decline,
    },
    /// Wants offers again, and forgets all filters.
    Revive {
        /// For which roles.
        revive: Roles,
    },
    /// Wants no offers.
    Suppress {
        /// For which roles.
        suppress: Roles,
    },
    /// Ends a task.
    Kill {
        /// Which.
        kill: Kill,
    },
    /// Ends an executor and its tasks.
    Shutdown {
        /// Which.
        shutdown: Shutdown,
    },
    /// Has taken note of a status.
    Acknowledge {
        /// Which.
        acknowledge: Acknowledge,
    },
    /// Asks for states of tasks.
    Reconcile {
        /// Which; none means all that the master knows.
        reconcile: Reconcile,
    },
    /// Talks to an executor; may get lost.
    Message {
        /// What.
        message: super::Message,
    },
    /// Changes the framework's info.
    UpdateFramework {
        /// To what.
        update_framework: UpdateFramework,
    },
    /// A call that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Opens the stream of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// As whom.
    pub framework_info: FrameworkInfo,
    /// Roles that want no offers for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_roles: Vec<String>,
}

/// Uses offers. All must be of one agent and one role; what is not used goes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accept {
    /// The offers.
    #[serde(default)]
    pub offer_ids: Vec<OfferId>,
    /// What to do with them, in order.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// For what is left over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
}

/// Gives offers back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decline {
    /// The offers.
    #[serde(default)]
    pub offer_ids: Vec<OfferId>,
    /// How long they are not wanted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
}

/// Roles; none means all of the framework's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// They.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

/// Ends a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Which.
    pub task_id: TaskId,
    /// Where; helps a master that does not know the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// In place of the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_policy: Option<KillPolicy>,
}

/// Ends an executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Which.
    pub executor_id: ExecutorId,
    /// Where.
    pub agent_id: AgentId,
}

/// Has taken note of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// As the status names it.
    pub agent_id: AgentId,
    /// As the status names it.
    pub task_id: TaskId,
    /// As the status has it.
    pub uuid: Bytes,
}

/// A task to reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileTask {
    /// Which.
    pub task_id: TaskId,
    /// Where it should be: lets the master answer for agents that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
}

/// Asks for states of tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconcile {
    /// Which; none means all that the master knows.
    #[serde(default)]
    pub tasks: Vec<ReconcileTask>,
}

/// Changes the framework's info.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateFramework {
    /// The new one, all of it.
    pub framework_info: FrameworkInfo,
    /// Roles that want no offers for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_roles: Vec<String>,
}

impl Call {
    /// Launches tasks on offers of one agent and role.
    pub fn accept(offer_ids: Vec<OfferId>, operations: Vec<Operation>, filters: Filters) -> Self {
        Self::Accept { accept: Accept { offer_ids, operations, filters: Some(filters) } }
    }

    /// Gives offers back.
    pub fn decline(offer_ids: Vec<OfferId>, filters: Filters) -> Self {
        Self::Decline { decline: Decline { offer_ids, filters: Some(filters) } }
    }

    /// Wants offers again for these roles, or for all.
    pub fn revive(roles: Vec<String>) -> Self {
        Self::Revive { revive: Roles { roles } }
    }

    /// Wants no offers for these roles, or for all.
    pub fn suppress(roles: Vec<String>) -> Self {
        Self::Suppress { suppress: Roles { roles } }
    }

    /// Ends a task.
    pub fn kill(task_id: TaskId, agent_id: Option<AgentId>) -> Self {
        Self::Kill { kill: Kill { task_id, agent_id, kill_policy: None } }
    }

    /// Ends an executor.
    pub fn shutdown(executor_id: ExecutorId, agent_id: AgentId) -> Self {
        Self::Shutdown { shutdown: Shutdown { executor_id, agent_id } }
    }

    /// Asks for the states of these tasks, or of all.
    pub fn reconcile(tasks: Vec<ReconcileTask>) -> Self {
        Self::Reconcile { reconcile: Reconcile { tasks } }
    }

    /// Acknowledges a status; none for one that wants no acknowledgement (from the master itself).
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
