//! `DepsSpec`: how the injected objects of a node agent are built. Like the configuration next to it, it is static
//! data, but about this project's objects, for which upstream's `KubeletConfiguration` has no fields. It contains no
//! secret: the bootstrap token is passed only to the services that need it.
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cluster::{NetworkMode, ProxyMode};
use crate::k8s::Version;
use crate::protocol::launch::{Artifact, Grant, NodeLaunch};

/// The parts of a launch that only the agent's machine and Mesos know.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The executor's id, never reused.
    pub executor_id: String,
    pub node_task: String,
    /// The Mesos container of the executor; empty when unknown.
    pub container_id: String,
    /// The executor's sandbox. It only holds logs, because Mesos serves it to anyone.
    pub sandbox: PathBuf,
    /// The resolver file for pods.
    pub resolv_conf: PathBuf,
    /// Whether the process may lower `oom_score_adj` (CAP_SYS_RESOURCE).
    pub may_lower_oom_score: bool,
    /// Whether the machine accounts memory with cgroup v1, which a kubelet refuses by default.
    pub cgroup_v1: bool,
}

impl Place {
    /// An example place, for `kmctl render` and for tests.
    pub fn example() -> Self {
        Place {
            executor_id: "agent-1.0123abcd".to_owned(),
            node_task: "node.agent-1.0123abcd".to_owned(),
            container_id: "00000000-0000-0000-0000-000000000000".to_owned(),
            sandbox: PathBuf::from("/var/lib/mesos/sandbox"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            may_lower_oom_score: true,
            cgroup_v1: false,
        }
    }
}

/// The description of a node's injected objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DepsSpec {
    /// `kmctl.io/v1alpha1`.
    pub api_version: String,
    /// `NodeDependencies`.
    pub kind: String,
    /// Identity of the node.
    pub node: NodeIdentity,
    /// Access to the API.
    pub api: ApiSpec,
    /// Directories of the node.
    pub folders: Folders,
    /// Cgroups to use.
    pub cgroups: CgroupsSpec,
    pub network: PodNetwork,
    pub runtime: RuntimeSpec,
    /// Binaries and images.
    pub artifacts: Vec<Artifact>,
    /// Set for a run without an API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<OnceSpec>,
}

/// Settings of a run without an API server (`kmctl runonce`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnceSpec {
    /// Whether to keep the logs on the machine after the run.
    pub keep: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeIdentity {
    pub cluster: String,
    /// Name of the Node object.
    pub name: String,
    /// Address of the node, its InternalIP.
    pub ip: IpAddr,
    pub executor_id: String,
    pub node_task: String,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes_version: String,
}

/// Access to the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiSpec {
    /// `https://address:port`, tried in order.
    pub servers: Vec<String>,
    /// CA of the API servers, PEM.
    pub ca_certificate: String,
}

/// Directories of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Folders {
    /// Kept between runs: `store/`, `ledger/`, `runs/`.
    pub root: PathBuf,
    /// Removed after the run.
    pub run: PathBuf,
    /// A short path of a directory in `run`, because a socket path has at most 107 bytes.
    pub short: PathBuf,
    /// Logs of the child processes.
    pub sandbox: PathBuf,
}

/// Cgroups to use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CgroupsSpec {
    /// The Mesos container whose cgroup contains the pods' cgroups, if Mesos gave it one.
    pub container_id: String,
    /// The cgroup to create if Mesos gave it none.
    pub own: String,
    /// What the executor itself uses.
    pub overhead: Grant,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodNetwork {
    /// How pods are reached.
    pub mode: NetworkMode,
    /// Name of the CNI network; used in its firewall rules.
    pub name: String,
    /// Name of the bridge without ports that holds the gateway's address.
    pub bridge: String,
    /// Subnet of pod addresses.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// How kube-proxy should write its rules, if this machine supports it.
    #[serde(default)]
    pub proxy_mode: ProxyMode,
    /// Network of Service addresses.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// The host's resolver file, for names outside the cluster.
    pub resolv_conf: PathBuf,
}

