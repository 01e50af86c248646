//! The types of cluster.yaml. Every omitted key has the default that `docs/getting-started.md` shows.
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
    pub metadata: Metadata,
    /// The desired state.
    pub spec: ClusterSpec,
}

/// `metadata`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A DNS label.
    pub name: String,
}

/// `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// How to reach the Mesos cluster.
    pub mesos: MesosSpec,
    /// Defaults for every SSH connection.
    #[serde(default)]
    pub ssh: SshSpec,
    /// Control-plane hosts; absent only for commands that need Mesos alone.
    #[serde(default)]
    pub control_plane: ControlPlaneSpec,
    /// Version, Services and DNS domain.
    #[serde(default)]
    pub kubernetes: KubernetesSpec,
    /// Bounds and sizes of nodes.
    #[serde(default)]
    pub nodes: NodesSpec,
    /// The pods' network.
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
    /// Address of the master, or a list of addresses.
    pub master: Masters,
    /// User that executors run as.
    #[serde(default = "root")]
    pub user: String,
    /// Roles to subscribe with.
    #[serde(default = "default_roles")]
    pub roles: Vec<String>,
    /// Principal to authenticate with; empty without authentication.
    #[serde(default)]
    pub principal: String,
    /// File with the principal's secret, relative to cluster.yaml.
    #[serde(default)]
    pub secret_file: String,
    /// CA of an https master, relative to cluster.yaml.
    #[serde(default)]
    pub ca_file: String,
    /// Defaults to `kubernetes-<name>`.
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

/// `spec.ssh`; a host's own `ssh` overrides it key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SshSpec {
    /// Login name.
    pub user: String,
    /// TCP port.
    pub port: u16,
    /// Private key; empty means the SSH agent and the usual files.
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

/// How to become root after the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sudo {
    /// The login is root.
    None,
    /// `sudo -n`.
    Nopasswd,
    /// `sudo -S`, prompting the operator once.
    Password,
}

/// `spec.controlPlane`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlaneSpec {
    /// `address:port` that clients and nodes use.
    pub endpoint: String,
    /// The control-plane hosts.
    pub hosts: Vec<HostSpec>,
}

/// One control-plane host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// Address for SSH and for the other hosts.
    pub address: String,
    /// Name in messages; defaults to the address.
    #[serde(default)]
    pub name: String,
    /// Pinned host key, `SHA256:…`.
    #[serde(default)]
    pub host_key: String,
    /// Overrides of `spec.ssh`.
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
    /// Network of Service addresses.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Ports of NodePort Services; must not overlap the ports that Mesos offers.
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
    /// Number of nodes that are kept even when idle.
    pub min: u32,
    /// Maximum number of nodes; `None` means every eligible agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long a node without pods is kept, e.g. `10m`.
    pub idle_timeout: String,
    /// Resources for the node agent itself.
    pub overhead: Quantities,
    /// Resources of containers that request nothing.
    pub pod_defaults: Quantities,
    /// Which agents may become nodes.
    pub constraints: Vec<Constraint>,
    /// Directory on agents; defaults to `/var/lib/kmctl/<cluster>`.
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

/// An agent attribute and its accepted values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Constraint {
    pub attribute: String,
    /// Values of which the attribute must have one.
    #[serde(rename = "in")]
    pub values: Vec<String>,
}

/// `spec.network`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkSpec {
    pub mode: NetworkMode,
    /// Subnet of pod addresses; the same on every node.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// How kube-proxy writes its rules, if the agent supports it.
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
