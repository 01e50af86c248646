//! `KubeletConfiguration`: the static half of a node agent's input, versioned `kubelet.config.k8s.io/v1beta1` and
//! passed to the stock kubelet unchanged (`--config`).
//!
//! It only has upstream's own fields, so that the file the kubelet reads is the file the agent was configured with.
//! Everything for which upstream has no field (the node's name, paths, network, artifacts) is in a
//! [`DepsSpec`](super::spec::DepsSpec), which describes how the injected objects are built.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::{Place, runtime_socket, settings_of};
use crate::cluster::{Network, NetworkMode};
use crate::protocol::launch::NodeLaunch;

/// The only version that is read and written.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

/// The fields of upstream's configuration that this project sets; any other key is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeletConfiguration {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `KubeletConfiguration`.
    pub kind: String,
    /// Address the kubelet's server listens on.
    pub address: IpAddr,
    /// Port of the kubelet's server; the agent uses another one if it is in use.
    pub port: u16,
    /// Zero: the port without authentication is disabled.
    pub read_only_port: u16,
    /// Zero: the agent checks health by the node's own condition.
    pub healthz_port: u16,
    /// Which clients may access the kubelet.
    pub authentication: Authentication,
    /// What they may do.
    pub authorization: Authorization,
    /// Renews the client certificate.
    pub rotate_certificates: bool,
    /// Requests the serving certificate from the cluster.
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    /// Lowest TLS version served.
    pub tls_min_version: String,
    /// `cgroupfs`: Mesos' cgroup tree is not managed by systemd.
    pub cgroup_driver: String,
    /// Directory of static pods, for a kubelet without an API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_pod_path: Option<PathBuf>,
    /// How often that directory is read, in addition to the kernel's change notifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_check_frequency: Option<String>,
    /// The server's certificate, if no cluster signs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of [`tls_cert_file`](Self::tls_cert_file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Cgroup of all pods, below the Mesos container's; the agent sets it after creating the cgroup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_root: String,
    /// Socket of the container runtime.
    pub container_runtime_endpoint: String,
    /// False: only km scheduler creates, labels and removes Node objects.
    pub register_node: bool,
    /// False if the machine uses cgroup v1, which kubelets since 1.35 refuse by default.
    #[serde(rename = "failCgroupV1", default, skip_serializing_if = "Option::is_none")]
    pub fail_cgroup_v1: Option<bool>,
    /// Creates quality-of-service cgroups below `cgroupRoot`.
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    /// `none`: the limit is the grant, enforced by the agent, not the machine's allocatable.
    pub enforce_node_allocatable: Vec<String>,
    /// Thresholds at which pods are evicted.
    pub eviction_hard: BTreeMap<String, String>,
    /// 100 disables image garbage collection: images are from the bundle and could not be pulled again.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    /// Must be below the high threshold.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    /// False: swap on the agent is the operator's decision.
    pub fail_swap_on: bool,
    /// False: two kubelets on one machine would rewrite each other's chains.
    #[serde(rename = "makeIPTablesUtilChains")]
    pub make_iptables_util_chains: bool,
    /// Maximum number of pods on the node.
    pub max_pods: u32,
    /// Address of the cluster's DNS: the node's own, or with the user's network plugin that of the DNS Service.
    #[serde(rename = "clusterDNS", default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<IpAddr>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// The host's resolver file, used for pods.
    pub resolv_conf: PathBuf,
    /// Size at which a log is rotated.
    pub container_log_max_size: String,
    /// Rotated logs kept per container.
    pub container_log_max_files: u8,
    /// A directory of the run, so that the kubelet neither searches the agent for plugins outside the bundle nor
    /// creates a directory for them.
    pub volume_plugin_dir: PathBuf,
}

/// `authentication`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authentication {
    /// Whether requests without credentials are accepted.
    pub anonymous: Switch,
    /// Bearer tokens, reviewed by the API server.
    pub webhook: Switch,
    /// Client certificates.
    pub x509: X509,
}

/// An object with a single `enabled` field.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    pub enabled: bool,
}

/// `authentication.x509`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct X509 {
    /// CA of client certificates.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: PathBuf,
}

/// `authorization`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// `Webhook`: the API server decides.
    pub mode: String,
}

