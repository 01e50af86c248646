//! The protocol between `km cni` and `km node` over a Unix socket: one line of JSON each way, then the connection is
//! closed.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use kmctl_core::protocol::launch::PortMapping;

/// A request of the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Question {
    /// Query the pod's granted ports.
    Ports(PortsRequest),
    /// The same, and record that this sandbox now holds the pod's network.
    Attach(PortsRequest, Sandbox),
    /// The sandbox of this container id is removed.
    Detach(String),
}

/// A pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sandbox {
    /// The container's id. A pod whose sandbox dies gets another one.
    pub container: String,
    /// The pod's address in the sandbox.
    pub address: IpAddr,
}

/// Identifies a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortsRequest {
    /// The pod's UID. Runtimes before containerd 1.6 do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    pub namespace: String,
    pub name: String,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PortsAnswer {
    /// The ports that Mesos granted.
    Ports(Vec<PortMapping>),
    /// The pod has no task on this node (yet, or any more).
    Unknown,
    /// The request is recorded; there is nothing to return.
    Noted,
}

/// Limit of a line in bytes; no request or answer needs as much.
pub const LINE_LIMIT: u64 = 1 << 20;
