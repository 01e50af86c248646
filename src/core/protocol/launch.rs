//! What `km scheduler` passes to `km node` in `TaskInfo.data`. Mesos never shows that field in its state, and the agent
//! checkpoints it where its file server does not reach. Nevertheless the only secret in it is a one-time token.
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::{NetworkMode, ProxyMode};

/// Version of this format; a node agent refuses other versions.
pub const FORMAT: u32 = 1;

/// Data of a task, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum TaskData {
    /// The long-lived node task: configuration and the bootstrap token.
    Node(Box<NodeLaunch>),
    /// A pod.
    Pod(PodLaunch),
    /// Removes what a dead executor left behind on its agent, then finishes.
    Sweep(SweepLaunch),
    /// The node of a run without an API server (`kmctl runonce`); runs until it is killed.
    Run(Box<RunLaunch>),
}

/// Everything a node agent needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeLaunch {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the Node object.
    pub node_name: String,
    /// The agent's address, the node's InternalIP.
    pub node_ip: IpAddr,
    /// `https://address:port` of every API server.
    pub api_servers: Vec<String>,
    /// The cluster CA, PEM.
    pub ca_certificate: String,
    /// One-time bootstrap token, `id.secret`.
    pub bootstrap_token: String,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes_version: String,
    /// Directory for node data that must not be in the sandbox.
    pub root_dir: PathBuf,
    /// How pods are reached.
    pub network_mode: NetworkMode,
    /// Subnet of pod addresses on the node.
    pub pod_cidr: String,
    /// How kube-proxy should write its rules, if this machine supports it.
    #[serde(default)]
    pub proxy_mode: ProxyMode,
    /// Network of Service addresses.
    pub service_cidr: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Binaries and images to fetch.
    pub artifacts: Vec<Artifact>,
    /// What the executor itself was granted; not available to pods.
    pub overhead: Grant,
}

/// Everything a node agent needs to know for a run without an API server, except the pods: those are sent as messages,
/// because Mesos stores what a task carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunLaunch {
    /// [`FORMAT`].
    pub format: u32,
    /// Names the run's bridge, network and cgroup: unique, a DNS label of at most 63 characters.
    pub run: String,
    /// Name of the node, which pods see as `spec.nodeName`.
    pub node_name: String,
    /// Address of the machine; `None` if the machine must determine it itself.
    #[serde(default)]
    pub node_ip: Option<IpAddr>,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes_version: String,
    /// Directory for run data that must not be in the sandbox.
    pub root_dir: PathBuf,
    /// Network from which each run on a machine takes a part that is not in use there.
    pub pod_cidr: String,
    /// DNS domain configured in pods.
    pub cluster_domain: String,
    /// Binaries and images to fetch.
    pub artifacts: Vec<Artifact>,
    /// What the executor itself was granted; not available to pods.
    pub overhead: Grant,
    /// Whether to keep the logs on the machine after the run.
    #[serde(default)]
    pub keep: bool,
}

impl RunLaunch {
    /// The launch of a node without an API server.
    pub fn node(&self, node_ip: IpAddr, pod_cidr: String) -> NodeLaunch {
        NodeLaunch {
            format: self.format,
            cluster: self.run.clone(),
            node_name: self.node_name.clone(),
            node_ip,
            api_servers: Vec::new(),
            ca_certificate: String::new(),
            bootstrap_token: String::new(),
            kubernetes_version: self.kubernetes_version.clone(),
            root_dir: self.root_dir.clone(),
            network_mode: NetworkMode::HostPorts,
            pod_cidr,
            proxy_mode: ProxyMode::Iptables,
            service_cidr: String::new(),
            cluster_domain: self.cluster_domain.clone(),
            artifacts: self.artifacts.clone(),
            overhead: self.overhead,
        }
    }
}

/// A file that the node agent fetches and verifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// Path in the bundle: `bin/kubelet`, `cni/ptp`, `images/pause.tar`.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// URLs to fetch it from, tried in order.
    pub urls: Vec<String>,
    /// Names of the images in an image archive; empty for binaries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// Resources, in Mesos' units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Processors, three decimals.
    pub cpus: f64,
    /// Megabytes of 2^20 bytes.
    pub mem: f64,
}

/// A pod's task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodLaunch {
    /// [`FORMAT`].
    pub format: u32,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Host ports that were granted to it.
    pub ports: Vec<PortMapping>,
}

/// One container port and the host port that Mesos granted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node.
    pub host_port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
}

/// What a sweep removes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SweepLaunch {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Directory that contains the node's ledger.
    pub root_dir: PathBuf,
    /// Whether to remove the store and the root directory itself, too.
    pub purge: bool,
}

/// A launch with example values, for `kmctl render` and for tests. Every value that a real launch gets from the API or
/// from Mesos is recognisable as an example.
pub fn example() -> NodeLaunch {
    NodeLaunch {
        format: FORMAT,
        cluster: "demo".to_owned(),
        node_name: "agent-1".to_owned(),
        node_ip: IpAddr::from([192, 0, 2, 21]),
        api_servers: vec!["https://192.0.2.11:6443".to_owned()],
        ca_certificate: "(the cluster's CA)\n".to_owned(),
        bootstrap_token: String::new(),
        kubernetes_version: "v1.37.2".to_owned(),
        root_dir: PathBuf::from("/var/lib/kmctl/demo"),
        network_mode: NetworkMode::HostPorts,
        pod_cidr: "172.30.0.0/16".to_owned(),
        proxy_mode: ProxyMode::Iptables,
        service_cidr: "10.96.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        artifacts: Vec::new(),
        overhead: Grant { cpus: 0.25, mem: 512.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_before_there_was_a_choice_of_proxy_modes_is_read() {
        let mut launch = serde_json::to_value(example()).unwrap();
        assert_eq!(launch.as_object_mut().unwrap().remove("proxyMode").unwrap(), "iptables");
        assert_eq!(serde_json::from_value::<NodeLaunch>(launch).unwrap(), example());
    }
}
