//! cluster.yaml as types. Every key that is not written has the default that `docs/getting-started.md` shows.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// `kmctl.io/v1alpha1`.
    pub api_version: String,
    /// `Cluster`.
    pub kind: String,
    /// The cluster's name.
    pub metadata: Metadata,
    /// The rest.
    pub spec: ClusterSpec,
}

/// The cluster's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label.
    pub name: String,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// The Mesos cluster.
    pub mesos: MesosSpec,
    /// Settings for every SSH connection.
    #[serde(default)]
    pub ssh: SshSpec,
    /// Control-plane hosts; absent only for commands that need Mesos alone.
    #[serde(default)]
    pub control_plane: ControlPlaneSpec,
    /// Version and Services.
    #[serde(default)]
    pub kubernetes: KubernetesSpec,
    /// Bounds and sizes of nodes.
    #[serde(default)]
    pub nodes: NodesSpec,
    /// Network of the pods.
    #[serde(default)]
    pub network: NetworkSpec,
    /// Path of the bundle, relative to cluster.yaml.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
}

/// `spec.mesos`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MesosSpec {
    /// One address, or a list.
    pub master: Masters,
    /// User that executors run as.
    #[serde(default = "root")]
    pub user: String,
    /// Roles to subscribe with.
    #[serde(default = "default_roles")]
    pub roles: Vec<String>,
    /// Principal; empty without authentication.
    #[serde(default)]
    pub principal: String,
    /// File with the secret, relative to cluster.yaml.
    #[serde(default)]
    pub secret_file: String,
    /// CA of an https master, relative to cluster.yaml.
    #[serde(default)]
    pub ca_file: String,
    /// Default `kubernetes-<name>`.
    #[serde(default)]
    pub framework_name: String,
}

/// `spec.mesos.master`: a string or a list of strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Masters(pub Vec<String>);

impl Serialize for Masters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Masters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> serde::de::Visitor<'de> for OneOrMany {
            type Value = Masters;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the address of a Mesos master, or a list of addresses")
            }
            fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Masters, E> {
                Ok(Masters(vec![one.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Masters, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Masters(all))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// `spec.ssh`, and per host `ssh`, where a missing key means the cluster's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SshSpec {
    /// Login name.
    pub user: String,
    /// TCP port.
    pub port: u16,
    /// Private key; empty means the agent and the usual files.
    pub identity_file: String,
    /// known_hosts file.
    pub known_hosts: String,
    /// Jump hosts, `user@host:port`.
    pub jump: Vec<String>,
    /// How to become root.
    pub sudo: Sudo,
    /// Limit for one connection attempt, e.g. `10s`.
    pub connect_timeout: String,
}

impl Default for SshSpec {
    fn default() -> Self {
        SshSpec {
            user: root(),
            port: 22,
            identity_file: String::new(),
            known_hosts: "~/.ssh/known_hosts".to_owned(),
            jump: Vec::new(),
            sudo: Sudo::None,
            connect_timeout: "10s".to_owned(),
        }
    }
}

/// How a login becomes root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sudo {
    /// The login is root.
    None,
    /// `sudo -n`.
    Nopasswd,
    /// `sudo -S`, asking the operator once.
    Password,
}

/// `spec.controlPlane`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlaneSpec {
    /// `address:port` that clients and nodes use.
    pub endpoint: String,
    /// The hosts.
    pub hosts: Vec<HostSpec>,
}

/// One control-plane host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// Address that SSH and the other hosts use.
    pub address: String,
    /// Name in messages; default the address.
    #[serde(default)]
    pub name: String,
    /// Pinned key, `SHA256:…`.
    #[serde(default)]
    pub host_key: String,
    /// What differs from `spec.ssh`.
    #[serde(default)]
    pub ssh: Option<HostSsh>,
}

/// Overrides of `spec.ssh` for one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostSsh {
    /// See [`SshSpec::user`].
    pub user: Option<String>,
    /// See [`SshSpec::port`].
    pub port: Option<u16>,
    /// See [`SshSpec::identity_file`].
    pub identity_file: Option<String>,
    /// See [`SshSpec::known_hosts`].
    pub known_hosts: Option<String>,
    /// See [`SshSpec::jump`].
    pub jump: Option<Vec<String>>,
    /// See [`SshSpec::sudo`].
    pub sudo: Option<Sudo>,
    /// See [`SshSpec::connect_timeout`].
    pub connect_timeout: Option<String>,
}

/// `spec.kubernetes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesSpec {
    /// Version, with its `v`.
    pub version: String,
    /// Addresses of Services.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// DNS domain.
    pub cluster_domain: String,
    /// Ports of NodePort Services, away from Mesos' ports.
    pub node_port_range: String,
}

impl Default for KubernetesSpec {
    fn default() -> Self {
        KubernetesSpec {
            version: "v1.37.2".to_owned(),
            service_cidr: "10.96.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            node_port_range: "28000-29999".to_owned(),
        }
    }
}

/// `spec.nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodesSpec {
    /// Nodes that are kept even when idle.
    pub min: u32,
    /// Most nodes; none means every agent that fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long a node without pods is kept, e.g. `10m`.
    pub idle_timeout: String,
    /// What a node agent itself takes.
    pub overhead: Quantities,
    /// For containers that request nothing.
    pub pod_defaults: Quantities,
    /// Which agents may become nodes.
    pub constraints: Vec<Constraint>,
    /// Folder on agents; default `/var/lib/kmctl/<cluster>`.
    pub root_dir: String,
}

impl Default for NodesSpec {
    fn default() -> Self {
        NodesSpec {
            min: 0,
            max: None,
            idle_timeout: "10m".to_owned(),
            overhead: Quantities { cpu: "250m".to_owned(), memory: "512Mi".to_owned() },
            pod_defaults: Quantities { cpu: "250m".to_owned(), memory: "64Mi".to_owned() },
            constraints: Vec::new(),
            root_dir: String::new(),
        }
    }
}

/// Processor and memory as Kubernetes quantities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quantities {
    /// E.g. `250m`.
    pub cpu: String,
    /// E.g. `512Mi`.
    pub memory: String,
}

/// An agent attribute and the values it may have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Constraint {
    /// Attribute name.
    pub attribute: String,
    /// Accepted values.
    #[serde(rename = "in")]
    pub values: Vec<String>,
}

/// `spec.network`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkSpec {
    /// How pods are reached.
    pub mode: NetworkMode,
    /// Subnet of pod addresses on every node.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// How kube-proxy writes its rules, where the agent can.
    pub proxy_mode: ProxyMode,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        NetworkSpec {
            mode: NetworkMode::HostPorts,
            pod_cidr: "172.30.0.0/16".to_owned(),
            proxy_mode: ProxyMode::default(),
        }
    }
}

/// How pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkMode {
    /// Through host ports that Mesos granted.
    HostPorts,
    /// Through the user's CNI plugin.
    Cni,
}

/// How kube-proxy writes its rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProxyMode {
    /// With `iptables`.
    #[default]
    Iptables,
    /// With `nft`.
    Nftables,
}

fn root() -> String {
    "root".to_owned()
}

fn default_roles() -> Vec<String> {
    vec!["kubernetes".to_owned()]
}
