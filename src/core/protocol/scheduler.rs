//! The settings file of `km scheduler`, `/etc/kmctl/scheduler.yaml`, rendered by `kmctl`.
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cluster::{KubernetesSpec, NetworkSpec, NodesSpec};

/// Common name of the certificate that may ask the extender.
pub const EXTENDER_CLIENT: &str = "kube-scheduler-extender-client";

/// All settings; the only source besides the live ones in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SchedulerConfiguration {
    /// The cluster's name.
    pub cluster: String,
    /// The connection to Mesos.
    pub mesos: MesosConnection,
    /// Credentials for the API server.
    pub kubeconfig: PathBuf,
    /// Every API server, as nodes reach them: `https://address:port`.
    pub api_servers: Vec<String>,
    /// The cluster CA, handed to nodes.
    pub ca_file: PathBuf,
    /// Folder for the framework id, 0700.
    pub state_dir: PathBuf,
    /// The extender's server: TLS with client certificates.
    pub extender: ExtenderServer,
    /// The artifact server: plain HTTP, public files by sha256, and /healthz.
    pub artifacts: ArtifactServer,
    /// Versions and Services.
    pub kubernetes: KubernetesSpec,
    /// Bounds, overhead, defaults, constraints.
    pub nodes: NodesSpec,
    /// Network of the pods.
    pub network: NetworkSpec,
}

/// How to reach Mesos as a framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MesosConnection {
    /// Masters, as URLs without a path; the leader is found by following redirects.
    pub masters: Vec<String>,
    /// User that executors run as.
    pub user: String,
    /// Roles to subscribe with.
    pub roles: Vec<String>,
    /// Principal; empty without authentication.
    #[serde(default)]
    pub principal: String,
    /// File with the principal's secret (0600).
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// CA of an https master.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Framework name, unique in Mesos.
    pub framework_name: String,
}

/// Where kube-scheduler asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtenderServer {
    /// Loopback address and port.
    pub listen: SocketAddr,
    /// Where the other hosts' km schedulers ask the one that leads; none where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeerServer>,
    /// Server certificate, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// CA of client certificates, PEM.
    pub client_ca_file: PathBuf,
}

/// How km schedulers pass on questions to the one that leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerServer {
    /// The host's address and port.
    pub listen: SocketAddr,
    /// Client certificate, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
}

/// Where nodes fetch programs and images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactServer {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Base URL as agents reach it.
    pub advertise: String,
    /// The unpacked bundle's manifest.json.
    pub manifest: PathBuf,
}
