//! What the master tells a framework.
use serde::{Deserialize, Serialize};

use crate::types::{AgentId, Bytes, ExecutorId, FrameworkId, MasterInfo, Offer, OfferId, TaskStatus};

/// An event of the subscription's stream. Each variant's one field has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// The subscription holds.
    Subscribed {
        /// Its terms.
        subscribed: Subscribed,
    },
    /// Resources to take or to decline.
    Offers {
        /// They.
        offers: Offers,
    },
    /// An offer is gone.
    Rescind {
        /// Which.
        rescind: Rescind,
    },
    /// A task's state.
    Update {
        /// It.
        update: Update,
    },
    /// An executor's message.
    Message {
        /// It.
        message: Message,
    },
    /// An agent or an executor is gone.
    Failure {
        /// Which.
        failure: Failure,
    },
    /// The master refuses a call or the whole subscription.
    Error {
        /// Why.
        error: Error,
    },
    /// A sign of life.
    Heartbeat,
    /// An event that this program does not know or does not use.
    #[serde(other)]
    Unknown,
}

/// Terms of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The framework's id: new at the first subscription.
    pub framework_id: FrameworkId,
    /// A heartbeat comes at least so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_seconds: Option<f64>,
    /// The master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_info: Option<MasterInfo>,
}

/// Offers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offers {
    /// They.
    #[serde(default)]
    pub offers: Vec<Offer>,
}

/// An offer that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescind {
    /// Which.
    pub offer_id: OfferId,
}

/// A task's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// It. With a `uuid` it must be acknowledged, or it comes again.
    pub status: TaskStatus,
}

/// An executor's message; may get lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// From this agent.
    pub agent_id: AgentId,
    /// From this executor.
    pub executor_id: ExecutorId,
    /// Its bytes.
    pub data: Bytes,
}

/// An agent is gone, or, with an executor id, an executor has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_id: Option<ExecutorId>,
    /// Its wait status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
}

/// Why the master refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// In words.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TaskState;

    #[test]
    fn events_of_a_stream_are_read() {
        let cases = [
            (r#"{"type":"HEARTBEAT"}"#, "Heartbeat"),
            (
                r#"{"type":"SUBSCRIBED","subscribed":{"framework_id":{"value":"f"},"heartbeat_interval_seconds":15.0}}"#,
                "Subscribed",
            ),
            (r#"{"type":"RESCIND","rescind":{"offer_id":{"value":"o"}}}"#, "Rescind"),
            (r#"{"type":"ERROR","error":{"message":"no"}}"#, "Error"),
            (r#"{"type":"INVERSE_OFFERS","inverse_offers":{"inverse_offers":[]}}"#, "Unknown"),
            (r#"{"type":"SOMETHING_NEW"}"#, "Unknown"),
        ];
        for (text, expected) in cases {
            let event: Event = serde_json::from_str(text).unwrap();
            assert!(format!("{event:?}").starts_with(expected), "{text} became {event:?}");
        }
    }

    #[test]
    fn an_update_keeps_its_uuid() {
        let text = r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"state":"TASK_FINISHED",
            "uuid":"AAECAwQFBgcICQoLDA0ODw==","source":"SOURCE_EXECUTOR","timestamp":1.5,"container_status":
            {"container_id":{"value":"c"},"network_infos":[{"ip_addresses":[{"protocol":"IPv4","ip_address":"1.2.3.4"}]}]}}}}"#;
        let Event::Update { update } = serde_json::from_str(text).unwrap() else { panic!("not an update") };
        assert_eq!(update.status.state, TaskState::Finished);
        assert_eq!(update.status.uuid.unwrap().0, (0..16).collect::<Vec<u8>>());
    }
}
