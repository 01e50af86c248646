//! Applies manifests to private roots.
use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;

use flate2::{Compression, write::GzEncoder};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;
use crate::host::{observe, remove};
use kmctl_core::bundle::hex_digest;
use kmctl_core::pki::LeafSpec;
use kmctl_core::protocol::host::{
    AuthoritySpec, CertificateSpec, Change, DirectorySpec, EncryptionKeySpec, EtcdBootstrap, FileSpec, HostManifest,
    HostMark, KeyPairSpec, KubeconfigSpec, LockOwner, MARK_FORMAT, MarkClaim, Payload, ProgramSpec, Removal,
    RemoveRequest, SecretSpec, UnitSpec,
};

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    hex_digest(&mut &bytes[..]).unwrap().0
}

fn client() -> LeafSpec {
    LeafSpec { common_name: "admin".to_owned(), organization: None, names: Vec::new(), server: false, client: true }
}

fn directory(path: &str, mode: u32, data: bool) -> Item {
    Item::Directory(DirectorySpec { path: path.to_owned(), mode, data })
}

fn mark(id: &str) -> MarkClaim {
    let (cluster, id, member) = ("demo".to_owned(), id.to_owned(), "cp1".to_owned());
    MarkClaim { mark: HostMark { format: MARK_FORMAT, cluster, id, member }, instead_of: None }
}

fn header(text: &str, program: &[u8]) -> Header {
    let items = vec![
        directory("/etc/pki", 0o755, false),
        directory("/var/lib/kmctl/units", 0o700, true),
        directory("/lib", 0o755, false),
        Item::Program(ProgramSpec {
            path: "/lib/etcd".to_owned(),
            mode: 0o755,
            sha256: sha256(program),
            size: program.len() as u64,
        }),
        Item::Authority(AuthoritySpec { path: "/etc/pki/ca".to_owned(), common_name: "kubernetes".to_owned() }),
        Item::KeyPair(KeyPairSpec { path: "/etc/pki/sa".to_owned() }),
        Item::EncryptionKey(EncryptionKeySpec { path: "/etc/encryption.yaml".to_owned() }),
        Item::Certificate(CertificateSpec {
            path: "/etc/pki/leaf".to_owned(),
            authority: "/etc/pki/ca".to_owned(),
            leaf: client(),
        }),
        Item::Kubeconfig(KubeconfigSpec {
            path: "/etc/admin.conf".to_owned(),
            cluster: "demo".to_owned(),
            server: "https://192.0.2.1:6443".to_owned(),
            authority: "/etc/pki/ca".to_owned(),
            leaf: client(),
        }),
        Item::Secret(SecretSpec { path: "/etc/secret".to_owned(), sha256: Some(sha256(b"s3cret")) }),
        Item::File(FileSpec { path: "/etc/etcd.service".to_owned(), mode: 0o644, text: text.to_owned(), data: false }),
        Item::Unit(UnitSpec {
            name: "etcd.service".to_owned(),
            reads: vec!["/etc/etcd.service".to_owned(), "/lib/etcd".to_owned()],
        }),
    ];
    let manifest = HostManifest {
        format: FORMAT,
        cluster: "demo".to_owned(),
        host: "cp1".to_owned(),
        version: "v1.37.2".to_owned(),
        items,
    };
    Header {
        units: manifest.units(),
        manifest,
        mark: mark("1"),
        payload: Vec::new(),
        secrets: BTreeMap::from([("/etc/secret".to_owned(), BASE64_STANDARD.encode(b"s3cret"))]),
        shared: BTreeMap::new(),
        etcd: EtcdBootstrap::default(),
        holder: LockOwner::default(),
    }
}

/// The header followed by the packed program.
fn stream(mut header: Header, program: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(program).unwrap();
    let packed = packed.finish().unwrap();
    header.payload = vec![Payload { path: "/lib/etcd".to_owned(), packed: packed.len() as u64 }];
    let mut bytes = header.to_bytes();
    bytes.extend(packed);
    bytes
}

