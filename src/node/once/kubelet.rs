//! A stock kubelet without an API server: its pods lie in a folder, and km asks it what they are doing.
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;

use super::super::config::KubeletConfiguration;
use super::super::deps::{DepError, Program, Service};
use super::super::real::search_path;
use super::super::spec::{DepsSpec, KUBELET_ROOT};
use crate::k8s::Version;
use crate::pki::{self, LeafSpec};

const POLL: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(10);

/// The kubelet of a run, and the only one who may ask it.
pub struct StandaloneKubelet {
    spec: DepsSpec,
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
        StandaloneKubelet { spec, access: Mutex::new(None) }
    }

    /// Every pod that the kubelet knows, with its status.
    pub async fn pods(&self) -> Result<Vec<Pod>, DepError> {
        let what = "ask the kubelet for its pods";
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Access { client, port }) = access else {
            return Err(DepError::NotNow("the kubelet was not started yet".to_owned()));
        };
        let url = format!("https://127.0.0.1:{port}/pods");
        let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let bytes = answer.map_err(DepError::other(what))?.bytes().await.map_err(DepError::other(what))?;
        let list: List<Pod> = serde_json::from_slice(&bytes).map_err(DepError::other(what))?;
        Ok(list.items)
    }

    /// Certificates of this run alone: one for the kubelet's server, one for km.
    fn certify(&self, port: u16) -> Result<Access, DepError> {
        let what = "make the run's certificates";
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
        // The folder is a tmpfs that only root enters.
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
        let folders = &self.spec.folders;
        let file = folders.settings("kubelet.yaml");
        let what = format!("write {}", file.display());
        std::fs::write(&file, configuration.to_document()).map_err(DepError::io(what))?;
        if let Some(pods) = &configuration.static_pod_path {
            std::fs::create_dir_all(pods).map_err(DepError::io(format!("make {}", pods.display())))?;
        }
        let access = self.certify(configuration.port)?;
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = Some(access);
        let mut argv = vec![folders.programs().join("kubelet").display().to_string()];
        argv.extend(flags(&self.spec));
        Ok(Program {
            name: self.name().to_owned(),
            argv,
            environment: vec![("PATH".to_owned(), search_path(&self.spec))],
        })
    }

    async fn ready(&self) -> Result<(), DepError> {
        while let Err(error) = self.pods().await {
            tracing::debug!("not ready: {}", error.chain());
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// No kubeconfig is what makes a kubelet stand alone.
fn flags(spec: &DepsSpec) -> Vec<String> {
    let folders = &spec.folders;
    let version: Result<Version, _> = spec.node.kubernetes_version.parse();
    let mut flags = vec![
        format!("--config={}", folders.settings("kubelet.yaml").display()),
        format!("--cert-dir={KUBELET_ROOT}/pki"),
        format!("--root-dir={KUBELET_ROOT}"),
        format!("--hostname-override={}", spec.node.name),
        format!("--container-runtime-endpoint=unix://{}", folders.runtime_socket().display()),
        "--v=2".to_owned(),
    ];
    if !spec.node.ip.is_loopback() {
        flags.push(format!("--node-ip={}", spec.node.ip));
    }
    if version.is_ok_and(Version::has_built_in_runtime) {
        flags.push("--container-runtime=remote".to_owned());
        flags.push("--network-plugin=cni".to_owned());
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::super::super::launch;
    use super::super::super::spec::Place;
    use super::*;

    #[test]
    fn the_kubelet_is_stock_and_stands_alone() {
        let flags = flags(&DepsSpec::for_run(&launch::example(), &Place::example(), false)).join(" ");
        assert!(!flags.contains("kubeconfig"), "{flags}");
        assert!(!flags.to_lowercase().contains("runonce"), "the kubelet's own flag is gone since 1.24: {flags}");
        assert!(flags.contains("--hostname-override=agent-1"), "{flags}");
    }
}
