//! How long `kmctl` takes with hosts, compared with the least that SSH takes. Prints a JSON line per figure.
//!
//! **Nothing to do**: against one `ssh` with one command per host. **From nothing**: against the same bytes through one
//! `ssh` per host. Units start at once here, so no time of theirs is in either figure. And what memory that took.
//!
//! Ten hosts on this machine: real sshd, real `km host`, systemd and the control plane's answers as in `tests/cli`. A
//! relay in front of every sshd adds 20 ms to each round trip; what TCP itself needs to connect is not delayed.
#![allow(dead_code, reason = "the fixtures are shared with tests/cli, which uses more of them")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made is no figure")]

use std::fmt::Write as _;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[path = "../tests/cli/components.rs"]
mod components;
mod figures;
#[path = "../tests/fixture/mod.rs"]
mod fixture;
#[path = "../tests/cli/machine.rs"]
mod machine;
#[path = "../tests/cli/transcript.rs"]
mod transcript;
#[path = "../tests/cli/world.rs"]
mod world;

use components::{Etcd, Objects};
use machine::Machine;
use world::Desk;

const HOSTS: u8 = 10;

/// How many of them are installed from nothing.
const FEW: u8 = 3;

/// What the bundle weighs.
const RANDOM_MIB: u64 = 96;

/// MiB that kmctl may take.
const ALLOWED: f64 = 200.0;

/// Installing takes its time.
const FRESH_ROUNDS: usize = 5;

/// Half of what is added to a round trip.
const ONE_WAY: Duration = Duration::from_millis(10);

/// Where the relays listen.
const RELAY: u16 = 2222;

/// Ours and theirs take turns, so that what else the machine does meets both.
const ROUNDS: usize = 9;

fn main() {
    world::network((0..HOSTS).map(address).chain([world::MASTER]));
    let desk = Desk::new();
    let program = std::fs::File::create(desk.path("programs/bin/kube-apiserver")).unwrap();
    fill(program, &mut std::fs::File::open("/dev/urandom").unwrap().take(RANDOM_MIB << 20));
    desk.bundle();
    let machines: Vec<Machine> =
        (0..HOSTS).map(|index| Machine::start(desk.folder(), &name(index), address(index))).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _mesos = runtime.block_on(async {
        let (objects, etcd) = (Objects::default(), Etcd::default());
        for machine in &machines {
            components::answer(machine, &objects, &etcd);
            let listener = TcpListener::bind((machine.address, RELAY)).await.unwrap();
            tokio::spawn(relay(listener, machine.address));
        }
        world::master().await
    });
    let mut known = String::new();
    for (index, machine) in (0..HOSTS).zip(&machines) {
        known.push_str(&machine.known());
        std::fs::copy(machine.login(), desk.path(&format!("key-{}", name(index)))).unwrap();
        let _ = writeln!(known, "[{}]:{RELAY} {}", machine.address, machine.host_key());
    }
    desk.write("known_hosts", &known);
    desk.write("near.yaml", &cluster(22, HOSTS));
    desk.write("far.yaml", &cluster(RELAY, HOSTS));
    desk.write("few.yaml", &cluster(22, FEW));
    from_nothing(&desk);
    nothing_to_do(&desk);
}

fn nothing_to_do(desk: &Desk) {
    let installed = desk.kmctl(&["up", "-f", "near.yaml"]);
    assert_eq!(installed.code, 0, "{installed}");
    // `up` also asks Mesos how many agents fit, through one of the hosts.
    for command in ["plan", "up"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let run = desk.kmctl(&[command, "-f", "far.yaml"]);
            ours.push(began.elapsed().as_secs_f64());
            assert!(run.code == 0 && run.to_string().contains("nothing to do"), "{run}");
            theirs.push(ssh(desk, RELAY, HOSTS, "true", None));
        }
        figures::print(&format!("provision: {command}, nothing to do, {HOSTS} hosts, 20 ms"), ours, theirs, "s");
    }
}