/// With granted host ports, `km node` serves DNS at the pods' bridge. With the user's plugin it is the tenth address of
/// the Services' network, where Kubernetes installers put the Service of CoreDNS.
fn cluster_dns(launch: &NodeLaunch) -> Vec<IpAddr> {
    let (network, number) = match launch.network_mode {
        NetworkMode::HostPorts => (&launch.pod_cidr, 1),
        NetworkMode::Cni => (&launch.service_cidr, 10),
    };
    network.parse::<Network>().ok().and_then(|network| network.host(number)).map(IpAddr::V4).into_iter().collect()
}

/// Why a document is not a valid configuration of a node agent.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It is not YAML, or has unknown or missing keys.
    #[error("invalid kubelet configuration")]
    Format(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another version or kind.
    #[error("{found} is not {API_VERSION} {KIND}")]
    Version {
        /// The version and kind found.
        found: String,
    },
    /// It contains `runOnce`.
    #[error("`{key}` is not a setting, only a flag (`km runonce`); remove it from the configuration")]
    RunOnce {
        /// The key as written.
        key: String,
    },
}

impl KubeletConfiguration {
    /// The configuration of the node that a launch and its place describe.
    pub fn for_launch(launch: &NodeLaunch, place: &Place) -> Self {
        KubeletConfiguration {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            address: launch.node_ip,
            port: 10250,
            read_only_port: 0,
            healthz_port: 0,
            authentication: Authentication {
                anonymous: Switch { enabled: false },
                webhook: Switch { enabled: true },
                x509: X509 { client_ca_file: settings_of(launch, place, "ca.crt") },
            },
            authorization: Authorization { mode: "Webhook".to_owned() },
            rotate_certificates: true,
            server_tls_bootstrap: true,
            tls_min_version: "VersionTLS12".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            static_pod_path: None,
            file_check_frequency: None,
            tls_cert_file: None,
            tls_private_key_file: None,
            cgroup_root: String::new(),
            container_runtime_endpoint: format!("unix://{}", runtime_socket(&place.executor_id).display()),
            register_node: false,
            fail_cgroup_v1: place.cgroup_v1.then_some(false),
            cgroups_per_qos: true,
            enforce_node_allocatable: vec!["none".to_owned()],
            // Memory pressure is measured on the whole machine, so another framework's load would evict our pods. Their
            // own limit is the grant. Disk thresholds protect every workload on the machine.
            eviction_hard: [
                ("memory.available", "1Mi"),
                ("nodefs.available", "5%"),
                ("nodefs.inodesFree", "2%"),
                ("imagefs.available", "5%"),
            ]
            .into_iter()
            .map(|(signal, threshold)| (signal.to_owned(), threshold.to_owned()))
            .collect(),
            image_gc_high_threshold_percent: 100,
            image_gc_low_threshold_percent: 99,
            fail_swap_on: false,
            make_iptables_util_chains: false,
            max_pods: 110,
            cluster_dns: cluster_dns(launch),
            cluster_domain: launch.cluster_domain.clone(),
            resolv_conf: place.resolv_conf.clone(),
            container_log_max_size: "10Mi".to_owned(),
            container_log_max_files: 3,
            volume_plugin_dir: settings_of(launch, place, "volume-plugins"),
        }
    }

    /// The configuration of a node without an API server. Pods are read from a directory, and only km, with a
    /// certificate of the run, may access the kubelet. `launch` is the result of
    /// [`RunLaunch::node`](crate::protocol::launch::RunLaunch::node).
    pub fn for_run(launch: &NodeLaunch, place: &Place) -> Self {
        let file = |name: &str| settings_of(launch, place, name);
        let mut own = Self::for_launch(launch, place);
        own.address = IpAddr::from([127, 0, 0, 1]);
        own.authentication.webhook.enabled = false;
        own.authentication.x509.client_ca_file = file("pki/ca.crt");
        // Every authenticated client may do everything, and only km has a certificate.
        own.authorization.mode = "AlwaysAllow".to_owned();
        (own.rotate_certificates, own.server_tls_bootstrap) = (false, false);
        own.tls_cert_file = Some(file("pki/server.crt"));
        own.tls_private_key_file = Some(file("pki/server.key"));
        own.static_pod_path = Some(file("manifests"));
        own.file_check_frequency = Some("2s".to_owned());
        // Use the machine's resolvers: there are no Services to resolve.
        own.cluster_dns = Vec::new();
        own
    }

