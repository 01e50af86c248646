//! The talk between `km cni` and `km node` over a unix socket: one line of JSON each way, then the end.
use serde::{Deserialize, Serialize};

use crate::node::launch::PortMapping;

/// Asks for a pod's granted ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortsRequest {
    /// The pod's UID; runtimes before containerd 1.6 do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PortsAnswer {
    /// What Mesos granted.
    Ports(Vec<PortMapping>),
    /// The pod has no task on this node (yet, or any more).
    Unknown,
}

/// More than any request or answer needs.
pub const LINE_LIMIT: u64 = 1 << 20;
