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
    /// The cluster's name.
    pub cluster: String,
    /// The role whose offers are used.
    pub role: String,
    /// User that executors run as.
    pub user: String,
    /// What a node agent itself takes.
    pub overhead: Amount,
    /// How long a node without pods is kept.
    pub idle_timeout: Duration,
    /// Which agents may become nodes.
    pub constraints: Vec<Constraint>,
    /// How pods are reached.
    pub network_mode: NetworkMode,
    /// The program that executors run.
    pub km: KmProgram,
    /// What every node is told.
    pub node: NodeTemplate,
}

/// What every node is told.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTemplate {
    /// API servers.
    pub api_servers: Vec<String>,
    /// The cluster CA, PEM.
    pub ca_certificate: String,
    /// Kubernetes version.
    pub kubernetes_version: String,
    /// Folder on agents.
    pub root_dir: PathBuf,
    /// Subnet of pods.
    pub pod_cidr: String,
    /// How kube-proxy writes its rules.
    pub proxy_mode: ProxyMode,
    /// Subnet of Services.
    pub service_cidr: String,
    /// DNS domain.
    pub cluster_domain: String,
    /// Programs and images.
    pub artifacts: Vec<Artifact>,
}

impl NodeTemplate {
    /// What the nodes' kubelets declare of themselves; nothing where that is not known.
    pub(super) fn declared_features(&self) -> &'static [&'static str] {
        let version = self.kubernetes_version.parse::<Version>().ok();
        version.and_then(|version| version.row().ok()).map(|row| row.declared_features).unwrap_or_default()
    }
}
