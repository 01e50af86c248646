//! The talk between `km cni` and `km node` over a unix socket: one line of JSON each way, then the end.
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use kmctl_core::protocol::launch::PortMapping;

/// What the plugin says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Question {
    /// Which ports was the pod granted?
    Ports(PortsRequest),
    /// The same; and from now on this sandbox holds the pod's network.
    Attach(PortsRequest, Sandbox),
    /// The sandbox of this container id goes.
    Detach(String),
}

/// A pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sandbox {
    /// Its container's id. A pod whose sandbox dies gets another one.
    pub container: String,
    /// The pod's address in it.
    pub address: IpAddr,
}

/// Names a pod.
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
    /// It is understood; there is nothing to say.
    Noted,
}

/// More than any request or answer needs.
pub const LINE_LIMIT: u64 = 1 << 20;
