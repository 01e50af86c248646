//! `km host apply`, killed at every step in a private root: the next run ends with the same result as one that was
//! never disturbed.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the failure")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use flate2::{Compression, write::GzEncoder};
use kmctl::plan::{Inputs, desired};
use kmctl_core::bundle::{BundleFile, Manifest, Purpose, hex_digest};
use kmctl_core::cluster::Cluster;
use kmctl_core::pki;
use kmctl_core::protocol::host::{
    EtcdBootstrap, EtcdStart, Header, HostMark, Item, LockOwner, MARK_FORMAT, MarkClaim, Payload, ProgramSpec,
};
use sha2::{Digest, Sha256};

const CLUSTER: &str = "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata: { name: demo }
spec:
  mesos: { master: '192.0.2.5:5050', principal: demo, secretFile: secret, frameworkName: kubernetes-demo }
  controlPlane: { endpoint: '192.0.2.11:6443', hosts: [{ address: 192.0.2.11, name: cp1 }] }
";

const PROGRAMS: [&str; 4] = ["bin/etcd", "bin/kube-apiserver", "bin/kubelet", "images/pause.tar"];

/// The real manifest of a host, with small programs, as one stream.
fn stream() -> Vec<u8> {
    let cluster: Cluster = serde_yaml::from_str(CLUSTER).unwrap();
    let mut files = Vec::new();
    let mut packed = BTreeMap::new();
    for path in PROGRAMS {
        let bytes = path.repeat(1000).into_bytes();
        let (sha256, size) = hex_digest(&mut &bytes[..]).unwrap();
        files.push(BundleFile {
            path: path.to_owned(),
            sha256,
            size,
            packed_sha256: None,
            purposes: vec![Purpose::Node],
            images: vec![],
        });
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes).unwrap();
        packed.insert(path.to_owned(), encoder.finish().unwrap());
    }
    let bundle = Manifest {
        format: 1,
        kubernetes: "v1.37.2".to_owned(),
        architecture: "amd64".to_owned(),
        components: Vec::new(),
        files,
    };
    let bundle_text = serde_json::to_string(&bundle).unwrap();
    let (secret, _) = hex_digest(&mut &b"s3cret"[..]).unwrap();
    let inputs = Inputs { bundle, bundle_text, mesos_secret: Some(secret), mesos_authority: None };
    let manifest = desired(&cluster, &cluster.spec.control_plane.hosts[0], &inputs).unwrap();
    let mut payload = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    for item in &manifest.items {
        let Item::Program(ProgramSpec { path, .. }) = item else { continue };
        // Below a folder of the version, or of etcd's own.
        let (_, name) = path.strip_prefix("/usr/local/lib/kmctl/").unwrap().split_once('/').unwrap();
        payload.push(Payload { path: path.clone(), packed: packed[name].len() as u64 });
        bytes.extend(&packed[name]);
    }
    let mark = HostMark {
        format: MARK_FORMAT,
        cluster: manifest.cluster.clone(),
        id: "1".to_owned(),
        member: manifest.host.clone(),
    };
    let header = Header {
        units: manifest.units(),
        mark: MarkClaim { mark, instead_of: None },
        manifest,
        payload,
        secrets: BTreeMap::from([("/etc/kmctl/mesos-secret".to_owned(), "czNjcmV0".to_owned())]),
        shared: BTreeMap::new(),
        etcd: EtcdBootstrap { start: Some(EtcdStart::Bootstrap), ..EtcdBootstrap::default() },
        holder: LockOwner::default(),
    };
    let mut all = header.to_bytes();
    all.extend(bytes);
    all
}

fn apply(root: &Path, stream: &[u8], stop_after: Option<u32>) -> (ExitStatus, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_km"));
    command.args(["host", "apply", "--root"]).arg(root);
    if let Some(steps) = stop_after {
        command.args(["--stop-after", &steps.to_string()]);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // A process that ended early has not read everything.
    let _ = child.stdin.take().unwrap().write_all(stream);
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Every path with its mode, and its sha256 where nothing in it is made at random; certificates by subject and issuer.
fn result(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            let mode = kind.permissions().mode();
            if kind.is_dir() {
                folders.push(path);
                found.insert(name, format!("{mode:o}"));
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let shown = path.to_string_lossy().into_owned();
            let content = if let Ok(certificate) = pki::Certificate::parse(&text) {
                format!("{} by {}", certificate.common_name, certificate.issuer)
            } else if random(&shown) {
                "made here".to_owned()
            } else {
                format!("{:?}", Sha256::digest(std::fs::read(&path).unwrap()))
            };
            found.insert(name, format!("{mode:o} {content}"));
        }
    }
    found
}

/// Keys, what embeds or is derived from them, and what remembers inodes.
fn random(path: &str) -> bool {
    [".key", ".pub", ".conf", "encryption.yaml", "digests.json", "kmctl/lock", "kmctl-data-id", "etcd-data.json"]
        .iter()
        .any(|end| path.ends_with(end))
        || path.contains("/units/")
}

#[test]
fn a_run_that_was_killed_after_any_step_is_finished_by_the_next() {
    let stream = stream();
    let undisturbed = tempfile::tempdir().unwrap();
    let (status, error) = apply(undisturbed.path(), &stream, None);
    assert!(status.success(), "{error}");
    let expected = result(undisturbed.path());
    assert!(expected.len() > 50, "{expected:?}");
    let mut killed = 0;
    for steps in 0.. {
        let root = tempfile::tempdir().unwrap();
        let (status, _) = apply(root.path(), &stream, Some(steps));
        if status.success() {
            break;
        }
        assert_eq!(status.code(), None, "the process ended by itself after {steps} steps");
        killed += 1;
        let (status, error) = apply(root.path(), &stream, None);
        assert!(status.success(), "after {steps} steps: {error}");
        assert_eq!(result(root.path()), expected, "after {steps} steps");
    }
    assert!(killed > 100, "only {killed} steps were tried");
}

#[test]
fn a_second_run_writes_nothing() {
    let stream = stream();
    let root = tempfile::tempdir().unwrap();
    assert!(apply(root.path(), &stream, None).0.success());
    let inodes = |root: &Path| {
        use std::os::unix::fs::MetadataExt;
        let mut found = BTreeMap::new();
        for path in result(root).into_keys().filter(|path| !path.ends_with("lock")) {
            let seen = std::fs::metadata(root.join(&path)).unwrap();
            if seen.is_file() {
                found.insert(path, (seen.ino(), seen.mtime_nsec()));
            }
        }
        found
    };
    let before = inodes(root.path());
    assert!(apply(root.path(), &stream, None).0.success());
    assert_eq!(inodes(root.path()), before);
}

#[test]
fn a_run_whose_reader_is_gone_frees_the_host_while_it_waits() {
    let root = tempfile::tempdir().unwrap();
    let stream = stream();
    let mut child = Command::new(env!("CARGO_BIN_EXE_km"))
        .args(["host", "apply", "--root"])
        .arg(root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its last file never ends, so that it waits with the lock in its hands and reports nothing.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&stream[..stream.len() - 1]).unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = events.next().unwrap().unwrap();
    assert!(first.contains("\"event\""), "{first}");
    drop(events);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let status = end.recv_timeout(std::time::Duration::from_secs(30)).expect("it ends without a reader").unwrap();
    assert!(!status.success());
    drop(input);
    let (status, error) = apply(root.path(), &stream, None);
    assert!(status.success(), "{error}");
}
