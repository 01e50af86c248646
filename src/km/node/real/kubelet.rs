//! The stock kubelet: how any kubelet is started, and the service of a node with an API server, whose kubelet obtains
//! its credentials with the launch's one-time token.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::super::deps::{DepError, Program, Service};
use super::api::RealApi;
use super::containerd::write;
use super::kubeconfig::{User, client_certificate, document, write_private};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::kubelet::{api_flags, argv};
use kmctl_core::node::programs::search_path;
use kmctl_core::node::spec::DepsSpec;

const POLL: Duration = Duration::from_millis(500);

/// The kubelet of a run.
pub struct Kubelet {
    spec: DepsSpec,
    stock: StockKubelet,
    api: Arc<RealApi>,
    token: String,
}

impl Kubelet {
    /// For one run.
    pub fn new(spec: DepsSpec, api: Arc<RealApi>, token: String) -> Self {
        Kubelet { stock: StockKubelet::new(spec.clone()), spec, api, token }
    }
}

#[async_trait]
impl Service for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    async fn program(&self, configuration: &KubeletConfiguration) -> Result<Program, DepError> {
        let folders = &self.spec.folders;
        write(&folders.settings("ca.crt"), &self.spec.api.ca_certificate)?;
        let (certificate, server) = (client_certificate(), self.api.server().await?);
        if certificate.exists() {
            let text = document(&server, folders, &User::Certificate(&certificate));
            write_private(&folders.kubelet_kubeconfig(), &text)?;
        } else {
            let text = document(&server, folders, &User::Token(&self.token));
            write_private(&folders.settings("bootstrap.kubeconfig"), &text)?;
        }
        self.stock.program(configuration, api_flags(&self.spec))
    }

    async fn ready(&self) -> Result<(), DepError> {
        while !client_certificate().exists() {
            tokio::time::sleep(POLL).await;
        }
        // The token is used up; the cluster has deleted its half.
        let _ = std::fs::remove_file(self.spec.folders.settings("bootstrap.kubeconfig"));
        while !matches!(self.api.node_ready().await, Ok(true)) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// The common start of a kubelet, with or without an API server.
pub struct StockKubelet {
    spec: DepsSpec,
}

impl StockKubelet {
    /// For one run.
    pub fn new(spec: DepsSpec) -> Self {
        StockKubelet { spec }
    }

    /// Writes the kubelet's configuration, and returns how to start it. `more`: additional flags.
    pub fn program(&self, configuration: &KubeletConfiguration, more: Vec<String>) -> Result<Program, DepError> {
        let folders = &self.spec.folders;
        hide_systemd_run(&folders.programs())?;
        write(&folders.settings("kubelet.yaml"), &configuration.to_document())?;
        let argv = argv(&self.spec, more);
        let environment = vec![("PATH".to_owned(), search_path(&self.spec))];
        Ok(Program { name: "kubelet".to_owned(), argv, environment })
    }
}

/// A kubelet that finds systemd-run mounts volumes in transient scopes of the host's systemd. These scopes would be
/// units of the host, outside the Mesos container, and would remain when the node is killed. If systemd-run fails, the
/// kubelet mounts directly (`detectSystemd` in k8s.io/mount-utils).
fn hide_systemd_run(programs: &Path) -> Result<(), DepError> {
    let decoy = programs.join("systemd-run");
    write(&decoy, "#!/bin/sh\nexit 1\n")?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&decoy, executable).map_err(DepError::io(format!("install {}", decoy.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::node::spec::Place;
    use kmctl_core::protocol::launch;

    #[test]
    fn the_kubelet_finds_a_systemd_run_that_cannot_be_run() {
        let folder = tempfile::tempdir().unwrap();
        hide_systemd_run(folder.path()).unwrap();
        hide_systemd_run(folder.path()).unwrap();
        let path = search_path(&DepsSpec::for_launch(&launch::example(), &Place::example()));
        assert!(path.starts_with("/var/lib/kmctl/demo/runs/agent-1.0123abcd/bin:"), "before the host's: {path}");
        let run = std::process::Command::new(folder.path().join("systemd-run")).args(["--scope", "true"]).status();
        assert_eq!(run.unwrap().code(), Some(1));
    }
}
