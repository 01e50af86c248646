//! Whole runs on a simulated fleet: every host is a directory with the real `km host` in it, slowed down and killed as
//! a test requires. Time is virtual.
use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::host::fake::told;
use crate::host::{Command, HostError, Output, Stream};
use crate::inventory::look;
use crate::plan::{Inputs, PlanContext, decide, desired};
use km::host::{Action as Verb, Killed, Root, perform, status_of};
use kmctl_core::bundle::Bundle;
use kmctl_core::cluster::Cluster;
use kmctl_core::pki::Certificate;
use kmctl_core::progress::Progress;
use kmctl_core::protocol::host::{KM, LockOwner, ProgramSpec};

/// How many durable steps all hosts together may still make before everything is killed.
struct Fuel(AtomicU32);

impl Fuel {
    fn unlimited() -> Arc<Fuel> {
        Arc::new(Fuel(AtomicU32::new(u32::MAX)))
    }
}

struct SimHost {
    name: String,
    folder: PathBuf,
    /// For each command.
    latency: Duration,
    /// For each KiB of input.
    per_kib: Duration,
    fuel: Arc<Fuel>,
}

fn broken() -> HostError {
    HostError::Broken { what: "run".to_owned(), source: std::io::ErrorKind::ConnectionReset.into() }
}

impl SimHost {
    fn local(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    async fn pass(&self, input: &[u8]) {
        let kib = u32::try_from(input.len().div_ceil(1024)).unwrap();
        tokio::time::sleep(self.latency + self.per_kib * kib).await;
    }

    /// The real binary on the host's directory. It is killed when the fuel is used up.
    fn km(&self, verb: Verb, input: &[u8]) -> Result<Output, HostError> {
        let before = self.fuel.0.load(Ordering::SeqCst);
        if before == 0 {
            return Err(broken());
        }
        let root = Root::simulated(&self.folder, before - 1);
        let mut stdout = Vec::new();
        let ended = catch_unwind(AssertUnwindSafe(|| perform(verb, &root, &mut &input[..], &mut stdout)));
        match ended {
            Err(reason) => {
                assert!(reason.is::<Killed>(), "km host panicked");
                self.fuel.0.store(0, Ordering::SeqCst);
                Err(broken())
            }
            Ok(outcome) => {
                if before != u32::MAX {
                    self.fuel.0.store(root.steps_left() + 1, Ordering::SeqCst);
                }
                let status = outcome.as_ref().err().map_or(0, |error| i32::from(status_of(error)));
                let stderr = outcome.err().map(|error| error.to_string()).unwrap_or_default().into_bytes();
                Ok(Output { status, stdout, stderr })
            }
        }
    }

    fn answer(&self, command: &Command, input: &[u8]) -> Result<Output, HostError> {
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        let text = |text: String| Ok(Output { stdout: text.into_bytes(), ..Output::default() });
        match argv.as_slice() {
            [KM, "host", "apply"] => self.km(Verb::Apply, input),
            [KM, "host", "export"] => self.km(Verb::Export, input),
            // What the shell finds where there is no km.
            ["sh", "-c", script, "sh", km, paths @ ..] if script.contains("host inspect") => {
                if *km == KM && self.local(KM).exists() {
                    return self.km(Verb::Inspect, input);
                }
                let there: Vec<&str> = paths.iter().copied().filter(|path| self.local(path).exists()).collect();
                text(format!("bare\n{}\n", there.join("\n")))
            }
            ["sh", "-c", script, "sh", path, _] if script.contains("kmctl-new") => {
                let path = self.local(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, input).unwrap();
                text(String::new())
            }
            _ => panic!("a simulated host knows nothing of {argv:?}"),
        }
    }
}

#[async_trait]
impl Host for SimHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, command: Command) -> Result<Output, HostError> {
        self.pass(&[]).await;
        self.answer(&command, &command.stdin)
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
        let mut input = Vec::new();
        source.read_to_end(&mut input).unwrap();
        self.pass(&input).await;
        let _ = sent.try_send(input.len() as u64);
        let output = self.answer(&command, &input)?;
        Ok(told(output, &lines).await)
    }

    async fn dial(&self, _: SocketAddr) -> Result<Box<dyn Stream>, HostError> {
        Err(broken())
    }
}

/// The hosts and the operator's files.
struct Fleet {
    folder: TempDir,
    cluster: Cluster,
    inputs: Inputs,
    work: Work,
}

/// The network delay of a host.
const LATENCY: Duration = Duration::from_millis(20);