fn from_nothing(desk: &Desk) {
    let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), None);
    // What a host is sent: the bundle, packed as it is, and km.
    let open = |path: &Path| std::fs::File::open(path).unwrap();
    let (bundle, km) = (open(&desk.path("kubernetes.bundle")), open(Path::new(env!("CARGO_BIN_EXE_km"))));
    fill(std::fs::File::create(desk.path("bytes")).unwrap(), &mut bundle.chain(km));
    for _ in 0..FRESH_ROUNDS {
        let began = Instant::now();
        let run = desk.kmctl(&["up", "-f", "few.yaml"]);
        ours.push(began.elapsed().as_secs_f64());
        assert_eq!(run.code, 0, "{run}");
        peak.get_or_insert_with(largest_child);
        let purged = desk.kmctl(&["down", "-f", "few.yaml", "--purge=demo"]);
        assert_eq!(purged.code, 0, "{purged}");
        theirs.push(ssh(desk, 22, FEW, "cat >/usr/local/bytes", Some("bytes")));
    }
    let name = format!("provision: up, from nothing, {FEW} hosts, {RANDOM_MIB} MiB that cannot be packed");
    figures::print(&name, ours, theirs, "s");
    let name = "provision: memory at most, up from nothing, against what is allowed";
    figures::compare(name, peak.unwrap(), ALLOWED, "MiB");
}

/// Not by way of this process's memory: what a program is started from counts as that program's.
fn fill(mut file: std::fs::File, from: &mut dyn Read) {
    std::io::copy(from, &mut file).unwrap();
}

/// MiB that the largest program had in memory that this one has started and that has ended: after `up` at least what that
/// took, since the others are small.
fn largest_child() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    usage.max_rss() as f64 / 1024.0
}

fn address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 11 + index)
}

fn name(index: u8) -> String {
    format!("cp{}", index + 1)
}

/// cluster.yaml with the first hosts at an SSH port.
fn cluster(port: u16, count: u8) -> String {
    let mut hosts = String::new();
    for index in 0..count {
        let (address, name) = (address(index), name(index));
        let _ = writeln!(hosts, "      - {{ address: {address}, name: {name}, ssh: {{ identityFile: key-{name} }} }}");
    }
    format!(
        "apiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  \
         mesos: {{ master: '10.0.0.5:5050', principal: demo, secretFile: mesos-secret }}\n  ssh: {{ knownHosts: known_hosts, port: {port} }}\n  \
         controlPlane:\n    endpoint: 10.0.0.11:6443\n    hosts:\n{hosts}  \
         kubernetes: {{ version: v1.37.2 }}\n  bundle: kubernetes.bundle\n"
    )
}

/// One `ssh` with one command per host, all at once, that reads a file: seconds until the last has ended.
fn ssh(desk: &Desk, port: u16, hosts: u8, command: &str, input: Option<&str>) -> f64 {
    let began = Instant::now();
    let input = || input.map_or(Stdio::null(), |file| std::fs::File::open(desk.path(file)).unwrap().into());
    let clients: Vec<_> = (0..hosts)
        .map(|index| {
            Command::new("ssh")
                .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-p", &port.to_string(), "-o"])
                .arg(format!("UserKnownHostsFile={}", desk.path("known_hosts").display()))
                .arg("-i")
                .arg(desk.path(&format!("key-{}", name(index))))
                .args([&format!("root@{}", address(index)), command])
                .stdin(input())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut client in clients {
        assert!(client.wait().unwrap().success(), "ssh has failed");
    }
    began.elapsed().as_secs_f64()
}

/// Passes connections on to the sshd of the same address.
async fn relay(listener: TcpListener, address: Ipv4Addr) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let far = TcpStream::connect((address, 22)).await.unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::join!(delayed(near_read, far_write), delayed(far_read, near_write));
        });
    }
}

/// Passes bytes on, each some time after it came; more of them can be on their way.
async fn delayed(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut receiver) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if sender.send((tokio::time::Instant::now() + ONE_WAY, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The other end may have gone first.
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
