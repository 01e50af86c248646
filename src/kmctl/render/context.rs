//! What the templates are rendered with: everything that differs between clusters and hosts, computed once.
use std::net::IpAddr;

use serde::Serialize;

use super::RenderError;
use kmctl_core::cluster::{Cluster, HostSpec, NetworkMode};
use kmctl_core::k8s::names;
use kmctl_core::protocol::host::KM;

/// Names that templates may use.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// The host's name.
    pub host: String,
    /// The host's address.
    pub address: String,
    /// The host's address, in brackets where a URL needs them.
    pub url_address: String,
    /// The address that the API server listens on: every address of the host's family.
    pub bind_address: &'static str,
    /// Directory of the bundle's binaries.
    pub bin: String,
    /// Directory of etcd's binaries.
    pub etcd_bin: String,
    /// Path of the `km` binary.
    pub km: &'static str,
    /// Directory of keys and certificates.
    pub pki: &'static str,
    /// The controller manager's `--flex-volume-plugin-dir`.
    pub volume_plugins: &'static str,
    /// `address:port` that clients use.
    pub endpoint: String,
    /// Network of the Services' addresses.
    pub service_cidr: String,
    /// Range of NodePorts.
    pub node_port_range: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// The controller manager's `--controllers`.
    pub controllers: &'static str,
    /// Whether there are other control-plane hosts.
    pub has_peers: bool,
    /// Group of bootstrap tokens.
    pub bootstrap_group: &'static str,
    /// Name of the ConfigMap with the live settings.
    pub settings_config_map: &'static str,
    /// Minimum number of nodes.
    pub nodes_min: u32,
    /// Maximum number of nodes, or `none`.
    pub nodes_max: String,
}

/// Directory of keys and certificates.
pub const PKI: &str = "/etc/kubernetes/pki";

/// Where kube-controller-manager searches for volume plugins. There are none.
pub const VOLUME_PLUGINS: &str = "/var/lib/kmctl/volume-plugins";

/// Computes the settings for one host. `library` and `etcd` are the directories of the bundle's files and of etcd's
/// own.
pub fn settings(cluster: &Cluster, host: &HostSpec, library: &str, etcd: &str) -> Result<Settings, RenderError> {
    let spec = &cluster.spec;
    let address = parse(host)?;
    Ok(Settings {
        cluster: cluster.metadata.name.clone(),
        host: host.name.clone(),
        address: address.to_string(),
        url_address: in_url(address),
        bind_address: if address.is_ipv4() { "0.0.0.0" } else { "::" },
        bin: format!("{library}/bin"),
        etcd_bin: format!("{etcd}/bin"),
        km: KM,
        pki: PKI,
        volume_plugins: VOLUME_PLUGINS,
        endpoint: spec.control_plane.endpoint.clone(),
        service_cidr: spec.kubernetes.service_cidr.clone(),
        node_port_range: spec.kubernetes.node_port_range.clone(),
        cluster_domain: spec.kubernetes.cluster_domain.clone(),
        controllers: match spec.network.mode {
            // km endpoints writes these. The mirroring controller remains enabled: it serves Services without a
            // selector.
            NetworkMode::HostPorts => "*,-endpoints-controller,-endpointslice-controller,token-cleaner-controller",
            NetworkMode::Cni => "*,token-cleaner-controller",
        },
        has_peers: spec.control_plane.hosts.len() > 1,
        bootstrap_group: names::BOOTSTRAP_GROUP,
        settings_config_map: names::SETTINGS_CONFIG_MAP,
        nodes_min: spec.nodes.min,
        nodes_max: spec.nodes.max.map_or("none".to_owned(), |max| max.to_string()),
    })
}

/// Must be an IP address: the API server advertises one, and so do etcd and the artifact server.
pub(crate) fn parse(host: &HostSpec) -> Result<IpAddr, RenderError> {
    host.address.parse().map_err(|_| {
        RenderError::Cluster(format!("address `{}` of host {} is not an IP address", host.address, host.name))
    })
}

/// Formats an address for a URL.
pub(crate) fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