    /// Parses a document; refuses settings that a node agent must not have.
    pub fn from_document(text: &str) -> Result<Self, ConfigurationError> {
        let raw: serde_json::Value =
            serde_yaml::from_str(text).map_err(|source| ConfigurationError::Format(source.into()))?;
        // Checked before the typed deserialization, whose "unknown field" error would hide the reason.
        for key in raw.as_object().into_iter().flat_map(|document| document.keys()) {
            if key.to_ascii_lowercase().replace(['-', '_'], "") == "runonce" {
                return Err(ConfigurationError::RunOnce { key: key.clone() });
            }
        }
        let text_of = |key: &str| raw.get(key).and_then(|value| value.as_str()).unwrap_or("(none)").to_owned();
        let (version, kind) = (text_of("apiVersion"), text_of("kind"));
        if version != API_VERSION || kind != KIND {
            return Err(ConfigurationError::Version { found: format!("{version} {kind}") });
        }
        serde_yaml::from_str(text).map_err(|source| ConfigurationError::Format(source.into()))
    }

    /// The document for the kubelet, as YAML.
    pub fn to_document(&self) -> String {
        serde_yaml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::launch;

    fn example() -> KubeletConfiguration {
        KubeletConfiguration::for_launch(&launch::example(), &Place::example())
    }

    #[test]
    fn a_written_configuration_is_read_back_unchanged() {
        let written = example().to_document();
        assert!(written.contains("apiVersion: kubelet.config.k8s.io/v1beta1"), "{written}");
        assert_eq!(KubeletConfiguration::from_document(&written).unwrap(), example());
    }

    #[test]
    fn keys_have_upstreams_spelling_since_the_kubelet_ignores_any_other() {
        let written = example().to_document();
        for key in [
            "clientCAFile:",
            "cgroupsPerQOS:",
            "clusterDomain:",
            "enforceNodeAllocatable:",
            "imageGCHighThresholdPercent:",
            "imageGCLowThresholdPercent:",
            "makeIPTablesUtilChains:",
            "serverTLSBootstrap:",
            "volumePluginDir:",
        ] {
            assert!(written.contains(key), "{key} in\n{written}");
        }
    }

    #[test]
    fn run_once_is_refused_in_any_spelling_and_says_why() {
        for key in ["runOnce", "runonce", "RunOnce", "run-once"] {
            for value in ["true", "false"] {
                let document = format!("{}{key}: {value}\n", example().to_document());
                let error = KubeletConfiguration::from_document(&document).unwrap_err();
                assert!(matches!(error, ConfigurationError::RunOnce { .. }), "{error:?}");
                assert!(error.to_string().contains("only a flag"), "{error}");
            }
        }
    }

    #[test]
    fn unknown_keys_and_other_versions_are_refused() {
        let unknown = format!("{}podCidr: 10.0.0.0/8\n", example().to_document());
        assert!(matches!(KubeletConfiguration::from_document(&unknown), Err(ConfigurationError::Format(_))));
        let version = example().to_document().replace("v1beta1", "v1");
        assert!(matches!(KubeletConfiguration::from_document(&version), Err(ConfigurationError::Version { .. })));
    }

    #[test]
    fn without_an_api_server_only_a_certificate_of_the_run_opens_the_kubelet() {
        let own = KubeletConfiguration::for_run(&launch::example(), &Place::example());
        assert!(!own.authentication.anonymous.enabled && !own.authentication.webhook.enabled);
        assert!(own.address.is_loopback() && own.cluster_dns.is_empty());
        assert_eq!(KubeletConfiguration::from_document(&own.to_document()).unwrap(), own);
        for key in ["staticPodPath:", "tlsCertFile:", "tlsPrivateKeyFile:", "fileCheckFrequency:"] {
            assert!(own.to_document().contains(key), "{key}");
        }
        assert!(!own.to_document().to_lowercase().contains("runonce"));
    }

    #[test]
    fn pods_ask_the_dns_of_their_own_node_or_of_coredns() {
        let mut launch = launch::example();
        let dns = |launch: &_| KubeletConfiguration::for_launch(launch, &Place::example()).cluster_dns;
        assert_eq!(dns(&launch), [IpAddr::from([172, 30, 0, 1])]);
        launch.network_mode = NetworkMode::Cni;
        assert_eq!(dns(&launch), [IpAddr::from([10, 96, 0, 10])]);
    }

    #[test]
    fn nobody_asks_the_kubelet_without_credentials() {
        let configuration = example();
        assert!(!configuration.authentication.anonymous.enabled);
        assert_eq!(configuration.authorization.mode, "Webhook");
        assert_eq!((configuration.read_only_port, configuration.healthz_port), (0, 0));
    }
}