/// The container runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeSpec {
    /// Image of the container that holds a pod's namespaces; contained in the bundle.
    pub sandbox_image: String,
    /// Do not try to lower `oom_score_adj`: without CAP_SYS_RESOURCE the attempt makes runc fail.
    pub restrict_oom_score_adj: bool,
}

impl DepsSpec {
    /// The description of the node that a launch and its place define.
    pub fn for_launch(launch: &NodeLaunch, place: &Place) -> Self {
        let id = short_id(&place.executor_id);
        DepsSpec {
            api_version: "kmctl.io/v1alpha1".to_owned(),
            kind: "NodeDependencies".to_owned(),
            node: NodeIdentity {
                cluster: launch.cluster.clone(),
                name: launch.node_name.clone(),
                ip: launch.node_ip,
                executor_id: place.executor_id.clone(),
                node_task: place.node_task.clone(),
                kubernetes_version: launch.kubernetes_version.clone(),
            },
            api: ApiSpec { servers: launch.api_servers.clone(), ca_certificate: launch.ca_certificate.clone() },
            folders: Folders {
                root: launch.root_dir.clone(),
                run: launch.root_dir.join("runs").join(&place.executor_id),
                short: short(&place.executor_id),
                sandbox: place.sandbox.clone(),
            },
            cgroups: CgroupsSpec {
                container_id: place.container_id.clone(),
                own: format!("/kmctl-{}-{id}", launch.cluster),
                overhead: launch.overhead,
            },
            network: PodNetwork {
                mode: launch.network_mode,
                name: format!("kmctl-{}", launch.cluster),
                bridge: bridge_name(&launch.cluster),
                pod_cidr: launch.pod_cidr.clone(),
                proxy_mode: launch.proxy_mode,
                service_cidr: launch.service_cidr.clone(),
                cluster_domain: launch.cluster_domain.clone(),
                resolv_conf: place.resolv_conf.clone(),
            },
            runtime: RuntimeSpec {
                sandbox_image: sandbox_image(launch),
                restrict_oom_score_adj: !place.may_lower_oom_score,
            },
            artifacts: launch.artifacts.clone(),
            once: None,
        }
    }

    /// The description of a node without an API server. `launch` is the result of
    /// [`RunLaunch::node`](crate::protocol::launch::RunLaunch::node).
    pub fn for_run(launch: &NodeLaunch, place: &Place, keep: bool) -> Self {
        let mut own = Self::for_launch(launch, place);
        own.once = Some(OnceSpec { keep });
        own
    }

    /// Directory of the children's logs: the sandbox, except for a run without an API server, whose kubelet may log
    /// what a pod was given.
    pub fn logs(&self) -> PathBuf {
        match self.once {
            Some(_) => self.folders.run.join("km-logs"),
            None => self.folders.sandbox.clone(),
        }
    }

    /// The description as YAML.
    pub fn to_document(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_default()
    }
}

/// The bundle's image of the container that holds a pod's namespaces, so that it is never pulled. If the bundle has
/// none, the image that is paired with the Kubernetes version.
fn sandbox_image(launch: &NodeLaunch) -> String {
    let bundled = launch.artifacts.iter().find(|artifact| artifact.path == "images/pause.tar");
    let bundled = bundled.and_then(|artifact| artifact.images.first());
    let usual = || Some(launch.kubernetes_version.parse::<Version>().ok()?.row().ok()?.pairs.pause);
    let usual = || usual().map(|tag| format!("registry.k8s.io/pause:{tag}"));
    bundled.cloned().or_else(usual).unwrap_or_default()
}

