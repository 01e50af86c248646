//! What is made when all goes well.
use std::io::Read as _;

use kmctl_core::bundle::Purpose;

use crate::desk::{BUNDLE, Desk, VERSION, run, verified};
use crate::upstream::{Manner, Upstream};

#[test]
fn a_bundle_is_the_same_each_time_and_says_where_its_files_are_from() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let made = desk.create();
    made.succeeds();
    let bundle = desk.bundle();
    let manifest = bundle.manifest();
    let etcd = manifest.components.iter().find(|component| component.name == "etcd").unwrap();
    assert_eq!(etcd.version, "v3.6.16");
    let origin = "https://github.com/etcd-io/etcd/releases/download/v3.6.16/etcd-v3.6.16-linux-amd64.tar.gz";
    assert_eq!(etcd.origins, [origin]);
    let file = |path: &str| manifest.files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(file("bin/etcdutl").purposes, [Purpose::ControlPlane]);
    assert_eq!(file("cni/bridge").purposes, [Purpose::Node]);
    assert_eq!(file("licenses/cni-plugins.LICENSE").purposes, []);
    let pause = &file("images/pause.tar").images;
    assert_eq!(pause[0], "registry.k8s.io/pause:3.10.2");
    assert!(pause[1].starts_with("registry.k8s.io/pause@sha256:"), "{pause:?}");
    let mut index = String::new();
    let (packed, _) = bundle.packed("licenses/INDEX").unwrap();
    flate2::bufread::GzDecoder::new(packed).read_to_string(&mut index).unwrap();
    assert!(index.contains("https://github.com/opencontainers/runc/blob/v1.5.3/NOTICE"), "{index}");
    // Only upstream's addresses: another mirror makes the same bundle.
    assert!(!index.contains("127.0.0.1") && !bundle.manifest_text().contains("127.0.0.1"));

    let first = (std::fs::read(desk.path(BUNDLE)).unwrap(), std::fs::read(lock(&desk)).unwrap());
    // Again with what was downloaded, and on another machine with another mirror.
    upstream.requests();
    desk.create().succeeds();
    let asked = upstream.requests();
    assert!(!asked.iter().any(|(path, _)| path.ends_with("/kubelet") || path.contains("/blobs/")), "{asked:?}");
    assert!((std::fs::read(desk.path(BUNDLE)).unwrap(), std::fs::read(lock(&desk)).unwrap()) == first);
    let elsewhere = Upstream::start(VERSION);
    let other = Desk::new(&elsewhere);
    other.create().succeeds();
    assert!((std::fs::read(other.path(BUNDLE)).unwrap(), std::fs::read(lock(&other)).unwrap()) == first);
}

fn lock(desk: &Desk) -> std::path::PathBuf {
    desk.path(&format!("{BUNDLE}.lock"))
}

#[test]
fn both_minors_are_made_and_others_are_refused_with_the_list() {
    let upstream = Upstream::start("v1.36.3");
    let desk = Desk::new(&upstream);
    let url = upstream.url();
    desk.kmctl(&["bundle", "create", "--kubernetes", "v1.36.3", "--mirror", &url, "--out", "b"]).succeeds();
    let coredns = "registry.k8s.io/coredns/coredns:v1.14.2".to_owned();
    assert!(verified(&desk.path("b")).manifest().files.iter().any(|file| file.images.contains(&coredns)));
    let refused = desk.kmctl(&["bundle", "create", "--kubernetes", "v1.35.1", "--mirror", &url]);
    refused.fails(2, &["Kubernetes v1.35.1 is not supported: kmctl supports 1.37 and 1.36"]);
    desk.kmctl(&["bundle", "create", "--kubernetes", "1.37", "--mirror", &url])
        .fails(2, &["`1.37` is not a Kubernetes version"]);
    desk.kmctl(&["bundle", "create", "--kubernetes", VERSION, "--mirror", "m.example"])
        .fails(2, &["`m.example` is not the URL of a mirror"]);
}

#[test]
fn the_environment_names_the_mirror_and_the_proxy() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let create = ["bundle", "create", "--kubernetes", VERSION];
    run(&mut desk.command(&create, &[("KMCTL_MIRROR", &upstream.url())])).succeeds();
    std::fs::remove_dir_all(desk.cache()).unwrap();
    // Nothing has that name: only a proxy can know it.
    let environment = [("KMCTL_MIRROR", "http://mirror.invalid"), ("http_proxy", &upstream.url())];
    run(&mut desk.command(&create, &environment)).succeeds();
    desk.bundle();
}

#[test]
fn a_registry_may_want_a_token() {
    let upstream = Upstream::start(VERSION);
    upstream.want_token();
    let desk = Desk::new(&upstream);
    desk.create().succeeds();
    desk.bundle();
}

#[test]
fn two_bundles_are_shown_and_compared() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    desk.create().succeeds();
    let shown = desk.kmctl(&["bundle", "show", BUNDLE]);
    shown.succeeds();
    for text in ["Kubernetes v1.37.2 for amd64", "containerd   v2.3.7     Apache-2.0", "bin/kube-apiserver"] {
        assert!(shown.stdout.contains(text), "{}", shown.stdout);
    }
    let json = desk.kmctl(&["bundle", "show", "-o", "json", BUNDLE]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["components"][0]["name"], "cni-plugins");

    let same = desk.kmctl(&["bundle", "diff", BUNDLE, BUNDLE]);
    assert_eq!((same.code, same.stdout.as_str()), (0, "The bundles have the same content.\n"));
    let older = Upstream::start("v1.36.3");
    desk.kmctl(&["bundle", "create", "--kubernetes", "v1.36.3", "--mirror", &older.url()]).succeeds();
    let diff = desk.kmctl(&["bundle", "diff", "kubernetes-v1.36.3.bundle", BUNDLE]);
    diff.succeeds();
    for text in ["~ kubernetes: v1.36.3 → v1.37.2", "~ component coredns: v1.14.2 → v1.14.6", "~ bin/kubelet: "] {
        assert!(diff.stdout.contains(text), "{}", diff.stdout);
    }
    assert!(!diff.stdout.contains("bin/etcd"), "{}", diff.stdout);
    let json = desk.kmctl(&["bundle", "diff", "-o", "json", "kubernetes-v1.36.3.bundle", BUNDLE]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["kubernetes"], serde_json::json!(["v1.36.3", "v1.37.2"]));
    desk.kmctl(&["bundle", "show", "no-such.bundle"]).fails_without_hint(3);
}

#[test]
fn interrupted_or_killed_there_is_no_bundle_and_the_next_run_makes_it() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGKILL] {
        // So little at a time that it is still at it.
        upstream.let_be(&kubelet, Manner::Cut(1));
        let run = desk.start();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !upstream.requests().iter().any(|(path, _)| *path == kubelet) {
            assert!(std::time::Instant::now() < deadline, "the kubelet was not asked for");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let process = nix::unistd::Pid::from_raw(run.id().try_into().unwrap());
        nix::sys::signal::kill(process, signal).unwrap();
        let ended = crate::desk::end(run);
        assert_eq!(ended.code, if signal == nix::sys::signal::Signal::SIGINT { 130 } else { -1 }, "{}", ended.stderr);
        desk.has_no_bundle();
    }
    upstream.let_be(&kubelet, Manner::Well);
    desk.create().succeeds();
    desk.bundle();
}
