//! What is told when something is in the way.
use std::net::TcpListener;
use std::time::Duration;

use crate::machine::Machine;
use crate::world::{self, CP1, Desk, SILENT, World};

#[test]
fn a_host_that_does_not_answer_is_named_within_three_seconds() {
    let world = World::new();
    world.desk.edit(
        "cluster.yaml",
        "- { address: 10.0.0.11, name: cp1 }",
        "- { address: 10.0.0.11, name: cp1 }\n      - { address: 10.0.0.12, name: cp2, ssh: { connectTimeout: 4s } }\n      \
         - { address: 10.0.0.13, name: cp3 }",
    );
    let _silent = TcpListener::bind((SILENT, 22)).unwrap();
    let mut running = world.desk.start(&["up"]);
    let named = running.until("cp2");
    assert!(named < Duration::from_millis(3500), "named after {named:?}");
    assert_ne!(running.end().code, 0);
    world.kmctl(&["up"]).golden("up-unreachable");
    world.kmctl(&["check"]).golden("check-unreachable");
    world.kmctl(&["status"]).golden("status-unreachable");
}

#[test]
fn a_host_whose_key_is_not_known_is_refused() {
    let world = World::new();
    world.desk.write("known_hosts", "");
    world.kmctl(&["plan"]).golden("plan-unknown-host-key");
    world.kmctl(&["kubeconfig"]).golden("kubeconfig-unknown-host-key");
    world.kmctl(&["check"]).golden("check-unknown-host-key");
    world.desk.write("known_hosts", &world.cp1.known());
    std::fs::remove_file(world.desk.path("key")).unwrap();
    world.kmctl(&["plan"]).golden("plan-no-key");
}

/// `up` fails as the golden file has it, and has changed nothing on the host.
fn refused(desk: &Desk, cp1: &Machine, golden: &str) {
    let before = cp1.changes();
    let run = desk.kmctl(&["up"]);
    assert_ne!(run.code, 0, "{run}");
    run.golden(golden);
    assert!(cp1.changes() == before, "{golden}: the host has changed");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let world = World::new();
    let taken = TcpListener::bind((CP1, 6443)).unwrap();
    world.kmctl(&["check"]).golden("check-port-taken");
    refused(&world.desk, &world.cp1, "up-port-taken");
    // Where the cluster is already, its own programs hold the ports.
    drop(taken);
    assert_eq!(world.kmctl(&["up"]).code, 0);
    assert_eq!(world.kmctl(&["down", "--yes"]).code, 0);
    assert_eq!(world.kmctl(&["up"]).code, 0);
}

#[test]
fn a_disk_that_is_full_is_told_before_anything_is_written() {
    let world = World::new();
    world.cp1.run("mkdir -p /usr/local/lib && mount -t tmpfs -o size=8m tmpfs /usr/local/lib");
    refused(&world.desk, &world.cp1, "up-disk-full");
    world.cp1.run("umount /usr/local/lib");
    let run = world.kmctl(&["up"]);
    assert_eq!(run.code, 0, "{run}");
}

#[test]
fn a_wrong_secret_is_told_as_such() {
    let world = World::new();
    world.desk.write("mesos-secret", "wrong\n");
    world.kmctl(&["check"]).golden("check-wrong-secret");
    refused(&world.desk, &world.cp1, "up-wrong-secret");
}

#[test]
fn without_mesos_nothing_is_installed() {
    let world = World::new();
    drop(world.mesos);
    world.desk.kmctl(&["check"]).golden("check-no-mesos");
    refused(&world.desk, &world.cp1, "up-first-without-mesos");
}

#[test]
fn a_first_up_does_not_wait_for_agents() {
    let world = World::new();
    drop(world.mesos);
    let _mesos = world.runtime.block_on(world::master_with(&[]));
    let run = world.desk.kmctl(&["up"]);
    assert!(run.code == 0 && run.to_string().contains("0 of 0 Mesos agents are eligible to run nodes"), "{run}");
}

#[test]
fn a_bundle_that_was_tampered_with_never_leaves_the_machine() {
    let world = World::new();
    world.desk.tamper("kubernetes.bundle");
    refused(&world.desk, &world.cp1, "up-tampered-bundle");
    std::fs::remove_file(world.desk.path("kubernetes.bundle")).unwrap();
    world.kmctl(&["plan"]).golden("plan-no-bundle");
    std::fs::remove_file(world.desk.path("mesos-secret")).unwrap();
    world.desk.bundle();
    world.kmctl(&["plan"]).golden("plan-no-secret");
}

#[test]
fn a_unit_that_does_not_start_is_told_with_its_journal() {
    let world = World::new();
    std::fs::write(world.cp1.unit("etcd", "fails"), "").unwrap();
    world.kmctl(&["up"]).golden("up-unit-fails");
    std::fs::remove_file(world.cp1.unit("etcd", "fails")).unwrap();
    // The next run goes on where this one stopped.
    world.kmctl(&["up"]).golden("up-goes-on");
}

#[test]
fn a_run_that_another_one_locks_out_says_whose_it_is() {
    let world = World::new();
    std::fs::write(world.cp1.unit("etcd", "held"), "").unwrap();
    let mut first = world.desk.start(&["up"]);
    first.until("cp1: etcd.service …");
    world.kmctl(&["up"]).golden("up-locked");
    world.kmctl(&["down", "--yes"]).golden("down-locked");
    std::fs::remove_file(world.cp1.unit("etcd", "held")).unwrap();
    let first = first.end();
    assert_eq!(first.code, 0, "{first}");
}

#[test]
fn an_interrupted_run_ends_at_once_and_the_next_one_finishes() {
    let world = World::new();
    std::fs::write(world.cp1.unit("etcd", "held"), "").unwrap();
    let mut run = world.desk.start(&["up"]);
    run.until("cp1: etcd.service …");
    run.interrupt();
    run.end().golden("up-interrupted");
    std::fs::remove_file(world.cp1.unit("etcd", "held")).unwrap();
    let next = world.kmctl(&["up"]);
    assert_eq!(next.code, 0, "{next}");
    world.kmctl(&["plan"]).golden("plan-unchanged");
}

#[test]
fn a_living_cluster_is_repaired_while_mesos_is_away() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    drop(world.mesos);
    world.cp1.run("sed -i s/secure-port=10259/secure-port=10299/ /etc/systemd/system/kube-scheduler.service");
    world.desk.kmctl(&["up"]).golden("up-no-mesos");
    world.desk.kmctl(&["plan"]).golden("plan-unchanged");
}

#[test]
fn down_without_mesos_is_finished_by_the_next_down() {
    let world = World::new();
    assert_eq!(world.kmctl(&["up"]).code, 0);
    drop(world.mesos);
    world.desk.kmctl(&["down", "--yes"]).golden("down-no-mesos");
    assert!(!world.cp1.path("etc/systemd/system/etcd.service").exists(), "the control plane is still installed");
    let _mesos = world.runtime.block_on(world::master());
    world.desk.kmctl(&["down", "--yes"]).golden("down-mesos-is-back");
    world.desk.kmctl(&["down", "--yes"]).golden("down-nothing-installed");
}
