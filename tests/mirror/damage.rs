//! What upstream or a mirror has is not what it should be.
use crate::desk::{BUNDLE, Desk, VERSION};
use crate::upstream::{Manner, Upstream, sha256};

/// A path is a file that goes into a bundle.
fn is_file(path: &str) -> bool {
    ![".sha256", ".sha256sum", "SHA256SUMS"].iter().any(|end| path.ends_with(end)) && !path.starts_with("v2/")
}

#[test]
fn a_changed_byte_in_any_file_is_found_and_told_with_both_hashes() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let paths = upstream.paths(|path| is_file(path) || path.contains("/blobs/"));
    // Nine files, and three blobs of either image.
    assert_eq!(paths.len(), 9 + 6);
    for path in paths {
        let good = upstream.get(&path);
        let mut bad = good.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        let (got, expected) = (sha256(&bad), sha256(&good));
        upstream.put(&path, bad);
        // Runs before this one have downloaded it.
        desk.forget();
        desk.create()
            .fails(1, &[&format!("{}/{path} has sha256 {got}, expected {expected} according to", upstream.url())]);
        desk.has_no_bundle();
        upstream.put(&path, good);
    }
    desk.create().succeeds();
    desk.bundle();
}

#[test]
fn a_changed_manifest_is_found() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    // The index names it by its digest.
    for path in upstream.paths(|path| path.contains("pause/manifests/sha256:")) {
        let good = upstream.get(&path);
        let text = String::from_utf8(good.to_vec()).unwrap();
        if text.contains("manifests\"") {
            continue;
        }
        upstream.put(&path, text.replace("\"schemaVersion\":2", "\"schemaVersion\":3"));
        desk.create().fails(1, &["failed to pull registry.k8s.io/pause:3.10.2 from 127.0.0.1:", "igest"]);
        desk.has_no_bundle();
    }
}

#[test]
fn a_wrong_published_checksum_is_told_with_its_address() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    for checksum in
        upstream.paths(|path| path.starts_with("dl.k8s.io/") && !is_file(path) || path.ends_with("SHA256SUMS"))
    {
        let good = upstream.get(&checksum);
        let text = String::from_utf8(good.to_vec()).unwrap();
        let digest = text.lines().last().unwrap()[..64].to_owned();
        upstream.put(&checksum, text.replace(&digest, &"3".repeat(64)));
        let origin = format!("expected {} according to {}/{checksum}", "3".repeat(64), upstream.url());
        desk.create().fails(1, &[&digest, &origin]);
        desk.has_no_bundle();
        upstream.put(&checksum, good);
    }
}

#[test]
fn a_page_or_a_short_text_is_told_as_such_and_not_as_a_wrong_hash() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    let runc = upstream.path("runc.amd64");
    for path in [kubelet.clone(), format!("{kubelet}.sha256"), runc.clone()] {
        upstream.let_be(&path, Manner::Page);
        desk.forget();
        let told = format!("{}/{path} is not the expected file: the server returned a web page", upstream.url());
        desk.create().fails(1, &[&told]);
        upstream.let_be(&path, Manner::Well);
    }
    desk.forget();
    let good = upstream.get(&kubelet);
    upstream.put(&kubelet, "<html>blocked by policy</html>");
    desk.create().fails(1, &["/kubelet is not the expected file: the server returned a web page"]);
    upstream.put(&kubelet, "no such object\n");
    desk.create()
        .fails(1, &["/kubelet is not the expected file: the server returned a text of 15 bytes: `no such object`"]);
    upstream.put(&kubelet, "");
    desk.create().fails(1, &["/kubelet is not the expected file: the server returned nothing"]);
    desk.has_no_bundle();
    // How long it should be is known from the lock.
    upstream.put(&kubelet, good.clone());
    desk.create().succeeds();
    desk.forget();
    std::fs::remove_file(desk.path(BUNDLE)).unwrap();
    upstream.put(&kubelet, good.slice(..good.len() - 7));
    let told = format!("/kubelet is truncated: {} of {} bytes", good.len() - 7, good.len());
    desk.create().fails(1, &[&told]);
    desk.has_no_bundle();
}

#[test]
fn a_version_that_does_not_exist_is_told_with_its_address() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let url = upstream.url();
    let missing = desk.kmctl(&["bundle", "create", "--kubernetes", "v1.37.99", "--mirror", &url]);
    let address = format!("{url}/dl.k8s.io/release/v1.37.99/bin/linux/amd64/kube-apiserver");
    missing.fails(
        1,
        &[
            &format!("{address} does not exist (HTTP 404): kubernetes v1.37.99 has no such release"),
            "https://github.com/kubernetes/kubernetes/releases",
        ],
    );
    // Another component's.
    let etcd = upstream.path("etcd-v3.6.16-linux-amd64.tar.gz");
    upstream.remove(&etcd);
    desk.create().fails(1, &[&format!("{url}/{etcd} does not exist (HTTP 404): etcd v3.6.16")]);
    // And an image's.
    upstream.remove("v2/registry.k8s.io/pause/manifests/3.10.2");
    desk.create().fails(1, &["failed to pull registry.k8s.io/pause:3.10.2", "does not exist (HTTP 404)"]);
    desk.has_no_bundle();
}

#[test]
fn an_archive_that_lacks_a_program_is_told() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    // A plugin's archive under containerd's name, with the checksum that belongs to it.
    let (plugins, containerd) = (upstream.path("v1.10.0.tgz.sha256"), upstream.path("linux-amd64.tar.gz.sha256sum"));
    let plugins = upstream.get(&plugins.replace(".sha256", ""));
    let name = containerd.rsplit('/').next().unwrap().replace(".sha256sum", "");
    upstream.put(&containerd, format!("{}  {name}\n", sha256(&plugins)));
    upstream.put(&containerd.replace(".sha256sum", ""), plugins);
    desk.create().fails(1, &["linux-amd64.tar.gz does not contain bin/containerd"]);
    desk.has_no_bundle();
}

#[test]
fn a_server_that_refuses_or_is_away_is_told() {
    let upstream = Upstream::start(VERSION);
    let desk = Desk::new(&upstream);
    let kubelet = upstream.path("amd64/kubelet.sha256").replace(".sha256", "");
    upstream.let_be(&kubelet, Manner::Fails(403, "denied"));
    desk.create().fails(1, &[&format!("{}/{kubelet} was refused with HTTP 403", upstream.url()), "HTTPS_PROXY"]);
    upstream.let_be(&kubelet, Manner::Fails(503, "busy"));
    desk.create().fails(1, &[&format!("failed to download {}/{kubelet}: HTTP 503", upstream.url()), "--mirror"]);
    let url = upstream.url();
    drop(upstream);
    let away = desk.kmctl(&["bundle", "create", "--kubernetes", VERSION, "--mirror", &url]);
    away.fails(1, &["Connection refused"]);
    desk.has_no_bundle();
}
