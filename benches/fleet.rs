//! How `kmctl` itself takes more hosts: looking, planning and carrying out with 200 hosts against 50, and how much memory
//! that takes. Prints a JSON line per figure.
//!
//! The hosts are simulated: each answers after the time that a round trip and the transfer take, and costs the machine
//! nothing meanwhile. Everything on kmctl's side of a connection is real. Each host lacks a program and has an older
//! file. Limits grow with the hosts, so that what is left is kmctl's own time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made is no figure")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kmctl::apply::{HostState, Limits, Member, Verified, Work, run};
use kmctl::host::fake::told;
use kmctl::host::{Command, Host, HostError, Output, Stream};
use kmctl::inventory::look;
use kmctl::plan::{Inputs, PlanContext, decide, desired};
use kmctl_core::bundle::{Bundle, create, hex_digest, required};
use kmctl_core::cluster::Cluster;
use kmctl_core::progress::Progress;
use kmctl_core::protocol::host::{
    EtcdData, Event, FORMAT, FileSpec, HostManifest, Item, LockOwner, Observation, Observations, Observed, Ownership,
    ProgramSpec,
};
use tokio::sync::{Semaphore, mpsc};

mod figures;

const FEW: usize = 50;
const MANY: usize = 200;

/// Few and many take turns, so that what else the machine does meets both.
const ROUNDS: usize = 9;

/// What a command takes on its way and on the host.
const LATENCY: Duration = Duration::from_millis(50);

/// What a host takes in, in bytes per second.
const RATE: f64 = 20e6;

/// Of the program that every host lacks; random, so that it is as large on its way.
const PROGRAM: usize = 1 << 20;

/// Of so many hosts one is sent files at a time, and two are connected to at a time.
const PER_UPLOAD: usize = 10;

/// What is lacking, and what is older.
const LACKING: &str = "/bin/etcdctl";
const OLDER: &str = "/etc/kmctl/scheduler.yaml";

/// MiB that kmctl may take.
const ALLOWED: f64 = 200.0;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        few.push(runtime.block_on(up(folder.path(), &bundle, FEW)));
        many.push(runtime.block_on(up(folder.path(), &bundle, MANY)));
    }
    let name = format!("fleet: look, plan and change, {MANY} simulated hosts against {FEW}");
    figures::print(&name, many, few, "s");
    let name = format!("fleet: memory at most, {MANY} simulated hosts, against what is allowed");
    figures::compare(&name, figures::most_memory("self"), ALLOWED, "MiB");
}

fn bundle(folder: &Path) -> Arc<Bundle> {
    let source = folder.join("programs");
    for part in ["bin", "cni"] {
        std::fs::create_dir_all(source.join(part)).unwrap();
    }
    for path in required() {
        let mut bytes = vec![0; if path.starts_with("bin/") { PROGRAM } else { 16 }];
        std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
        std::fs::write(source.join(path), bytes).unwrap();
    }
    let path = folder.join("kubernetes.bundle");
    create(&source, "v1.37.2", "amd64", &path, |_| ()).unwrap();
    Arc::new(Bundle::open(&path).unwrap())
}

/// What `kmctl up` does once it is connected; seconds.
async fn up(folder: &Path, bundle: &Arc<Bundle>, count: usize) -> f64 {
    let (cluster, inputs) = (cluster(count), inputs(bundle));
    let limits = Limits {
        connections: Arc::new(Semaphore::new(2 * count / PER_UPLOAD)),
        uploads: Arc::new(Semaphore::new(count / PER_UPLOAD)),
    };
    let km = km(folder);
    let work = Work {
        bundle: Some(bundle.clone()),
        secrets: BTreeMap::new(),
        km: km.clone(),
        cluster_id: "1".to_owned(),
        begin_anew: false,
        holder: LockOwner::default(),
        progress: Progress::silent(),
        limits,
        verified: Arc::new(Verified::default()),
    };
    let began = Instant::now();
    let hosts = &cluster.spec.control_plane.hosts;
    let looks = hosts.iter().map(|spec| {
        let manifest = desired(&cluster, spec, &inputs).unwrap();
        let host: Arc<dyn Host> = Arc::new(SimulatedHost { name: spec.name.clone(), km: km.1.clone() });
        tokio::spawn(async move {
            let found = look(host.as_ref(), &manifest).await.unwrap();
            (host, manifest, found)
        })
    });
    let mut seen = Vec::new();
    for look in looks.collect::<Vec<_>>() {
        seen.push(look.await.unwrap());
    }
    let found: Vec<_> = seen.iter().map(|(_, manifest, found)| (manifest.clone(), found.clone())).collect();
    let plan = decide(&found, &km.1, &PlanContext::default()).unwrap();
    let members =
        seen.into_iter().zip(plan.hosts).map(|((host, manifest, found), plan)| Member { host, manifest, found, plan });
    let report = run(members.collect(), Vec::new(), Vec::new(), &work).await;
    let took = began.elapsed().as_secs_f64();
    let done = report.hosts.iter().filter(|host| host.state == HostState::Done).count();
    assert_eq!(done, count, "{:?}", report.hosts.iter().find(|host| host.error.is_some()));
    took
}