impl Fleet {
    fn new(hosts: usize) -> Fleet {
        // In memory if possible: every durable step waits for the disk, and there are tens of thousands.
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(place).unwrap();
        let source = folder.path().join("source");
        for part in ["bin", "cni", "images"] {
            std::fs::create_dir_all(source.join(part)).unwrap();
        }
        for path in kmctl_core::bundle::required() {
            // Random, so that packing does not shrink it.
            let mut bytes = vec![0; 40_000];
            StdRng::seed_from_u64(path.len() as u64).fill(&mut bytes[..]);
            std::fs::write(source.join(path), bytes).unwrap();
        }
        let path = folder.path().join("kubernetes.bundle");
        kmctl_core::bundle::create(&source, "v1.37.2", "amd64", &path, |_| ()).unwrap();
        let bundle = Arc::new(Bundle::open(&path).unwrap());
        let km = folder.path().join("km");
        std::fs::write(&km, "the program").unwrap();
        let sha256 = kmctl_core::bundle::hex_digest(&mut &b"the program"[..]).unwrap().0;
        let listed: String =
            (1..=hosts).map(|at| format!("    - {{ address: 192.0.2.{at}, name: cp{at} }}\n")).collect();
        let text = format!(
            "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  mesos: {{ master: \
             '192.0.2.5:5050', frameworkName: kubernetes-demo }}\n  controlPlane:\n    endpoint: '192.0.2.1:6443'\n    \
             hosts:\n{listed}"
        );
        let inputs = Inputs {
            bundle: bundle.manifest().clone(),
            bundle_text: bundle.manifest_text().to_owned(),
            mesos_secret: None,
            mesos_authority: None,
        };
        let work = Work {
            bundle: Some(bundle),
            secrets: BTreeMap::new(),
            km: (km, sha256),
            cluster_id: "1".to_owned(),
            begin_anew: false,
            holder: LockOwner::default(),
            progress: Progress::silent(),
            limits: crate::apply::Limits::default(),
            verified: Arc::default(),
        };
        Fleet { folder, cluster: serde_yaml::from_str(&text).unwrap(), inputs, work }
    }

    fn root(&self, name: &str) -> PathBuf {
        let root = self.folder.path().join("hosts").join(name);
        std::fs::create_dir_all(&root).unwrap();
        root
    }

    fn host(&self, name: &str, slow: u32, fuel: &Arc<Fuel>) -> Arc<dyn Host> {
        Arc::new(SimHost {
            name: name.to_owned(),
            folder: self.root(name),
            latency: LATENCY * slow,
            per_kib: Duration::from_millis(2) * slow,
            fuel: fuel.clone(),
        })
    }

    fn manifest(&self, name: &str) -> HostManifest {
        let spec = self.cluster.spec.control_plane.hosts.iter().find(|host| host.name == name).unwrap();
        desired(&self.cluster, spec, &self.inputs).unwrap()
    }

    /// Inspects, plans and applies, as `kmctl up` does. `dead` hosts never answer, `slow` ones take five times as long.
    /// Returns `None` if a host died while it was inspected or if there is no plan.
    async fn up(&self, slow: &[&str], dead: &[&str], fuel: &Arc<Fuel>) -> Option<Report> {
        let all: Vec<String> = self.cluster.spec.control_plane.hosts.iter().map(|host| host.name.clone()).collect();
        let mut hosts = Vec::new();
        for name in all.iter().filter(|name| !dead.contains(&name.as_str())) {
            let slow = if slow.contains(&name.as_str()) { 5 } else { 1 };
            let (host, manifest) = (self.host(name, slow, fuel), self.manifest(name));
            let found = look(host.as_ref(), &manifest).await.ok()?;
            hosts.push((host, manifest, found));
        }
        let pairs: Vec<_> = hosts.iter().map(|(_, manifest, found)| (manifest.clone(), found.clone())).collect();
        let unseen = dead.iter().map(|name| (*name).to_owned()).collect();
        // The operator is sure that no cluster exists on the hosts that are away.
        let context = PlanContext { unseen, begin_anew: !dead.is_empty(), ..PlanContext::default() };
        let plan = decide(&pairs, &self.work.km.1, &context).ok()?;
        let cluster_id = plan.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let work = Work { cluster_id, begin_anew: plan.begin_anew, ..self.work.clone() };
        let members = hosts.into_iter().zip(plan.hosts).map(|((host, manifest, found), plan)| Member {
            host,
            manifest,
            found,
            plan,
        });
        let late = dead.iter().map(|name| {
            let host = (*name).to_owned();
            let error =
                ApplyError::Unreachable { host: host.clone(), source: HostError::Timeout(Duration::from_secs(10)) };
            Late {
                host,
                arrival: Box::pin(async move {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    Err(error)
                }),
            }
        });
        Some(run(members.collect(), late.collect(), Vec::new(), &work).await)
    }

