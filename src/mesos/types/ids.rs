//! Identifiers (`{"value": "…"}` on the wire) and binary fields (base64 on the wire).
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name {
            /// The identifier itself.
            pub value: String,
        }

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.value
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.value)
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self { value: value.to_owned() }
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self { value }
            }
        }
    )*};
}

id! {
    /// A framework, assigned by the master at the first subscription and valid for the framework's whole life.
    FrameworkId;
    /// An agent; survives a restart of the agent as long as its work directory does.
    AgentId;
    /// An executor, chosen by the framework.
    ExecutorId;
    /// A task, chosen by the framework.
    TaskId;
    /// An offer, valid until it is accepted, declined or rescinded.
    OfferId;
    /// An operation on resources, chosen by the framework.
    OperationId;
    /// A resource provider of an agent.
    ResourceProviderId;
}

/// A container; nested containers name their parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The identifier itself.
    pub value: String,
    /// The container that this one runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<ContainerId>>,
}

/// A field of type `bytes`, base64 in JSON.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// A new random UUID as its 16 bytes, as `TaskStatus.uuid` requires.
    pub fn random_uuid() -> Self {
        Self(uuid::Uuid::new_v4().as_bytes().to_vec())
    }
}

impl fmt::Debug for Bytes {
    // Task data contains one-time tokens, so debug output shows only the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(value: Vec<u8>) -> Self {
        Self(value)
    }
}

impl From<&[u8]> for Bytes {
    fn from(value: &[u8]) -> Self {
        Self(value.to_vec())
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_objects_on_the_wire() {
        assert_eq!(serde_json::to_string(&AgentId::from("a1")).unwrap(), r#"{"value":"a1"}"#);
    }

    #[test]
    fn bytes_are_base64_on_the_wire() {
        let bytes = Bytes(vec![0xfb, 0xff, 0x00, 0x3e]);
        assert_eq!(serde_json::to_string(&bytes).unwrap(), r#""+/8APg==""#);
        assert_eq!(serde_json::from_str::<Bytes>(r#""+/8APg==""#).unwrap(), bytes);
        assert!(serde_json::from_str::<Bytes>(r#""not base64!""#).is_err());
    }

    #[test]
    fn debug_output_of_bytes_shows_no_content() {
        assert_eq!(format!("{:?}", Bytes(b"token".to_vec())), "<5 bytes>");
    }
}
