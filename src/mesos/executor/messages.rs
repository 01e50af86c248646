//! Messages between an agent and its executor.
use serde::{Deserialize, Serialize};

use crate::types::{
    AgentInfo, Bytes, ContainerId, ExecutorId, ExecutorInfo, FrameworkId, FrameworkInfo, KillPolicy, TaskId, TaskInfo,
    TaskStatus,
};

/// An event of the executor's stream. The only field of each variant has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// The subscription is established.
    Subscribed {
        /// Terms of the subscription.
        subscribed: Box<Subscribed>,
    },
    /// A task to start.
    Launch {
        /// The task.
        launch: Box<Launch>,
    },
    /// A task to stop.
    Kill {
        /// The task, and how to kill it.
        kill: Kill,
    },
    /// The framework has acknowledged a status.
    Acknowledged {
        /// The acknowledged status.
        acknowledged: Acknowledged,
    },
    /// A message from the framework.
    Message {
        /// Opaque bytes, as the framework sent them.
        message: Message,
    },
    /// The agent reports an error.
    Error {
        /// Reason given by the agent.
        error: Error,
    },
    /// Stop all tasks, then exit, within the executor's grace period.
    Shutdown,
    /// Keep-alive.
    Heartbeat,
    /// An event that this crate does not know or does not use.
    #[serde(other)]
    Unknown,
}

/// Terms of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The executor, as its framework described it.
    pub executor_info: ExecutorInfo,
    /// Framework of the executor.
    pub framework_info: FrameworkInfo,
    /// Agent that runs the executor.
    pub agent_info: AgentInfo,
    /// The Mesos container that the executor runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<ContainerId>,
}

/// A task to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The task, as the framework described it.
    pub task: TaskInfo,
}

/// A task to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Task to stop.
    pub task_id: TaskId,
    /// Replaces the task's own kill policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_policy: Option<KillPolicy>,
}

/// A status that the framework has acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Task of the status.
    pub task_id: TaskId,
    /// UUID of the status.
    pub uuid: Bytes,
}

/// A message between framework and executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Content of the message.
    pub data: Bytes,
}

/// An error reported by the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Reason, as text.
    pub message: String,
}

/// A call, with the executor that sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutorCall {
    /// Executor that sends the call.
    pub executor_id: ExecutorId,
    /// Framework of the executor.
    pub framework_id: FrameworkId,
    /// The call itself, with its `type`, in the same JSON object.
    #[serde(flatten)]
    pub call: Call,
}

/// A call. The only field of each variant has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(clippy::large_enum_variant, reason = "calls are few and short-lived; a box would only hide them")]
pub enum Call {
    /// Opens the stream of events.
    Subscribe {
        /// Tasks and states that the agent may not know.
        subscribe: Subscribe,
    },
    /// Reports a task's state.
    Update {
        /// The state.
        update: Update,
    },
    /// Sends a message to the framework; it may be lost.
    Message {
        /// Opaque bytes for the framework.
        message: Message,
    },
    /// Keep-alive.
    Heartbeat,
    /// A call that this crate does not know.
    #[serde(other)]
    Unknown,
}

/// Opens the stream of events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Tasks without any acknowledged status.
    #[serde(default)]
    pub unacknowledged_tasks: Vec<TaskInfo>,
    /// States that are not acknowledged yet, in order.
    #[serde(default)]
    pub unacknowledged_updates: Vec<Update>,
}

/// Reports a task's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The status, with uuid, timestamp and source.
    pub status: TaskStatus,
}
