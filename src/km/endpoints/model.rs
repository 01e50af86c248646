//! What `km endpoints` keeps in memory of Services, pods, nodes and the objects it writes. Only fields that influence
//! decisions are kept, because there is one entry per pod of the cluster.
use std::collections::BTreeMap;
use std::net::IpAddr;

use kmctl_core::protocol::launch::PortMapping;

/// Namespace and name. Nodes have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: Key,
    /// UID, for the owner reference of slices.
    pub uid: String,
    /// Labels, copied to the Service's objects.
    pub labels: Labels,
    /// Selects pods. An empty selector selects none, and another writer manages the Service's endpoints.
    pub selector: Labels,
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `type: ExternalName`, which has no endpoints.
    pub external_name: bool,
    /// Pods count as ready as soon as they have an address.
    pub publish_not_ready: bool,
}

impl Service {
    /// Whether km endpoints writes this Service's objects.
    pub fn is_ours(&self) -> bool {
        !self.selector.is_empty() && !self.external_name
    }

    /// Whether the Service selects a pod of its own namespace with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        self.is_ours() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty when the Service has one port without a name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The pod's port that this port maps to.
    pub target: TargetPort,
    /// Application protocol, copied unchanged.
    pub app_protocol: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// The container port with this number.
    Number(u16),
    /// The container port with this name. Its number may differ from pod to pod.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub key: Key,
    /// UID, for the reference in endpoints.
    pub uid: String,
    pub labels: Labels,
    /// Node name. Empty before the pod is bound.
    pub node: String,
    /// Address of the node, known once the pod's own network is set up.
    pub node_address: Option<IpAddr>,
    /// The pod uses the node's network.
    pub host_network: bool,
    /// The Ready condition.
    pub ready: bool,
    /// The pod is being deleted.
    pub terminating: bool,
    /// The pod will not run again.
    pub finished: bool,
    /// `spec.hostname`.
    pub hostname: String,
    /// `spec.subdomain`.
    pub subdomain: String,
    /// Declared ports that have a name.
    pub named_ports: Vec<NamedPort>,
    /// Host ports that Mesos granted.
    pub granted: Vec<PortMapping>,
}

impl Pod {
    /// The port of the pod's node that reaches `target`, if there is one.
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
    pub name: String,
    /// Port in the pod.
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// A node's topology.
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
    /// Fingerprint of all fields that we would write.
    pub digest: u64,
    /// Carries our managed-by label.
    pub ours: bool,
}