/// Applies a stream; returns the changed items.
fn run(root: &Path, bytes: &[u8]) -> Result<Vec<(String, Change)>, AgentError> {
    let mut out = Vec::new();
    let outcome = apply(&Root::new(root, None), &mut BufReader::new(bytes), &mut Reporter::new(&mut out), now());
    let changes = String::from_utf8(out)
        .unwrap()
        .lines()
        .filter_map(|line| match serde_json::from_str(line).unwrap() {
            Event::Done { item, change } if change.is_change() => Some((item, change)),
            _ => None,
        })
        .collect();
    outcome.map(|()| changes)
}

#[test]
fn what_was_applied_is_unchanged_the_second_time_even_if_it_is_sent_again() {
    let root = tempfile::tempdir().unwrap();
    let bytes = stream(header("one", b"program"), b"program");
    assert_eq!(run(root.path(), &bytes).unwrap().len(), 12);
    assert_eq!(run(root.path(), &bytes).unwrap(), []);
    let mut without = header("one", b"program");
    without.secrets.clear();
    let observed = observe::observe(&Root::new(root.path(), None), &without.manifest, now()).unwrap();
    assert!(observed.items.iter().all(|item| item.observed.is_same()), "{:?}", observed.items);
}

#[test]
fn a_changed_file_is_written_and_restarts_what_reads_it() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &stream(header("one", b"program"), b"program")).unwrap();
    let changes = run(root.path(), &header("two", b"program").to_bytes()).unwrap();
    let names: Vec<&str> = changes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["/etc/etcd.service", "etcd.service"]);
}

#[test]
fn a_file_that_is_put_back_in_one_part_restarts_in_another_what_may_have_read_it() {
    let root = tempfile::tempdir().unwrap();
    let whole = header("one", b"program");
    run(root.path(), &stream(whole.clone(), b"program")).unwrap();
    std::fs::write(root.path().join("etc/etcd.service"), "by hand").unwrap();
    let part = |units: bool| {
        let mut part = whole.clone();
        part.manifest.items.retain(|item| item.unit().is_some() == units);
        run(root.path(), &part.to_bytes()).unwrap()
    };
    let names = |changes: Vec<(String, Change)>| changes.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(part(false)), ["/etc/etcd.service"]);
    // If the run ended here, the next one would still know that other components rely on the unit.
    assert!(root.path().join("var/lib/kmctl/units/etcd.service").exists());
    assert_eq!(names(part(true)), ["etcd.service"]);
    assert_eq!(names(part(true)), Vec::<String>::new());
}

#[test]
fn a_program_that_does_not_match_gets_no_name() {
    let root = tempfile::tempdir().unwrap();
    let error = run(root.path(), &stream(header("one", b"program"), b"another")).unwrap_err();
    assert!(causes(&error).join(": ").contains("sha256"), "{error}");
    assert!(!root.path().join("lib/etcd").exists());
    assert_eq!(std::fs::read_dir(root.path().join("lib")).unwrap().count(), 0);
}

#[test]
fn a_stream_that_ends_early_is_an_error_and_the_next_run_finishes() {
    let root = tempfile::tempdir().unwrap();
    let program = vec![7; 1 << 20];
    let bytes = stream(header("one", &program), &program);
    assert!(run(root.path(), &bytes[..bytes.len() - 20]).is_err());
    assert!(!root.path().join("lib/etcd").exists());
    run(root.path(), &bytes).unwrap();
    assert_eq!(std::fs::read(root.path().join("lib/etcd")).unwrap(), program);
}

#[test]
fn keys_are_made_once_and_leaves_are_renewed() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &stream(header("one", b"program"), b"program")).unwrap();
    let read = |path: &str| std::fs::read(root.path().join(path)).unwrap();
    let kept = ["etc/pki/ca.key", "etc/pki/ca.crt", "etc/pki/sa.key", "etc/encryption.yaml"];
    let before = kept.map(read);
    let leaf = read("etc/pki/leaf.crt");
    let later = now() + jiff::SignedDuration::from_hours(24 * 300);
    let bytes = header("one", b"program").to_bytes();
    let mut out = Vec::new();
    let rooted = Root::new(root.path(), None);
    apply(&rooted, &mut BufReader::new(&bytes[..]), &mut Reporter::new(&mut out), later).unwrap();
    assert_eq!(kept.map(read), before);
    assert_ne!(read("etc/pki/leaf.crt"), leaf);
}