fn km(folder: &Path) -> (std::path::PathBuf, String) {
    (folder.join("km"), hex_digest(&mut &b"the program"[..]).unwrap().0)
}

fn inputs(bundle: &Bundle) -> Inputs {
    let (bundle, bundle_text) = (bundle.manifest().clone(), bundle.manifest_text().to_owned());
    Inputs { bundle, bundle_text, mesos_secret: None, mesos_authority: None }
}

fn cluster(count: usize) -> Cluster {
    let mut hosts = String::new();
    for number in 1..=count {
        let _ = writeln!(hosts, "    - {{ address: 192.0.2.{number}, name: cp{number} }}");
    }
    let text = format!(
        "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  mesos: {{ master: \
         '192.0.2.250:5050', frameworkName: kubernetes-demo }}\n  controlPlane:\n    endpoint: '192.0.2.1:6443'\n    \
         hosts:\n{hosts}"
    );
    serde_yaml::from_str(&text).unwrap()
}

struct SimulatedHost {
    name: String,
    /// sha256 of the km that is installed.
    km: String,
}

impl SimulatedHost {
    fn answer(&self, command: &Command, input: &[u8]) -> Output {
        let line = command.argv.join(" ");
        let stdout = if line.contains("host inspect") {
            serde_json::to_vec(&self.observations(&serde_json::from_slice(input).unwrap())).unwrap()
        } else if line.contains("host apply") {
            let mut line = serde_json::to_vec(&Event::Finished { changed: 2, unchanged: 0 }).unwrap();
            line.push(b'\n');
            line
        } else {
            panic!("a simulated host knows nothing of {line}");
        };
        Output { status: 0, stdout, stderr: Vec::new() }
    }

    fn observations(&self, manifest: &HostManifest) -> Observations {
        let items = manifest.items.iter().map(|item| {
            let observed = match item {
                Item::Program(ProgramSpec { path, .. }) if path.ends_with(LACKING) => Observed::Missing,
                Item::File(FileSpec { path, .. }) if path == OLDER => {
                    Observed::Different { why: vec!["its content differs".to_owned()], current: None, content: None }
                }
                _ => Observed::Same,
            };
            Observation { name: item.name(), observed, unit: None }
        });
        Observations {
            format: FORMAT,
            hostname: self.name.clone(),
            km: Some(self.km.clone()),
            ownership: Ownership::default(),
            etcd_data: EtcdData::default(),
            lock: None,
            versions: vec![manifest.version.clone()],
            members: Vec::new(),
            founder: None,
            items: items.collect(),
        }
    }
}

#[async_trait]
impl Host for SimulatedHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, command: Command) -> Result<Output, HostError> {
        tokio::time::sleep(LATENCY).await;
        Ok(self.answer(&command, &command.stdin))
    }

    async fn run_lines(&self, command: Command, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        let output = self.run(command).await?;
        Ok(told(output, &lines).await)
    }

    async fn run_with_input(
        &self,
        command: Command,
        mut source: Box<dyn Read + Send>,
        sent: mpsc::Sender<u64>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError> {
        let (mut chunk, mut total) = (vec![0; 1 << 15], 0);
        // As large as SSH's packets; what has passed is not kept.
        loop {
            let count = source.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            total += count as u64;
            let _ = sent.try_send(total);
        }
        tokio::time::sleep(LATENCY + Duration::from_secs_f64(total as f64 / RATE)).await;
        let output = self.answer(&command, &[]);
        Ok(told(output, &lines).await)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Stream>, HostError> {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        Err(HostError::Connect { address: address.to_string(), source })
    }
}