    /// Every path of every host with its mode, and its digest unless the content is random.
    fn manifests(&self) -> BTreeMap<String, String> {
        let hosts = self.folder.path().join("hosts");
        let mut found = BTreeMap::new();
        let mut folders = vec![hosts.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let kind = std::fs::symlink_metadata(&path).unwrap();
                let name = path.strip_prefix(&hosts).unwrap().to_string_lossy().into_owned();
                let mode = kind.permissions().mode();
                if kind.is_dir() {
                    folders.push(path);
                    found.insert(name, format!("{mode:o}"));
                } else {
                    found.insert(name.clone(), format!("{mode:o} {}", content(&path, &name)));
                }
            }
        }
        found
    }

    fn read(&self, host: &str, path: &str) -> String {
        std::fs::read_to_string(self.root(host).join(path)).unwrap_or_default()
    }
}

fn content(path: &Path, name: &str) -> String {
    let bytes = std::fs::read(path).unwrap();
    if let Ok(certificate) = Certificate::parse(&String::from_utf8_lossy(&bytes)) {
        return format!("{} by {}", certificate.common_name, certificate.issuer);
    }
    // Keys, files that embed them or are derived from them, random ids, and the lock, which names a process.
    let random = [
        ".key",
        ".pub",
        ".conf",
        "encryption.yaml",
        "lock",
        "digests.json",
        "host.json",
        "kmctl-data-id",
        "etcd-data.json",
    ];
    if random.iter().any(|end| name.ends_with(end)) || name.contains("/units/") {
        return "made here".to_owned();
    }
    hex::encode(Sha256::digest(bytes))
}

