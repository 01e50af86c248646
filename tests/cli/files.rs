//! Commands that need no host: version, bundle, render, and a cluster.yaml that is not in order.
use crate::world::Desk;

#[test]
fn version() {
    let desk = Desk::new();
    desk.kmctl(&["version"]).golden("version");
    desk.kmctl(&["version", "-o", "json"]).golden("version-json");
    desk.kmctl(&["version", "--out", "no-such-folder/version"]).golden("version-cannot-write");
    desk.kmctl(&["verson"]).golden("unknown-command");
}

#[test]
fn bundle_create() {
    let desk = Desk::new();
    let create = ["bundle", "create", "--kubernetes", "v1.37.2", "--out", "kubernetes.bundle", "programs"];
    desk.kmctl(&create).golden("bundle-create");
    let first = std::fs::read(desk.path("kubernetes.bundle")).unwrap();
    // Again: the same transcript, and the same bytes.
    desk.kmctl(&create).golden("bundle-create");
    assert_eq!(std::fs::read(desk.path("kubernetes.bundle")).unwrap(), first);
    desk.kmctl(&["bundle", "create", "--kubernetes", "v1.37.2", "programs"]).golden("bundle-create-without-out");
    desk.kmctl(&["bundle", "create", "--kubernetes", "1.37.2", "--out", "b", "programs"])
        .golden("bundle-create-wrong-version");
    std::fs::remove_file(desk.path("programs/bin/kubelet")).unwrap();
    std::fs::remove_file(desk.path("programs/bin/runc")).unwrap();
    desk.kmctl(&create).golden("bundle-create-incomplete");
    desk.kmctl(&["bundle", "create", "--kubernetes", "v1.37.2", "--out", "b", "no-such-folder"])
        .golden("bundle-create-no-folder");
}

#[test]
fn bundle_verify() {
    let desk = Desk::new();
    desk.bundle();
    desk.kmctl(&["bundle", "verify", "kubernetes.bundle"]).golden("bundle-verify");
    desk.tamper("kubernetes.bundle");
    desk.kmctl(&["bundle", "verify", "kubernetes.bundle"]).golden("bundle-verify-tampered");
    desk.kmctl(&["bundle", "verify", "cluster.yaml"]).golden("bundle-verify-no-bundle");
    desk.kmctl(&["bundle", "verify", "no-such.bundle"]).golden("bundle-verify-no-file");
}

#[test]
fn render() {
    let desk = Desk::new();
    desk.bundle();
    desk.kmctl(&["render", "--out", "rendered"]).golden("render");
    assert!(desk.path("rendered/cp1/etc/systemd/system/etcd.service").is_file());
    assert!(desk.path("rendered/node/kubelet.yaml").is_file());
    desk.kmctl(&["render"]).golden("render-without-out");
    desk.kmctl(&["render", "--out", "mesos-secret/rendered"]).golden("render-cannot-write");
}

#[test]
fn a_cluster_file_that_is_not_in_order() {
    let desk = Desk::new();
    desk.edit("cluster.yaml", "identityFile", "identityFil");
    desk.edit("cluster.yaml", "endpoint: 10.0.0.11:6443", "endpoint: 10.0.0.11");
    desk.kmctl(&["check"]).golden("wrong-key");
    desk.write("cluster.yaml", "spec: [\n");
    desk.kmctl(&["plan"]).golden("no-yaml");
    desk.kmctl(&["plan", "-f", "elsewhere.yaml"]).golden("no-cluster-file");
}

#[test]
fn a_bundle_of_another_version() {
    let desk = Desk::new();
    desk.bundle();
    desk.edit("cluster.yaml", "version: v1.37.2", "version: v1.37.3");
    desk.kmctl(&["plan"]).golden("plan-other-version");
}
