//! What does not change while the scheduler runs.
use kmctl_core::protocol::artifacts::KmProgram;
use std::path::PathBuf;
use std::time::Duration;

use kmctl_core::cluster::{Constraint, NetworkMode, ProxyMode};
use kmctl_core::k8s::Version;
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::launch::Artifact;

/// Static settings of the decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub cluster: String,
    /// The role whose offers are used.
    pub role: String,
    /// User that executors run as.
    pub user: String,
    /// Resources of a node agent itself.
    pub overhead: Amount,
    /// How long a node without pods is kept.
    pub idle_timeout: Duration,
    /// Which agents may become nodes.
    pub constraints: Vec<Constraint>,
    /// How pods are reached.
    pub network_mode: NetworkMode,
    /// The binary that executors run.
    pub km: KmProgram,
    pub node: NodeTemplate,
}

/// Settings that are passed to every node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTemplate {
    pub api_servers: Vec<String>,
    /// The cluster CA, PEM.
    pub ca_certificate: String,
    pub kubernetes_version: String,
    /// Directory on agents.
    pub root_dir: PathBuf,
    /// Subnet of pods.
    pub pod_cidr: String,
    /// How kube-proxy writes its rules.
    pub proxy_mode: ProxyMode,
    /// Subnet of Services.
    pub service_cidr: String,
    /// DNS domain.
    pub cluster_domain: String,
    /// Binaries and images.
    pub artifacts: Vec<Artifact>,
}

impl NodeTemplate {
    /// The declared features of the nodes' kubelets. Empty if they are not known.
    pub(super) fn declared_features(&self) -> &'static [&'static str] {
        let version = self.kubernetes_version.parse::<Version>().ok();
        version.and_then(|version| version.row().ok()).map(|row| row.declared_features).unwrap_or_default()
    }
}
