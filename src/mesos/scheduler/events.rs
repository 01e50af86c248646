//! Events from the master for a framework.
use serde::{Deserialize, Serialize};

use crate::types::{AgentId, Bytes, ExecutorId, FrameworkId, MasterInfo, Offer, OfferId, TaskStatus};

/// An event of the subscription's stream. The only field of each variant has the name of the message on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Event {
    /// The subscription is established.
    Subscribed {
        /// Terms of the subscription.
        subscribed: Subscribed,
    },
    /// Resources to accept or decline.
    Offers {
        /// Those of one allocation.
        offers: Offers,
    },
    /// An offer is no longer valid.
    Rescind {
        /// The offer.
        rescind: Rescind,
    },
    /// A task's state.
    Update {
        /// The state.
        update: Update,
    },
    /// A message from an executor.
    Message {
        /// The sending executor, and its opaque bytes.
        message: Message,
    },
    /// An agent or an executor is gone.
    Failure {
        /// The agent or executor.
        failure: Failure,
    },
    /// The master refuses a call or the whole subscription.
    Error {
        /// Reason given by the master.
        error: Error,
    },
    /// Keep-alive.
    Heartbeat,
    /// An event that this crate does not know or does not use.
    #[serde(other)]
    Unknown,
}

/// Terms of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Identifier of the framework; new in the first subscription.
    pub framework_id: FrameworkId,
    /// Longest time between two heartbeats, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_seconds: Option<f64>,
    /// The master that the framework is subscribed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_info: Option<MasterInfo>,
}

/// Resources to accept or decline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offers {
    /// Those of one allocation, from any number of agents.
    #[serde(default)]
    pub offers: Vec<Offer>,
}

/// An offer that is no longer valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescind {
    /// Identifier of the offer.
    pub offer_id: OfferId,
}

/// A task's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The status. If it has a `uuid`, it must be acknowledged, otherwise it is sent again.
    pub status: TaskStatus,
}

/// A message from an executor; may be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Agent of the executor.
    pub agent_id: AgentId,
    /// Executor that sent the message.
    pub executor_id: ExecutorId,
    /// Content of the message.
    pub data: Bytes,
}

/// An agent is gone or, with an executor id, an executor has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The agent that is gone, or the agent of the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The executor that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_id: Option<ExecutorId>,
    /// Wait status of the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
}

/// A refusal by the master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Reason, as text.
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
