//! Everything that a `kmctl` sees in a test: an operator's folder, control-plane hosts, a Mesos, and a network in which
//! all of them have the addresses that the documentation uses.
//!
//! The network is a namespace of the test's own thread, so that tests run side by side; it needs root. Mesos is the
//! one in this process (`mesos::fake`).
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesos::fake::{AgentSpec, FakeMaster, Options};
use mesos::transport::{Authentication, Secret};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::components::{self, Etcd, Objects};
use crate::machine::Machine;
use crate::transcript::{Run, Transcript};

/// Where the Mesos master is.
pub const MASTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// Where the control-plane host is.
pub const CP1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);

/// Where there is something that takes connections and says nothing.
pub const SILENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);

/// Secret of the principal `demo`.
pub const SECRET: &str = "s3cret";

const CLUSTER: &str = "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata: { name: demo }
spec:
  mesos: { master: '10.0.0.5:5050', principal: demo, secretFile: mesos-secret }
  ssh: { identityFile: key, knownHosts: known_hosts }
  controlPlane:
    endpoint: 10.0.0.11:6443
    hosts:
      - { address: 10.0.0.11, name: cp1 }
  kubernetes: { version: v1.37.2 }
  bundle: kubernetes.bundle
";

/// An operator's folder, without any host.
pub struct Desk {
    folder: TempDir,
}

impl Desk {
    /// A folder with cluster.yaml, the secret, and small stand-ins for all programs in `programs`.
    pub fn new() -> Desk {
        let folder = TempDir::new().unwrap();
        let desk = Desk { folder };
        std::fs::create_dir_all(desk.path("programs/bin")).unwrap();
        std::fs::create_dir_all(desk.path("programs/cni")).unwrap();
        for path in kmctl_core::bundle::required() {
            // etcdctl is run before a change to a living control plane: it saves a snapshot.
            std::fs::write(desk.path("programs").join(path), format!("#!/bin/sh\nexit 0\n# {path}\n")).unwrap();
        }
        desk.write("cluster.yaml", CLUSTER);
        desk.write("mesos-secret", &format!("{SECRET}\n"));
        desk
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Replaces one text in a file by another.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no `{from}`");
        self.write(name, &text.replace(from, to));
    }

    /// Makes the bundle that cluster.yaml names.
    pub fn bundle(&self) {
        let made =
            self.kmctl(&["bundle", "create", "--kubernetes", "v1.37.2", "--out", "kubernetes.bundle", "programs"]);
        assert_eq!(made.code, 0, "{made}");
    }

    /// Changes a byte in the middle of a packed file.
    pub fn tamper(&self, bundle: &str) {
        let mut bytes = std::fs::read(self.path(bundle)).unwrap();
        let name = b"bin/kube-apiserver.gz";
        let header = bytes.windows(name.len()).position(|window| window == name).expect("it is in the archive");
        // A tar header has 512 bytes; the gzip header behind it has ten.
        bytes[header + 512 + 20] ^= 0xff;
        std::fs::write(self.path(bundle), bytes).unwrap();
    }

    /// Starts the real `kmctl` in the folder, without a terminal.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, &[])
    }

    /// The same with more environment.
    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let child = Command::new(env!("CARGO_BIN_EXE_kmctl"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("USER", "ops")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child, command: format!("kmctl {}", arguments.join(" ")), folder: self.folder.path().to_owned() }
    }

    /// Runs the real `kmctl` to its end.
    pub fn kmctl(&self, arguments: &[&str]) -> Transcript {
        self.start(arguments).end()
    }
}

/// A `kmctl` under way.
pub struct Running {
    child: Child,
    command: String,
    folder: PathBuf,
}

impl Running {
    /// Reads standard error to the end of a line that has `text`; the time that took.
    pub fn until(&mut self, text: &str) -> Duration {
        let began = Instant::now();
        // One byte at a time, so that what comes later is left in the pipe.
        let stderr = self.child.stderr.as_mut().unwrap();
        let mut seen = Vec::new();
        while !(seen.ends_with(b"\n") && String::from_utf8_lossy(&seen).contains(text)) {
            let mut byte = [0];
            assert_eq!(stderr.read(&mut byte).unwrap(), 1, "no `{text}` in: {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        began.elapsed()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let process = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// Waits for its end.
    pub fn end(self) -> Transcript {
        let output = self.child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Transcript::new(
            &self.folder,
            Run {
                command: self.command,
                stdout: text(&output.stdout),
                stderr: text(&output.stderr),
                code: output.status.code().expect("kmctl ends by itself"),
            },
        )
    }
}

/// A desk in a network with a control-plane host and a Mesos with two agents.
pub struct World {
    /// The control-plane host.
    pub cp1: Machine,
    /// What the API server has.
    pub objects: Objects,
    /// The operator's folder.
    pub desk: Desk,
    /// Mesos; its agents are `agent1` and `agent2`.
    pub mesos: FakeMaster,
    /// What this process plays runs in it; made after the namespaces, which its threads inherit.
    pub runtime: Runtime,
}

impl World {
    /// Everything is started, and nothing is installed.
    pub fn new() -> World {
        network([MASTER, CP1, SILENT]);
        let desk = Desk::new();
        desk.bundle();
        let cp1 = Machine::start(desk.folder(), "cp1", CP1);
        std::fs::copy(cp1.login(), desk.path("key")).unwrap();
        desk.write("known_hosts", &cp1.known());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let objects = Objects::default();
        let mesos = runtime.block_on(async {
            components::answer(&cp1, &objects, &Etcd::default());
            master().await
        });
        World { cp1, objects, desk, mesos, runtime }
    }

    /// Runs the real `kmctl` to its end.
    pub fn kmctl(&self, arguments: &[&str]) -> Transcript {
        self.desk.kmctl(arguments)
    }
}

/// A Mesos with two agents that asks everybody for the secret of the principal `demo`.
pub async fn master() -> FakeMaster {
    master_with(&["agent1", "agent2"]).await
}

/// The same with agents of these names.
pub async fn master_with(agents: &[&str]) -> FakeMaster {
    let deadline = Instant::now() + Duration::from_secs(10);
    let master = loop {
        let options = Options {
            listen: (MASTER, 5050).into(),
            authentication: Authentication::Basic { principal: "demo".to_owned(), secret: Secret::new(SECRET) },
            authenticate_readers: true,
            ..Options::default()
        };
        match FakeMaster::start(options).await {
            Ok(master) => break master,
            // The one before is about to end.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for agent in agents {
        master.add_agent(AgentSpec::new(agent, 4.0, 8192.0));
    }
    master
}

/// Moves this thread, and what it starts from now on, into a network of its own, where all that is said to these
/// addresses stays on this machine.
pub fn network(addresses: impl IntoIterator<Item = Ipv4Addr>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).expect("it runs as root");
    // Messages tell where kmctl runs.
    nix::unistd::sethostname("desk").unwrap();
    ip(&["link", "set", "lo", "up"]);
    for address in addresses {
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(done.success(), "ip {}", arguments.join(" "));
}
