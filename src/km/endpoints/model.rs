//! What `km endpoints` keeps in memory of Services, pods, nodes and of the objects it writes: only the fields that
//! decide something, because there is one entry per pod of the cluster.
use std::collections::BTreeMap;
use std::net::IpAddr;

use kmctl_core::protocol::launch::PortMapping;

/// Namespace and name; for nodes the namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key out of its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Labels or a selector.
pub type Labels = BTreeMap<String, String>;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// UID, for the owner reference of slices.
    pub uid: String,
    /// Its labels, which its objects inherit.
    pub labels: Labels,
    /// Which pods it selects; none of them when it is empty, then somebody else writes its endpoints.
    pub selector: Labels,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `type: ExternalName`, which has no endpoints.
    pub external_name: bool,
    /// Pods count as ready from the moment they have an address.
    pub publish_not_ready: bool,
}

impl Service {
    /// Whether its objects are ours to write.
    pub fn is_ours(&self) -> bool {
        !self.selector.is_empty() && !self.external_name
    }

    /// Whether it selects a pod of its own namespace that carries `labels`.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.is_ours() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when the Service has one port without a name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Which port of the pod.
    pub target: TargetPort,
    /// Protocol above `protocol`, handed on.
    pub app_protocol: Option<String>,
}

/// A Service port's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The container port of this number.
    Number(u16),
    /// The container port of this name, which may have another number in every pod.
    Name(String),
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// UID, for the reference in endpoints.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Its node; empty before it is bound.
    pub node: String,
    /// Address of its node, once its own network stands.
    pub node_address: Option<IpAddr>,
    /// Uses the node's network.
    pub host_network: bool,
    /// Its Ready condition.
    pub ready: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// Will not run again.
    pub finished: bool,
    /// `spec.hostname`.
    pub hostname: String,
    /// `spec.subdomain`.
    pub subdomain: String,
    /// Declared ports that have a name.
    pub named_ports: Vec<NamedPort>,
    /// What Mesos granted.
    pub granted: Vec<PortMapping>,
}

impl Pod {
    /// The port of the pod's node that leads to `target`, if there is one.
    pub fn host_port(&self, target: &TargetPort, protocol: &str) -> Option<u16> {
        let container_port = match target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => {
                self.named_ports.iter().find(|port| port.name == *name && port.protocol == protocol)?.number
            }
        };
        if self.host_network {
            return Some(container_port);
        }
        let granted = |mapping: &&PortMapping| mapping.container_port == container_port && mapping.protocol == protocol;
        self.granted.iter().find(granted).map(|mapping| mapping.host_port)
    }
}

/// A declared container port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Port in the pod.
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// A node's place, for topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// An Endpoints or EndpointSlice object as the API server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// UID, a precondition of deletes.
    pub uid: String,
    /// Version, a precondition of writes.
    pub resource_version: String,
    /// Fingerprint of everything in it that we would write.
    pub digest: u64,
    /// Carries our mark.
    pub ours: bool,
}
