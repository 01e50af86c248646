//! What an agent tells its executor, and the other way round.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentInfo, Bytes, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy, TaskId, TaskInfo,
    TaskStatus,
};

/// An event of the executor's stream. Each variant's one field has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// The subscription holds.
    Subscribed {
        /// For whom.
        subscribed: Box<Subscribed>,
    },
    /// A task to start.
    Launch {
        /// Which.
        launch: Box<Launch>,
    },
    /// A task to end.
    Kill {
        /// Which.
        kill: Kill,
    },
    /// The framework has taken note of a status.
    Acknowledged {
        /// Which.
        acknowledged: Acknowledged,
    },
    /// The framework talks to the executor.
    Message {
        /// What.
        message: Message,
    },
    /// The agent refuses.
    Error {
        /// Why.
        error: Error,
    },
    /// End all tasks, then the executor, within its grace period.
    Shutdown,
    /// A sign of life.
    Heartbeat,
    /// An event that this program does not know or does not use.
    #[serde(other)]
    Unknown,
}

/// Terms of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The executor, as its framework described it.
    pub executor_info: ExecutorInfo,
    /// The framework.
    pub framework_info: FrameworkInfo,
    /// The agent.
    pub agent_info: AgentInfo,
    /// The Mesos container that the executor runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<ContainerId>,
}

/// A task to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// It.
    pub task: TaskInfo,
}

/// A task to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Which.
    pub task_id: TaskId,
    /// In place of the task's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_policy: Option<KillPolicy>,
}

/// A status that the framework has taken note of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Of which task.
    pub task_id: TaskId,
    /// Which status.
    pub uuid: Bytes,
}

/// Bytes between framework and executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// They.
    pub data: Bytes,
}

/// Why the agent refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// In words.
    pub message: String,
}

/// A call, with the executor that makes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutorCall {
    /// Who.
    pub executor_id: ExecutorId,
    /// Of which framework.
    pub framework_id: FrameworkId,
    /// The call.
    #[serde(flatten)]
    pub call: Call,
}

/// A call. Each variant's one field has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(clippy::large_enum_variant, reason = "calls are few and short-lived; a box would only hide them")]
pub enum Call {
    /// Opens the stream of events.
    Subscribe {
        /// With what the agent may not know.
        subscribe: Subscribe,
    },
    /// A task's state.
    Update {
        /// It.
        update: Update,
    },
    /// Talks to the framework; may get lost.
    Message {
        /// What.
        message: Message,
    },
    /// A sign of life.
    Heartbeat,
    /// A call that this program does not know.
    #[serde(other)]
    Unknown,
}

/// Opens the stream of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Tasks of which no status was acknowledged yet.
    #[serde(default)]
    pub unacknowledged_tasks: Vec<TaskInfo>,
    /// States that were not acknowledged yet, in order.
    #[serde(default)]
    pub unacknowledged_updates: Vec<Update>,
}

/// A task's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// It, with uuid, timestamp and source.
    pub status: TaskStatus,
}