#[test]
fn an_authority_that_lost_its_key_is_refused_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &stream(header("one", b"program"), b"program")).unwrap();
    std::fs::remove_file(root.path().join("etc/pki/ca.key")).unwrap();
    let certificate = std::fs::read(root.path().join("etc/pki/ca.crt")).unwrap();
    let error = run(root.path(), &header("one", b"program").to_bytes()).unwrap_err();
    assert!(matches!(error, AgentError::Refused(_)), "{error}");
    assert_eq!(std::fs::read(root.path().join("etc/pki/ca.crt")).unwrap(), certificate);
}

/// Applies the stream to another root, with these keys of the first.
fn hand_over(from: &Path, keys: &[&str], to: &Path) {
    let read = |path: &str| BASE64_STANDARD.encode(std::fs::read(from.join(&path[1..])).unwrap());
    let shared = keys.iter().map(|path| ((*path).to_owned(), read(path))).collect();
    let with_shared = Header { shared, ..header("one", b"program") };
    run(to, &stream(with_shared, b"program")).unwrap();
}

#[test]
fn shared_keys_are_taken_where_they_are_missing_only() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    let bytes = stream(header("one", b"program"), b"program");
    run(first.path(), &bytes).unwrap();
    hand_over(first.path(), &["/etc/pki/ca.key", "/etc/pki/ca.crt", "/etc/pki/sa.key"], second.path());
    for path in ["etc/pki/ca.crt", "etc/pki/ca.key", "etc/pki/sa.key", "etc/pki/sa.pub"] {
        let read = |root: &Path| std::fs::read(root.join(path)).unwrap();
        assert_eq!(read(first.path()), read(second.path()), "{path}");
    }
}

#[test]
fn a_public_key_has_one_mode_whoever_made_it() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    let bytes = stream(header("one", b"program"), b"program");
    run(first.path(), &bytes).unwrap();
    hand_over(first.path(), &["/etc/pki/sa.key", "/etc/pki/sa.pub"], second.path());
    let mode = |root: &Path| std::fs::metadata(root.join("etc/pki/sa.pub")).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(first.path()), mode(second.path())), (0o644, 0o644));

    // An older version created the file readable by root only.
    std::fs::set_permissions(second.path().join("etc/pki/sa.pub"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(run(second.path(), &bytes).unwrap(), [("/etc/pki/sa.key".to_owned(), Change::Updated)]);
    assert_eq!(mode(second.path()), 0o644);
}

#[test]
fn a_missing_secret_that_was_not_sent_is_refused_and_one_that_is_there_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut kept = header("one", b"program");
    kept.secrets.clear();
    for item in &mut kept.manifest.items {
        if let Item::Secret(spec) = item {
            spec.sha256 = None;
        }
    }
    assert!(run(root.path(), &stream(kept.clone(), b"program")).is_err());
    run(root.path(), &stream(header("one", b"program"), b"program")).unwrap();
    assert_eq!(run(root.path(), &kept.to_bytes()).unwrap(), []);
    assert_eq!(std::fs::read(root.path().join("etc/secret")).unwrap(), b"s3cret");
}

/// All files below a directory, without the directory itself.
fn files(root: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn down_keeps_what_a_later_up_cannot_write_again_and_a_purge_keeps_nothing() {
    let root = tempfile::tempdir().unwrap();
    run(root.path(), &stream(header("one", b"program"), b"program")).unwrap();
    let left = |removal| {
        let request = RemoveRequest {
            manifest: header("one", b"program").manifest,
            removal,
            keep_framework: false,
            holder: LockOwner::default(),
        };
        remove::remove(&Root::new(root.path(), None), request, &mut Reporter::new(&mut Vec::new())).unwrap();
        files(root.path())
    };
    let kept = [
        "etc/encryption.yaml",
        "etc/pki/ca.crt",
        "etc/pki/ca.key",
        "etc/pki/leaf.crt",
        "etc/pki/leaf.key",
        "etc/pki/sa.key",
        "etc/pki/sa.pub",
        "etc/secret",
        "var/lib/kmctl/host.json",
        "var/lib/kmctl/lock",
    ];
    assert_eq!(left(Removal::Programs), kept);
    assert_eq!(left(Removal::Everything), Vec::<String>::new());
    assert!(!root.path().join("var/lib/kmctl/units").exists());
}
