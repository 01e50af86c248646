//! containerd, configured for this run only, so that it shares nothing with a containerd that the agent may have.
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::super::cni;
use super::super::deps::{DepError, Program, Service};
use super::cleanup::run_program;
use super::packet_filter::PacketFilter;
use super::ports::RealPorts;
use kmctl_core::cluster::NetworkMode;
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::containerd::{argv, configuration, network};
use kmctl_core::node::programs::{path, search_path};
use kmctl_core::node::spec::DepsSpec;

const POLL: Duration = Duration::from_millis(200);

/// The container runtime of a run.
pub struct Containerd {
    spec: DepsSpec,
    ports: Arc<RealPorts>,
    filter: PacketFilter,
    /// Answers the CNI plugin while the run lives.
    answers: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Containerd {
    /// For one run, whose pods have these ports, mapped by rules of this kind.
    pub fn new(spec: DepsSpec, ports: Arc<RealPorts>, filter: PacketFilter) -> Self {
        Containerd { spec, ports, filter, answers: Mutex::new(None) }
    }

    /// Installs the plugin that maps granted ports beside the stock ones, and answers its requests.
    fn serve_ports(&self) -> Result<(), DepError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.is_some() {
            return Ok(());
        }
        let plugin = self.spec.folders.run.join("cni/km-cni");
        // A copy of this binary, because the one in the sandbox may be removed. The plugin's name selects the
        // subcommand.
        std::fs::copy("/proc/self/exe", &plugin).map_err(DepError::io(format!("install {}", plugin.display())))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&plugin, executable).map_err(DepError::io(format!("install {}", plugin.display())))?;
        let socket = self.spec.folders.short.join("cni.sock");
        let listener = cni::listen(&socket).map_err(DepError::io(format!("listen on {}", socket.display())))?;
        *answers = Some(AbortOnDropHandle::new(tokio::spawn(cni::serve(listener, self.ports.clone()))));
        Ok(())
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<String, DepError> {
        let folders = &self.spec.folders;
        let program = folders.programs().join("ctr");
        let socket = folders.runtime_socket().display().to_string();
        let all = [&["--address", &socket, "--namespace", "k8s.io"], arguments].concat();
        run_program(&program.display().to_string(), &all, None).await
    }
}

#[async_trait]
impl Service for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    async fn program(&self, _: &KubeletConfiguration) -> Result<Program, DepError> {
        let folders = &self.spec.folders;
        write(&folders.settings("containerd.toml"), &configuration(&self.spec))?;
        if self.spec.network.mode == NetworkMode::HostPorts {
            let choice = self.filter.choice().await?;
            write(&folders.run.join("net.d/10-kmctl.conflist"), &network(&self.spec, choice.mode))?;
            self.serve_ports()?;
        }
        // A killed runtime leaves its socket, and the next one needs to create it.
        let _ = std::fs::remove_file(folders.runtime_socket());
        Ok(Program {
            name: self.name().to_owned(),
            argv: argv(&self.spec),
            environment: vec![("PATH".to_owned(), search_path(&self.spec))],
        })
    }

    async fn ready(&self) -> Result<(), DepError> {
        while self.ctr(&["version"]).await.is_err() {
            tokio::time::sleep(POLL).await;
        }
        for artifact in self.spec.artifacts.iter().filter(|artifact| artifact.path.starts_with("images/")) {
            let archive = path(&self.spec.folders.run.join(&artifact.path));
            // The archive was verified before. A failure is the runtime's, which may be restarting.
            let mut attempts = 0;
            while let Err(error) = self.ctr(&["images", "import", "--no-unpack=false", &archive]).await {
                attempts += 1;
                if attempts >= 5 {
                    return Err(error);
                }
                tokio::time::sleep(POLL * attempts).await;
            }
            info!("imported {}", artifact.path);
        }
        Ok(())
    }
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), DepError> {
    std::fs::write(file, text).map_err(DepError::io(format!("write {}", file.display())))
}
