//! A stock kubelet without an API server: its pods are files in a directory, and km queries it for their status.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use super::super::deps::{DepError, Program, Service};
use super::super::real::StockKubelet;
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::spec::DepsSpec;
use kmctl_core::pki::{self, LeafSpec};

const POLL: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(10);

/// The kubelet of a run, and the only client that may query it.
pub struct StandaloneKubelet {
    spec: DepsSpec,
    stock: StockKubelet,
    access: Mutex<Option<Access>>,
}

#[derive(Clone)]
struct Access {
    client: reqwest::Client,
    port: u16,
}

impl StandaloneKubelet {
    /// For one run.
    pub fn new(spec: DepsSpec) -> Self {
        StandaloneKubelet { stock: StockKubelet::new(spec.clone()), spec, access: Mutex::new(None) }
    }

    /// Every pod that the kubelet knows, with its status.
    pub async fn pods(&self) -> Result<Vec<Pod>, DepError> {
        let what = "query the pods of the kubelet";
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Access { client, port }) = access else {
            return Err(DepError::NotNow("the kubelet is not started yet".to_owned()));
        };
        let url = format!("https://127.0.0.1:{port}/pods");
        let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let bytes = answer.map_err(DepError::other(what))?.bytes().await.map_err(DepError::other(what))?;
        let list: List<Pod> = serde_json::from_slice(&bytes).map_err(DepError::other(what))?;
        Ok(list.items)
    }

    /// Creates certificates for this run only: one for the kubelet's server, one for km.
    fn certify(&self, port: u16) -> Result<Access, DepError> {
        let what = "create the certificates of the run";
        let folder = self.spec.folders.settings("pki");
        std::fs::create_dir_all(&folder).map_err(DepError::io(what))?;
        let now = jiff::Timestamp::now();
        let made = || -> Result<_, pki::PkiError> {
            let authority_key = pki::new_key()?;
            let authority = pki::authority("kmctl-runonce", &authority_key, now)?;
            let leaf = |name: &str, server: bool| {
                let spec = LeafSpec {
                    common_name: name.to_owned(),
                    organization: None,
                    names: if server { vec!["127.0.0.1".to_owned()] } else { Vec::new() },
                    server,
                    client: !server,
                };
                let key = pki::new_key()?;
                pki::leaf(&spec, &key, &authority, &authority_key, now).map(|certificate| (certificate, key))
            };
            Ok((leaf("kubelet", true)?, leaf("km", false)?, authority))
        };
        let ((certificate, key), (own, own_key), authority) = made().map_err(DepError::other(what))?;
        // The directory is a tmpfs that only root can enter.
        for (name, text) in [("ca.crt", &authority), ("server.crt", &certificate), ("server.key", &key)] {
            std::fs::write(folder.join(name), text).map_err(DepError::io(what))?;
        }
        let identity =
            reqwest::Identity::from_pem(format!("{own}{own_key}").as_bytes()).map_err(DepError::other(what))?;
        let trusted = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).map_err(DepError::other(what))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(trusted)
            .identity(identity)
            .timeout(ANSWER)
            .build()
            .map_err(DepError::other(what))?;
        Ok(Access { client, port })
    }
}

#[async_trait]
impl Service for StandaloneKubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    async fn program(&self, configuration: &KubeletConfiguration) -> Result<Program, DepError> {
        if let Some(pods) = &configuration.static_pod_path {
            std::fs::create_dir_all(pods).map_err(DepError::io(format!("create {}", pods.display())))?;
        }
        let access = self.certify(configuration.port)?;
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = Some(access);
        // Without a kubeconfig, a kubelet runs standalone.
        self.stock.program(configuration, Vec::new())
    }

    async fn ready(&self) -> Result<(), DepError> {
        while let Err(error) = self.pods().await {
            tracing::debug!("not ready: {}", error.chain());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use kmctl_core::node::spec::Place;
    use kmctl_core::protocol::launch;

    async fn started(root: &Path) -> (Program, DepsSpec) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut launch = launch::example();
        launch.root_dir = root.to_owned();
        let spec = DepsSpec::for_run(&launch, &Place::example(), false);
        for folder in [spec.folders.programs(), spec.folders.settings("")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let configuration = KubeletConfiguration::for_run(&launch, &Place::example());
        (StandaloneKubelet::new(spec.clone()).program(&configuration).await.unwrap(), spec)
    }

    #[tokio::test]
    async fn the_kubelet_is_stock_and_stands_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (program, _) = started(folder.path()).await;
        let flags = program.argv.join(" ");
        assert!(!flags.contains("kubeconfig"), "{flags}");
        assert!(!flags.to_lowercase().contains("runonce"), "the kubelet's own flag is gone since 1.24: {flags}");
        assert!(flags.contains("--hostname-override=agent-1"), "{flags}");
    }

    #[tokio::test]
    async fn a_runs_kubelet_mounts_by_itself_too() {
        let folder = tempfile::tempdir().unwrap();
        let (program, spec) = started(folder.path()).await;
        let decoy = spec.folders.programs().join("systemd-run");
        assert_eq!(std::process::Command::new(&decoy).status().unwrap().code(), Some(1));
        assert!(program.environment[0].1.starts_with(&format!("{}:", spec.folders.programs().display())));
    }
}
