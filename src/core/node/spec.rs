//! `DepsSpec`: how the injected objects of a node agent are built. Static data like the configuration beside it, but
//! about this project's objects, for which upstream's `KubeletConfiguration` has no fields. Holds no secret: the
//! bootstrap token goes to the services that need it.
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cluster::{NetworkMode, ProxyMode};
use crate::k8s::Version;
use crate::protocol::launch::{Artifact, Grant, NodeLaunch};

/// What only the agent's machine and Mesos know of a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The executor's id, never reused.
    pub executor_id: String,
    /// The node task's id.
    pub node_task: String,
    /// The Mesos container of the executor; empty when unknown.
    pub container_id: String,
    /// The executor's sandbox: logs only, since Mesos serves it to anyone.
    pub sandbox: PathBuf,
    /// The resolver file that pods get.
    pub resolv_conf: PathBuf,
    /// The process may lower `oom_score_adj` (CAP_SYS_RESOURCE).
    pub may_lower_oom_score: bool,
    /// The machine's memory is accounted by cgroup v1, which a kubelet refuses unless it is told otherwise.
    pub cgroup_v1: bool,
}

impl Place {
    /// An invented place, for `kmctl render` and for tests.
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

/// The whole description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DepsSpec {
    /// `kmctl.io/v1alpha1`.
    pub api_version: String,
    /// `NodeDependencies`.
    pub kind: String,
    /// Who the node is.
    pub node: NodeIdentity,
    /// How the API is reached.
    pub api: ApiSpec,
    /// Where things lie.
    pub folders: Folders,
    /// Which cgroups are used.
    pub cgroups: CgroupsSpec,
    /// The pods' network.
    pub network: PodNetwork,
    /// The container runtime.
    pub runtime: RuntimeSpec,
    /// Programs and images.
    pub artifacts: Vec<Artifact>,
    /// A run without an API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<OnceSpec>,
}

/// What is different in a run without an API server (`kmctl runonce`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnceSpec {
    /// Keeps the logs on the machine when the run is over.
    pub keep: bool,
}

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeIdentity {
    /// The cluster's name.
    pub cluster: String,
    /// Name of the Node object.
    pub name: String,
    /// Its InternalIP.
    pub ip: IpAddr,
    /// The executor's id.
    pub executor_id: String,
    /// The node task's id.
    pub node_task: String,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes_version: String,
}

/// How the API is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiSpec {
    /// `https://address:port`, tried in order.
    pub servers: Vec<String>,
    /// PEM.
    pub ca_certificate: String,
}

/// Where things lie.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Folders {
    /// Kept between runs: `store/`, `ledger/`, `runs/`.
    pub root: PathBuf,
    /// Gone with the run.
    pub run: PathBuf,
    /// A short name of a folder in `run`, since a socket's path has at most 107 bytes.
    pub short: PathBuf,
    /// Logs of the children.
    pub sandbox: PathBuf,
}

/// Which cgroups are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CgroupsSpec {
    /// The Mesos container whose cgroup holds the pods', where Mesos gave it one.
    pub container_id: String,
    /// The cgroup that is made where Mesos gave none.
    pub own: String,
    /// What the executor itself keeps.
    pub overhead: Grant,
}

/// The pods' network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodNetwork {
    /// How pods are reached.
    pub mode: NetworkMode,
    /// Name of the CNI network; stands in its firewall rules.
    pub name: String,
    /// Name of the bridge without ports that holds the gateway's address.
    pub bridge: String,
    /// Subnet of pod addresses.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    /// How kube-proxy shall write its rules, where this machine can.
    #[serde(default)]
    pub proxy_mode: ProxyMode,
    /// Services' addresses.
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
    /// Image of the container that holds a pod's namespaces; the bundle brings it.
    pub sandbox_image: String,
    /// Do not try to lower `oom_score_adj`: without CAP_SYS_RESOURCE runc dies of the attempt.
    pub restrict_oom_score_adj: bool,
}

impl DepsSpec {
    /// The description of the node that a launch and its place make.
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

    /// The description of a node without an API server. `launch` is what
    /// [`RunLaunch::node`](crate::protocol::launch::RunLaunch::node) made.
    pub fn for_run(launch: &NodeLaunch, place: &Place, keep: bool) -> Self {
        let mut own = Self::for_launch(launch, place);
        own.once = Some(OnceSpec { keep });
        own
    }

    /// Where the children's logs go: into the sandbox, but never those of a run, whose kubelet may show what a pod was
    /// given.
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

/// The image that the bundle brings for the container that holds a pod's namespaces, so that nothing is ever pulled for
/// it; of a bundle that brings none, the one that belongs to the version.
fn sandbox_image(launch: &NodeLaunch) -> String {
    let bundled = launch.artifacts.iter().find(|artifact| artifact.path == "images/pause.tar");
    let bundled = bundled.and_then(|artifact| artifact.images.first());
    let usual = || Some(launch.kubernetes_version.parse::<Version>().ok()?.row().ok()?.pairs.pause);
    let usual = || usual().map(|tag| format!("registry.k8s.io/pause:{tag}"));
    bundled.cloned().or_else(usual).unwrap_or_default()
}

impl Folders {
    /// Verified files by sha256.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The ledgers of all runs.
    pub fn ledgers(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// Programs of this run.
    pub fn programs(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// What this run's programs read.
    pub fn settings(&self, name: &str) -> PathBuf {
        self.run.join("etc").join(name)
    }

    /// What a run keeps, where it was asked to.
    pub fn kept(&self) -> PathBuf {
        self.root.join("kept")
    }

    /// The pods' logs, as the kubelet lays them out.
    pub fn pod_logs(&self) -> PathBuf {
        self.run.join("logs")
    }

    /// The container runtime's socket.
    pub fn runtime_socket(&self) -> PathBuf {
        self.short.join(RUNTIME_SOCKET)
    }

    /// Folders outside the run that hold something of it, each with the folder of the run that is mounted there.
    /// All but the first are compiled into stock programs.
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

    /// The file with the client certificate that the kubelet keeps current.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.settings("kubelet.kubeconfig")
    }
}

/// The kubelet's root folder; the path of its device plugins is compiled in.
pub const KUBELET_ROOT: &str = "/var/lib/kubelet";

/// The file of a run's settings, as the configuration names it before there are [`Folders`].
pub fn settings_of(launch: &NodeLaunch, place: &Place, name: &str) -> PathBuf {
    launch.root_dir.join("runs").join(&place.executor_id).join("etc").join(name)
}

/// The run's folder with a short name.
fn short(executor_id: &str) -> PathBuf {
    PathBuf::from(format!("/run/km-{}", short_id(executor_id)))
}

const RUNTIME_SOCKET: &str = "containerd.sock";

/// The container runtime's socket, as the configuration names it before there are [`Folders`].
pub fn runtime_socket(executor_id: &str) -> PathBuf {
    short(executor_id).join(RUNTIME_SOCKET)
}

/// The eight digits at the end of an executor's id; a hash when it does not look so.
pub fn short_id(executor_id: &str) -> String {
    match executor_id.rsplit_once('.') {
        Some((_, id)) if id.len() == 8 && id.chars().all(|digit| digit.is_ascii_hexdigit()) => id.to_owned(),
        _ => hash8(executor_id),
    }
}

/// A bridge's name has at most 15 bytes, a cluster's has more.
pub fn bridge_name(cluster: &str) -> String {
    format!("km{}", hash8(cluster))
}

fn hash8(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// `path` below `root`, whatever slashes it begins with.
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