impl Folders {
    /// Directory of verified files, named by sha256.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Directory of the ledgers of all runs.
    pub fn ledgers(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// Directory of this run's binaries.
    pub fn programs(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// Path of a configuration file of this run.
    pub fn settings(&self, name: &str) -> PathBuf {
        self.run.join("etc").join(name)
    }

    /// Directory of what runs keep on request.
    pub fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    /// Directory of the pods' logs, in the kubelet's layout.
    pub fn pod_logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// Socket of the container runtime.
    pub fn runtime_socket(&self) -> PathBuf {
        self.short.join(RUNTIME_SOCKET)
    }

    /// Directories outside the run that hold data of the run, each with the directory of the run that is mounted there.
    /// The paths of all but the first are compiled into stock binaries.
    pub fn mounts(&self) -> Vec<(PathBuf, PathBuf)> {
        vec![
            (self.short.clone(), self.run.join("short")),
            (PathBuf::from(KUBELET_ROOT), self.run.join("kubelet")),
            (PathBuf::from("/run/containerd"), self.run.join("shims")),
            (PathBuf::from("/var/log/pods"), self.run.join("logs")),
            (PathBuf::from("/var/log/containers"), self.run.join("log-links")),
            (PathBuf::from("/var/lib/cni"), self.run.join("cni-cache")),
        ]
    }

    /// Kubeconfig with the client certificate that the kubelet renews.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.settings("kubelet.kubeconfig")
    }
}

/// The kubelet's root directory; the path of its device plugins is compiled in.
pub const KUBELET_ROOT: &str = "/var/lib/kubelet";

/// Path of a configuration file of the run, for use before [`Folders`] exist.
pub fn settings_of(launch: &NodeLaunch, place: &Place, name: &str) -> PathBuf {
    launch.root_dir.join("runs").join(&place.executor_id).join("etc").join(name)
}

/// The short path of the run's directory.
fn short(executor_id: &str) -> PathBuf {
    PathBuf::from(format!("/run/km-{}", short_id(executor_id)))
}

const RUNTIME_SOCKET: &str = "containerd.sock";

/// Socket of the container runtime, for use before [`Folders`] exist.
pub fn runtime_socket(executor_id: &str) -> PathBuf {
    short(executor_id).join(RUNTIME_SOCKET)
}

/// The eight digits at the end of an executor's id; a hash if the id has another format.
pub fn short_id(executor_id: &str) -> String {
    match executor_id.rsplit_once('.') {
        Some((_, id)) if id.len() == 8 && id.chars().all(|digit| digit.is_ascii_hexdigit()) => id.to_owned(),
        _ => hash8(executor_id),
    }
}

/// Name of the cluster's bridge: a hash, because a bridge's name has at most 15 bytes and a cluster's may have more.
pub fn bridge_name(cluster: &str) -> String {
    format!("km{}", hash8(cluster))
}

fn hash8(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..4])
}

/// `path` below `root`, ignoring leading slashes.
pub fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::launch;

    #[test]
    fn a_description_is_read_back_and_holds_no_token() {
        let mut launch = launch::example();
        launch.bootstrap_token = "abcdef.0123456789abcdef".to_owned();
        let spec = DepsSpec::for_launch(&launch, &Place::example());
        let document = spec.to_document();
        assert_eq!(serde_yaml::from_str::<DepsSpec>(&document).unwrap(), spec);
        assert!(!document.contains("0123456789abcdef"), "{document}");
    }

    #[test]
    fn the_longest_names_still_make_short_socket_paths_and_link_names() {
        let mut launch = launch::example();
        launch.cluster = "c".repeat(63);
        let place = Place { executor_id: format!("{}.0123abcd", "n".repeat(63)), ..Place::example() };
        let spec = DepsSpec::for_launch(&launch, &place);
        assert!(spec.folders.runtime_socket().as_os_str().len() < 60);
        assert!(spec.network.bridge.len() <= 15);
    }

    #[test]
    fn clusters_on_one_machine_get_different_bridges() {
        assert_ne!(bridge_name("demo"), bridge_name("demo2"));
    }
}
