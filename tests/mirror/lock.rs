//! What was downloaded once is what is downloaded again.
use serde_json::{Value, json};

use crate::desk::{BUNDLE, Desk, VERSION};
use crate::upstream::{Upstream, sha256};

fn read(desk: &Desk, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(desk.path(name)).unwrap()).unwrap()
}

#[test]
fn the_lock_has_every_address_and_sha256() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let url = upstream.url();
    let create = ["bundle", "create", "--kubernetes", VERSION, "--mirror", &url, "--lock", "my.lock"];
    desk.kmctl(&create).succeeds();
    let lock = read(&desk, "my.lock");
    assert_eq!(lock["components"]["cniPlugins"], "1.10.0");
    let files = lock["files"].as_array().unwrap();
    let images = lock["images"].as_array().unwrap();
    assert_eq!((files.len(), images.len()), (9, 2));
    let blobs = images.iter().flat_map(|image| image["blobs"].as_array().unwrap());
    for file in files.iter().chain(blobs) {
        let path = file["url"].as_str().unwrap().strip_prefix("https://").unwrap();
        let path = match path.strip_prefix("registry.k8s.io/v2/") {
            Some(blob) => format!("v2/registry.k8s.io/{blob}"),
            None => path.to_owned(),
        };
        let bytes = upstream.get(&path);
        assert_eq!(file["sha256"], sha256(&bytes), "{path}");
        assert_eq!(file["size"], bytes.len(), "{path}");
    }
    assert!(!desk.path(&format!("{BUNDLE}.lock")).exists());
}

#[test]
fn a_release_that_was_replaced_since_is_an_error_of_its_own() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    desk.create().succeeds();
    let before = std::fs::read(desk.path(BUNDLE)).unwrap();
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    let (good, bad) = (upstream.get(&kubelet), b"another kubelet".to_vec());
    upstream.put(&kubelet, bad.clone());
    upstream.put(&format!("{kubelet}.sha256"), sha256(&bad));
    let url = upstream.url();
    let told = format!(
        "the published checksum of https://{kubelet} changed since it was locked: {url}/{kubelet}.sha256 says {}, \
         {BUNDLE}.lock says {}",
        sha256(&bad),
        sha256(&good)
    );
    desk.create().fails(1, &[&told]);
    // What was made before stays as it is.
    assert!(std::fs::read(desk.path(BUNDLE)).unwrap() == before);
    upstream.put(&kubelet, good.clone());
    upstream.put(&format!("{kubelet}.sha256"), sha256(&good));

    // A tag that stands for another image.
    let (pause, coredns) =
        ("v2/registry.k8s.io/pause/manifests/3.10.2", "v2/registry.k8s.io/coredns/coredns/manifests/v1.14.6");
    let other = upstream.get(coredns);
    let was = upstream.get(pause);
    upstream.put(pause, other.clone());
    let told = [
        "the published checksum of registry.k8s.io/pause:3.10.2 changed since it was locked".to_owned(),
        format!("says sha256:{}", sha256(&other)),
        format!("says sha256:{}", sha256(&was)),
    ];
    desk.create().fails(1, &told.each_ref().map(String::as_str));
}

#[test]
fn a_copy_without_checksums_needs_a_lock_and_with_one_makes_the_same() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    desk.create().succeeds();
    let lock = std::fs::read(desk.path(&format!("{BUNDLE}.lock"))).unwrap();
    let bundle = std::fs::read(desk.path(BUNDLE)).unwrap();
    for checksum in
        upstream.paths(|path| path.contains("sha256") && !path.starts_with("v2/") || path.ends_with("SHA256SUMS"))
    {
        upstream.remove(&checksum);
    }
    let site = Desk::new(&upstream);
    site.create().fails(
        1,
        &[
            "no checksum is published for https://dl.k8s.io/release/v1.37.2/bin/linux/amd64/kube-apiserver",
            "kubernetes-v1.37.2.bundle.lock",
        ],
    );
    site.has_no_bundle();
    // And without tags, as a copy that was made by digest.
    upstream.remove("v2/registry.k8s.io/pause/manifests/3.10.2");
    std::fs::write(site.path(&format!("{BUNDLE}.lock")), &lock).unwrap();
    site.create().succeeds();
    assert!(std::fs::read(site.path(BUNDLE)).unwrap() == bundle);
    assert!(std::fs::read(site.path(&format!("{BUNDLE}.lock"))).unwrap() == lock);
}

#[test]
fn what_has_no_published_checksum_can_be_pinned_by_hand() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let runc = upstream.path("runc.amd64");
    upstream.remove(&runc.replace("runc.amd64", "runc.sha256sum"));
    let pin = |digest: String| {
        let files = json!([{ "url": format!("https://{runc}"), "sha256": digest }]);
        let lock = json!({ "format": 1, "kubernetes": VERSION, "architecture": "amd64", "files": files });
        std::fs::write(desk.path(&format!("{BUNDLE}.lock")), lock.to_string()).unwrap();
    };
    pin("4".repeat(64));
    desk.create().fails(1, &[&format!("expected {} according to {BUNDLE}.lock", "4".repeat(64))]);
    desk.has_no_bundle();
    pin(sha256(&upstream.get(&runc)));
    desk.create().succeeds();
    desk.bundle();
    assert_eq!(read(&desk, &format!("{BUNDLE}.lock"))["files"].as_array().unwrap().len(), 9);
}

#[test]
fn a_lock_that_is_none_or_for_something_else_is_refused() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let lock = desk.path(&format!("{BUNDLE}.lock"));
    std::fs::write(&lock, "{").unwrap();
    desk.create().fails(3, &["kubernetes-v1.37.2.bundle.lock is not a lock file"]);
    let other = json!({ "format": 1, "kubernetes": "v1.37.1", "architecture": "amd64", "files": [] });
    std::fs::write(&lock, other.to_string()).unwrap();
    desk.create().fails(3, &["is for Kubernetes v1.37.1 on amd64, not for Kubernetes v1.37.2 on amd64", "--lock"]);
    desk.has_no_bundle();
}
