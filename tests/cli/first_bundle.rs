//! A cluster.yaml that names no bundle, or no version.
use crate::transcript::Transcript;
use crate::upstream::Upstream;
use crate::world::World;

/// A world whose cluster.yaml names no bundle, and upstream.
fn without_bundle() -> (World, Upstream) {
    let world = World::new();
    world.desk.edit("cluster.yaml", "  bundle: kubernetes.bundle\n", "");
    // Its threads are in the world's network, as those of the process are from now on.
    let upstream = Upstream::start("v1.37.2");
    (world, upstream)
}

fn kmctl(world: &World, upstream: &str, arguments: &[&str]) -> Transcript {
    world.desk.start_with(arguments, &[("KMCTL_MIRROR", upstream)]).end()
}

#[track_caller]
fn nothing_to_do(run: &Transcript) {
    assert!(run.code == 0 && run.to_string().contains("1 host: no changes"), "{run}");
}

const KEPT: &str = "home/.cache/kmctl/bundles/kubernetes-v1.37.2-amd64.bundle";

#[test]
fn up_without_a_bundle_makes_it_once_and_then_not_again() {
    let (world, upstream) = without_bundle();
    let url = upstream.url();
    // Nothing is made for commands that do without.
    for arguments in [&["check"][..], &["status"], &["render", "--out", "rendered"]] {
        kmctl(&world, &url, arguments);
    }
    assert_eq!(upstream.requests(), []);
    let first = kmctl(&world, &url, &["up"]);
    assert_eq!(first.code, 0, "{first}");
    for text in [
        "no bundle in cluster.yaml; creating ",
        "from the Kubernetes v1.37.2 release",
        KEPT,
        "Kubernetes v1.37.2 is up",
    ] {
        assert!(first.to_string().contains(text), "{first}");
    }
    assert!(world.desk.path(KEPT).exists());
    assert!(!upstream.requests().is_empty());
    let unpacked = world.cp1.path("usr/local/lib/kmctl/v1.37.2");
    for file in ["bin/kubelet", "licenses/INDEX", "images/pause.tar"] {
        assert!(unpacked.join(file).exists(), "{file}");
    }
    for arguments in [&["plan"][..], &["up"]] {
        let again = kmctl(&world, &url, arguments);
        assert_eq!(again.code, 0, "{again}");
        assert!(!again.to_string().contains("creating"), "{again}");
    }
    nothing_to_do(&kmctl(&world, &url, &["plan"]));
    assert_eq!(upstream.requests(), []);

    // On another machine the files on the hosts are enough, until a host lacks one of them.
    std::fs::remove_file(world.desk.path(KEPT)).unwrap();
    nothing_to_do(&kmctl(&world, &url, &["plan"]));
    assert_eq!(upstream.requests(), []);
    world.cp1.run("rm /usr/local/lib/kmctl/etcd-*/bin/etcdutl");
    let repaired = kmctl(&world, &url, &["up", "--yes"]);
    assert_eq!(repaired.code, 0, "{repaired}");
    world.cp1.run("ls /usr/local/lib/kmctl/etcd-*/bin/etcdutl");
    assert!(!upstream.requests().is_empty(), "{repaired}");
}

#[test]
fn plan_makes_the_bundle_that_the_next_up_uses() {
    let (world, upstream) = without_bundle();
    let url = upstream.url();
    let planned = kmctl(&world, &url, &["plan", "--out", "first.plan"]);
    assert_eq!(planned.code, 0, "{planned}");
    assert!(world.desk.path(KEPT).exists() && !world.cp1.path("etc/kubernetes").exists(), "{planned}");
    upstream.requests();
    let run = kmctl(&world, &url, &["up", "--yes", "--plan", "first.plan"]);
    assert_eq!(run.code, 0, "{run}");
    assert_eq!(upstream.requests(), []);
}

#[test]
fn up_without_a_bundle_and_without_upstream_changes_no_host() {
    let (world, upstream) = without_bundle();
    let url = upstream.url();
    drop(upstream);
    let before = world.cp1.changes();
    let run = kmctl(&world, &url, &["up"]);
    assert_eq!(run.code, 1, "{run}");
    assert!(run.to_string().contains("Connection refused"), "{run}");
    assert!(world.cp1.changes() == before);
    // A version that kmctl does not know is not even asked for.
    world.desk.edit("cluster.yaml", "version: v1.37.2", "version: v1.35.0");
    let run = kmctl(&world, &url, &["up"]);
    assert_eq!(run.code, 3, "{run}");
    assert!(run.to_string().contains("Kubernetes v1.35.0 is not supported: kmctl supports"), "{run}");
}

#[test]
fn a_bundle_of_1_37_without_kubernetes_version_in_the_file_is_taken() {
    let world = World::new();
    // Not the version that is the default.
    let make = ["bundle", "create", "--kubernetes", "v1.37.7", "--out", "kubernetes.bundle", "programs"];
    assert_eq!(world.kmctl(&make).code, 0);
    world.desk.edit("cluster.yaml", "  kubernetes: { version: v1.37.2 }\n", "");
    let run = world.kmctl(&["up"]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.to_string().contains("Kubernetes v1.37.7 is up"), "{run}");
    assert!(world.cp1.path("usr/local/lib/kmctl/v1.37.7/bin/kubelet").exists());
    nothing_to_do(&world.kmctl(&["plan"]));
    // What is written is compared as before.
    world.desk.edit("cluster.yaml", "  bundle:", "  kubernetes: { version: v1.37.2 }\n  bundle:");
    world.kmctl(&["plan"]).golden("plan-bundle-of-another-version");
}