fn finished(report: &Report) -> BTreeMap<&str, (HostState, Duration)> {
    report.hosts.iter().map(|one| (one.host.as_str(), (one.state.clone(), one.took))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_and_a_dead_host_among_five_keep_nobody() {
    let alone = Fleet::new(5);
    let without = alone.up(&[], &["cp4", "cp5"], &Fuel::unlimited()).await.unwrap();
    let fleet = Fleet::new(5);
    let report = fleet.up(&["cp4"], &["cp5"], &Fuel::unlimited()).await.unwrap();
    let (undisturbed, finished) = (finished(&without), finished(&report));
    for name in ["cp1", "cp2", "cp3"] {
        let (before, now) = (&undisturbed[name], &finished[name]);
        assert_eq!((&before.0, &now.0), (&HostState::Done, &HostState::Done), "{name}");
        assert!(now.1 <= before.1.mul_f64(1.1), "{name} took {:?} instead of {:?}", now.1, before.1);
    }
    assert_eq!(finished["cp4"].0, HostState::Done);
    assert_eq!(finished["cp5"].0, HostState::Failed);
    let error = report.hosts.iter().find_map(|host| host.error.as_ref()).unwrap();
    assert_eq!(error.to_string(), "failed to connect to cp5 over SSH");
}

#[tokio::test(start_paused = true)]
async fn a_second_run_finds_nothing_to_do_on_any_host() {
    let fleet = Fleet::new(3);
    fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
    let before = fleet.manifests();
    let report = fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
    assert!(report.hosts.iter().all(|host| host.state == HostState::Unchanged), "{report:?}");
    assert_eq!(report.critical_path, None);
    assert_eq!(fleet.manifests(), before);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_does_not_match_its_manifest_changes_no_host() {
    let fleet = Fleet::new(3);
    let path = fleet.folder.path().join("kubernetes.bundle");
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"bin/kube-scheduler.gz";
    let header = bytes.windows(name.len()).position(|window| window == name).unwrap();
    // Behind a tar header of 512 bytes, in the middle of the binary.
    bytes[header + 512 + 20_000] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let report = fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
    assert!(report.hosts.iter().all(|host| host.state == HostState::Failed), "{report:?}");
    let found = fleet.manifests();
    assert!(found.keys().all(|path| !path.contains('/')), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn one_host_begins_etcd_and_all_share_their_keys() {
    let fleet = Fleet::new(3);
    fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
    one_cluster(&fleet, 3);
}

/// Asserts that there is one etcd member per host, that one of them bootstrapped the cluster, and that all have the
/// same authorities.
fn one_cluster(fleet: &Fleet, hosts: usize) {
    let names: Vec<String> = (1..=hosts).map(|at| format!("cp{at}")).collect();
    let begun =
        names.iter().filter(|name| fleet.read(name, "etc/kubernetes/etcd-initial.env").contains("STATE=new")).count();
    assert_eq!(begun, 1);
    for path in ["etc/kubernetes/pki/ca.crt", "etc/kubernetes/pki/sa.key", "etc/kubernetes/encryption.yaml"] {
        let all: BTreeSet<String> = names.iter().map(|name| fleet.read(name, path)).collect();
        assert_eq!(all.len(), 1, "{path} differs between hosts");
        assert!(!all.contains(""), "{path} is missing");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_killed_at_fifty_points_is_finished_by_the_next_run() {
    let undisturbed = Fleet::new(3);
    let counted = Arc::new(Fuel(AtomicU32::new(u32::MAX - 1)));
    undisturbed.up(&[], &[], &counted).await.unwrap();
    let steps = u32::MAX - 1 - counted.0.load(Ordering::SeqCst);
    let expected = undisturbed.manifests();
    assert!(steps > 300, "only {steps} durable steps");
    let mut dice = StdRng::seed_from_u64(20_261_124);
    for _ in 0..50 {
        let point = dice.random_range(1..steps);
        let fleet = Fleet::new(3);
        let killed = Arc::new(Fuel(AtomicU32::new(point)));
        let report = fleet.up(&[], &[], &killed).await.unwrap();
        assert!(report.hosts.iter().any(|host| host.state == HostState::Failed), "nobody was killed at {point}");
        let report = fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
        for host in &report.hosts {
            assert!(host.error.is_none(), "after {point} steps: {:?}", host.error);
        }
        one_cluster(&fleet, 3);
        assert_eq!(fleet.manifests(), expected, "after {point} steps");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_killed_and_see_different_hosts_never_begin_two_clusters() {
    let mut dice = StdRng::seed_from_u64(20_261_127);
    let mut refused = 0;
    for _ in 0..50 {
        let fleet = Fleet::new(3);
        let mut story = Vec::new();
        for _ in 0..4 {
            let dead = format!("cp{}", dice.random_range(1..=3));
            let point = dice.random_range(1..500);
            let killed = Arc::new(Fuel(AtomicU32::new(point)));
            let ran = fleet.up(&[], &[&dead], &killed).await.is_some();
            refused += u32::from(!ran);
            story.push((dead, point, ran));
        }
        let report = fleet.up(&[], &[], &Fuel::unlimited()).await;
        let report = report.unwrap_or_else(|| panic!("no plan in the end, after {story:?}"));
        for host in &report.hosts {
            assert!(host.error.is_none(), "after {story:?}: {:?}", host.error);
        }
        one_cluster(&fleet, 3);
    }
    assert!(refused > 0, "no founder was ever away");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_dead_at_first_joins_with_the_keys_of_the_others() {
    let fleet = Fleet::new(3);
    fleet.up(&[], &["cp1"], &Fuel::unlimited()).await.unwrap();
    let report = fleet.up(&[], &[], &Fuel::unlimited()).await.unwrap();
    assert_eq!(finished(&report)["cp1"].0, HostState::Done);
    one_cluster(&fleet, 3);
    assert!(fleet.read("cp2", "etc/kubernetes/etcd-initial.env").contains("STATE=new"));
}

/// Names of a part's binaries and of what it starts and waits for, in their order.
fn order(manifest: &HostManifest, stage: Stage, begins: bool) -> Vec<String> {
    let items = part(manifest, stage, true, begins).items;
    let told = items.iter().filter_map(|item| match item {
        Item::Program(ProgramSpec { path, .. }) => path.rsplit_once('/').map(|(_, name)| name.to_owned()),
        Item::Unit(_) | Item::Health(_) => Some(item.name()),
        _ => None,
    });
    told.collect()
}

#[test]
fn where_a_cluster_begins_programs_come_while_etcd_and_the_api_server_start() {
    let manifest = Fleet::new(1).manifest("cp1");
    assert_eq!(order(&manifest, Stage::Prepare, true), ["etcd"]);
    let etcd = order(&manifest, Stage::Etcd, true);
    let others = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    assert_eq!(etcd, [&["etcd.service"], &others[..], &["etcd is healthy"]].concat());
    let serve = order(&manifest, Stage::Serve, true);
    assert_eq!(serve[..2], ["kube-apiserver.service", "etcdctl"]);
    let healthy = serve.iter().position(|name| name == "kube-apiserver is healthy").unwrap();
    let kubelet = serve.iter().position(|name| name == "kubelet").unwrap();
    assert!(kubelet < healthy, "{serve:?}");
    let sent: usize = [Stage::Prepare, Stage::Etcd, Stage::Serve]
        .iter()
        .flat_map(|stage| part(&manifest, *stage, true, true).items)
        .filter(|item| matches!(item, Item::Program(_)))
        .count();
    assert_eq!(sent, 15, "each file comes once");
}

#[test]
fn where_others_rely_on_a_host_all_programs_come_before_anything_restarts() {
    let manifest = Fleet::new(1).manifest("cp1");
    assert_eq!(order(&manifest, Stage::Prepare, false).len(), 15);
    for stage in [Stage::Etcd, Stage::Serve] {
        assert!(!part(&manifest, stage, true, false).items.iter().any(|item| matches!(item, Item::Program(_))));
    }
}
