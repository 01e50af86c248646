//! containerd: configured for this run alone, so that it shares nothing with a containerd that the agent may have.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::super::cni;
use super::super::config::KubeletConfiguration;
use super::super::deps::{DepError, Program, Service};
use super::super::spec::DepsSpec;
use super::packet_filter::{Choice, PacketFilter};
use super::ports::RealPorts;
use super::remains::run_program;
use crate::cluster::NetworkMode;

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

    /// Puts the plugin that maps granted ports beside the stock ones, and answers its questions.
    fn serve_ports(&self) -> Result<(), DepError> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.is_some() {
            return Ok(());
        }
        let plugin = self.spec.folders.run.join("cni/km-cni");
        // A copy of this very program: the one in the sandbox may go, and its name tells it what to be.
        std::fs::copy("/proc/self/exe", &plugin).map_err(DepError::io(format!("place {}", plugin.display())))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&plugin, executable).map_err(DepError::io(format!("place {}", plugin.display())))?;
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
            write(&folders.run.join("net.d/10-kmctl.conflist"), &network(&self.spec, choice))?;
            self.serve_ports()?;
        }
        // A runtime that was killed leaves its socket, and the next one wants to make it.
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
            // Verified before; what fails here is the runtime, which may be starting anew.
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

/// Where programs of the host are looked for.
pub(super) const HOST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn argv(spec: &DepsSpec) -> Vec<String> {
    let folders = &spec.folders;
    vec![
        path(&folders.programs().join("containerd")),
        "--config".to_owned(),
        path(&folders.settings("containerd.toml")),
        // Also the mark by which a sweep knows this run's processes.
        "--address".to_owned(),
        path(&folders.runtime_socket()),
    ]
}

/// Programs of the run come before the host's: shims, runc and plugins must be the bundle's, `iptables` the variant that
/// works.
pub(super) fn search_path(spec: &DepsSpec) -> String {
    format!("{}:{HOST_PATH}", spec.folders.programs().display())
}

pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), DepError> {
    std::fs::write(file, text).map_err(DepError::io(format!("write {}", file.display())))
}

/// Configuration version 3, of containerd 2.0; 2.3 and later read it as their own version 4.
pub(super) fn configuration(spec: &DepsSpec) -> String {
    let folders = &spec.folders;
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    let (cni_programs, cni_settings) = match spec.network.mode {
        NetworkMode::HostPorts => (folders.run.join("cni"), folders.run.join("net.d")),
        // The user's plugin and its configuration, out of the bundle like everything else.
        NetworkMode::Cni if spec.artifacts.iter().any(|artifact| artifact.path.starts_with("cni.d/")) => {
            (folders.run.join("cni"), folders.run.join("cni.d"))
        }
        // The user's plugin, where every plugin installs itself.
        NetworkMode::Cni => (PathBuf::from("/opt/cni/bin"), PathBuf::from("/etc/cni/net.d")),
    };
    format!(
        r#"version = 3
root = {root}
state = {state}
# The kubelet's and ours do the same; lowering needs a capability that nested agents lack.
oom_score = 0

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

# On by default, on a socket that all runtimes of a machine share (/var/run/nri/nri.sock).
[plugins."io.containerd.nri.v1.nri"]
disable = true

# Never removed, as nobody could pull it again.
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {sandbox_image}

[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {restrict}
# In the run's own folder: a namespace file in /run/netns would outlive the mount that makes it one.
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

# Named, because the kubelet takes its cgroup driver from here, and unset means systemd wherever that runs.
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{cni_programs}]
conf_dir = {cni_settings}
"#,
        root = quoted(folders.run.join("containerd")),
        state = quoted(folders.short.join("containerd")),
        socket = quoted(folders.runtime_socket()),
        opt = quoted(folders.run.join("opt")),
        sandbox_image = serde_json::Value::from(spec.runtime.sandbox_image.as_str()),
        restrict = spec.runtime.restrict_oom_score_adj,
        runc = quoted(folders.programs().join("runc")),
        cni_programs = quoted(cni_programs),
        cni_settings = quoted(cni_settings),
    )
}

/// A routed link per pod; a pod's hostPort is mapped by the stock plugin, what Mesos granted for other ports by ours. The
/// stock plugins would choose their back end by what they find installed; here it is kube-proxy's.
pub(super) fn network(spec: &DepsSpec, choice: &Choice) -> String {
    let network = &spec.network;
    json!({
        "cniVersion": "0.3.1",
        "name": network.name,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": true,
                "ipMasqBackend": choice.backend(),
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": network.pod_cidr }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "dataDir": spec.folders.run.join("ipam"),
                },
            },
            {
                "type": "portmap",
                "capabilities": { "portMappings": true },
                "snat": true,
                "backend": choice.backend(),
            },
            {
                "type": "km-cni",
                "cluster": spec.node.cluster,
                "socket": spec.folders.short.join("cni.sock"),
            },
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::launch::{self, Artifact};
    use crate::node::spec::Place;

    #[test]
    fn the_runtime_lies_in_the_run_and_spares_what_it_may_not_do() {
        let place = Place { may_lower_oom_score: false, ..Place::example() };
        let text = configuration(&DepsSpec::for_launch(&launch::example(), &place));
        for expected in [
            "root = \"/var/lib/kmctl/demo/runs/agent-1.0123abcd/containerd\"\n",
            "address = \"/run/km-0123abcd/containerd.sock\"\n",
            "restrict_oom_score_adj = true\n",
            "SystemdCgroup = false\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn the_stock_plugins_write_with_what_kube_proxy_writes_with() {
        use crate::cluster::ProxyMode;
        let spec = DepsSpec::for_launch(&launch::example(), &Place::example());
        for (mode, word) in [(ProxyMode::Iptables, "iptables"), (ProxyMode::Nftables, "nftables")] {
            let text = network(&spec, &Choice { mode, iptables: None, why: None });
            let network: serde_json::Value = serde_json::from_str(&text).unwrap();
            let [ptp, portmap] = [&network["plugins"][0]["ipMasqBackend"], &network["plugins"][1]["backend"]];
            assert_eq!([ptp, portmap], [word, word]);
        }
    }

    #[test]
    fn with_the_users_plugin_its_own_folders_are_used() {
        let mut launch = launch::example();
        launch.network_mode = NetworkMode::Cni;
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        assert!(text.contains("bin_dirs = [\"/opt/cni/bin\"]"), "{text}");

        // What a bundle brings is taken from where it was verified.
        launch.artifacts = ["cni/mine", "cni.d/10-mine.conflist"]
            .map(|path| Artifact {
                path: path.to_owned(),
                sha256: String::new(),
                size: 1,
                urls: Vec::new(),
                images: Vec::new(),
            })
            .to_vec();
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        for expected in ["/runs/agent-1.0123abcd/cni\"]\n", "/runs/agent-1.0123abcd/cni.d\"\n"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        // A configuration that comes along is nobody's business where granted ports are mapped.
        launch.network_mode = NetworkMode::HostPorts;
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        assert!(text.contains("/net.d\"\n") && !text.contains("cni.d"), "{text}");
    }
}
