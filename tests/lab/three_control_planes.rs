//! Three control-plane hosts: one of them may go, whichever, and a host that is lost is replaced.
//!
//! Needs another lab than the other tests: `scripts/lab up --agents 2 --control-plane 3`.
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster_lifecycle::manifest;
use crate::failures::{difference, identities};
use crate::support::*;

/// In which new pods start, whatever has happened to one host.
const MINUTE: Duration = Duration::from_secs(60);

/// An API server that has lost etcd's leader, or a kubectl that asks one, is given this long.
const FAIL_OVER: Duration = Duration::from_secs(20);

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn a_host_is_taken_out_and_another_one_takes_its_place() {
    let lab = Lab::ready();
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2", "cp3"]);
    let smaller = without(&lab, &["cp3"]);

    let kept = smaller.kmctl(&["up", "--yes"]);
    assert!(kept.ok() && kept.stderr.contains("--allow-remove"), "{}", kept.stderr);
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2", "cp3"]);
    let plan = smaller.kmctl(&["plan", "--allow-remove"]).success();
    assert!(plan.contains("members 3 → 2, quorum 2, tolerates 0 failures"), "{plan}");
    smaller.kmctl(&["up", "--yes", "--allow-remove"]).success();
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2"]);
    let left = lab.ssh("cp3", "systemctl is-active etcd kube-apiserver; ls -d /etc/kubernetes /var/lib/etcd");
    assert!(!left.stdout.contains("/etc") && !left.stdout.contains("\nactive"), "{}", left.stdout);

    lab.change("wipe", "cp3");
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(voters(&lab, "cp3"), ["cp1", "cp2", "cp3"]);
    // The machine is lost, and an empty one has its address. Under another name it is refused, since what is left of the
    // old member would be removed there; with the same name its membership is replaced.
    lab.change("wipe", "cp2");
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let renamed = Lab { cluster: format!("{}.renamed", lab.cluster), ..Lab::bare() };
    std::fs::write(&renamed.cluster, text.replace("name: cp2 }", "name: cp9 }")).expect("written");
    let before = lab.ssh("cp2", "find /etc /var/lib /usr/local -xdev | sort").success();
    for arguments in [&["up", "--yes"][..], &["up", "--yes", "--allow-remove"]] {
        let refused = renamed.kmctl(arguments);
        assert_eq!(refused.status, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("cp9 has the address of cp2, which is still a member"), "{}", refused.stderr);
    }
    assert_eq!(lab.ssh("cp2", "find /etc /var/lib /usr/local -xdev | sort").success(), before);
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2", "cp3"]);
    std::fs::remove_file(&renamed.cluster).expect("removed");
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(voters(&lab, "cp2"), ["cp1", "cp2", "cp3"]);
    std::fs::remove_file(&smaller.cluster).expect("removed");
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn a_leading_scheduler_that_stops_is_followed_by_another() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "stopped");
    let leader = leader(&lab, "km-scheduler");
    lab.ssh(&leader, "systemctl stop km-scheduler").success();
    let stopped = Instant::now();
    namespace.sleeper("later", "50m", "32Mi");
    namespace.wait("later", MINUTE.saturating_sub(stopped.elapsed()));
    assert_ne!(self::leader(&lab, "km-scheduler"), leader);
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(up.ok() && up.stderr.contains("2 to start"), "{}", up.stderr);
    // kube-scheduler brings along what it is bound to.
    let both = lab.ssh(&leader, "systemctl is-active km-scheduler kube-scheduler").success();
    assert_eq!(both.lines().collect::<Vec<_>>(), ["active", "active"]);
    assert_eq!(frameworks(&lab).len(), 1, "{:?}", frameworks(&lab));
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn any_host_may_die() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "one-dies");
    namespace.deployment("stays", 2, "50m", "32Mi");
    let before = identities(&lab.wait_for_pods("one-dies", 2, NODE_START));
    let nodes: Vec<String> = lab.nodes().iter().map(name_of).collect();

    // The one that everybody has used so far: nodes and kubectl, and as a rule whatever leads.
    let power = PowerCut::of(&lab, "cp1");
    let killed = Instant::now();
    let other = through(&lab, "cp2");
    eventually(FAIL_OVER, "another API server to answer", || other.kubectl(&["get", "nodes"]).ok().then_some(()));
    let elsewhere = Namespace { lab: &other, name: "one-dies".to_owned() };
    elsewhere.sleeper("new", "50m", "32Mi");
    elsewhere.wait("new", MINUTE.saturating_sub(killed.elapsed()));
    println!("a new pod runs {:?} after the host was killed", killed.elapsed());
    std::mem::forget(elsewhere);
    // Everything that goes by an operator's hand goes through the others.
    assert!(lab.kmctl(&["scale"]).ok());
    assert_eq!(lab.kmctl(&["status"]).status, 4);
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(up.status == 4 && up.stderr.contains("failed to connect to cp1"), "{}\n{}", up.status, up.stderr);

    // A node that had lost its API server would be found out after 40 s, and its pods replaced.
    while killed.elapsed() < Duration::from_secs(55) {
        for node in nodes.iter().filter_map(|name| other.get(&["node", name])) {
            assert!(ready(&node), "{} is not ready: {}", name_of(&node), node["status"]["conditions"]);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let pods = other.list(&["-n", "one-dies", "pods", "-l", "app=stays"]);
    assert_eq!(identities(&pods), before, "same containers, same start times");

    drop(power);
    eventually_or(
        MINUTE,
        "the host to be a member again",
        || lab.kmctl(&["up", "--yes"]).stderr,
        || lab.kmctl(&["up", "--yes"]).ok().then_some(()),
    );
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2", "cp3"]);
    eventually(FAIL_OVER, "its API server", || lab.kubectl(&["get", "nodes"]).ok().then_some(()));
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn down_takes_a_broken_cluster_down_in_as_many_runs_as_it_needs() {
    let lab = Lab::ready();
    // Mesos is away: the control plane goes, and the framework with the next run.
    lab.ssh("master", "systemctl stop mesos-master").success();
    let without_mesos = lab.kmctl(&["down", "--yes"]);
    assert!(without_mesos.status == 1 && without_mesos.stderr.contains("again"), "{}", without_mesos.stderr);
    lab.ssh("master", "systemctl start mesos-master").success();
    // The lab's master keeps no registry: it knows of a framework again when the agents with its executors are back.
    lab.wait_for_agents(MINUTE);
    lab.kmctl(&["down", "--yes"]).success();
    assert_eq!(frameworks(&lab), Vec::<String>::new());

    lab.kmctl(&["up", "--yes"]).success();
    // No API server lives, and a host cannot be reached.
    for name in ["cp1", "cp2", "cp3"] {
        lab.ssh(name, "systemctl kill -s KILL kube-apiserver; systemctl stop kube-apiserver").success();
    }
    let power = PowerCut::of(&lab, "cp3");
    let without_host = lab.kmctl(&["down", "--yes", "--drain"]);
    assert!(without_host.status == 4 && without_host.stderr.contains("cp3"), "{}", without_host.stderr);
    assert!(without_host.stderr.contains("nodes were not drained"), "{}", without_host.stderr);
    assert_eq!(frameworks(&lab), Vec::<String>::new());
    drop(power);
    lab.kmctl(&["down", "--yes"]).success();
    let units = lab.ssh("cp3", "ls /etc/systemd/system").stdout;
    assert!(!units.contains("etcd.service"), "{units}");
    let nothing = lab.kmctl(&["down", "--yes"]);
    assert!(nothing.ok() && nothing.stderr.contains("nothing to remove"), "{}", nothing.stderr);
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn while_the_host_that_begins_etcd_is_away_no_other_begins_it() {
    let lab = Lab::ready();
    lab.kmctl(&["down", "--yes", "--purge=lab"]).success();
    let mut command = lab.kmctl_command(&["up", "--yes"]);
    let mut up = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kmctl starts");
    for name in ["cp1", "cp2"] {
        let written_down = || lab.ssh(name, "grep -x cp1 /var/lib/kmctl/etcd-founder").ok().then_some(());
        eventually(MINUTE, "the hosts to write down who begins etcd", written_down);
    }
    up.kill().expect("killed");
    up.wait().expect("it ended");

    let power = PowerCut::of(&lab, "cp1");
    for command in ["plan", "up"] {
        let refused = lab.kmctl(&[command, "--yes"]);
        assert_eq!(refused.status, 4, "{}", refused.stderr);
        let why = "etcd was bootstrapped on cp1, but cp1 has not responded";
        assert!(refused.stderr.contains(why) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
    for name in ["cp2", "cp3"] {
        assert!(!lab.ssh(name, "test -e /var/lib/etcd/member").ok(), "{name} has begun etcd");
    }
    drop(power);
    // It is back and slow to answer: the others do not go on without it.
    let pause = "systemd-run --quiet --on-active=5s --timer-property=AccuracySec=100ms \
                 systemctl kill -s CONT --kill-who=main ssh && systemctl kill -s STOP --kill-who=main ssh";
    lab.ssh("cp1", pause).success();
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(up.ok() && up.stderr.contains("waiting for cp1: etcd was bootstrapped on"), "{}", up.stderr);
    is_one_cluster(&lab);
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn a_cluster_whose_only_host_is_away_is_not_begun_again_on_two_new_ones() {
    let lab = Lab::ready();
    lab.kmctl(&["down", "--yes", "--purge=lab"]).success();
    let smaller = without(&lab, &["cp2", "cp3"]);
    smaller.kmctl(&["up", "--yes"]).success();
    let before = frameworks(&lab);
    assert_eq!(before.len(), 1);

    // Most of the hosts that the file names now know of nothing.
    let power = PowerCut::of(&lab, "cp1");
    let refused = lab.kmctl(&["up", "--yes"]);
    assert_eq!(refused.status, 4, "{}", refused.stderr);
    let why = format!("Mesos has framework {} of this cluster", before[0]);
    assert!(refused.stderr.contains(&why) && refused.stderr.contains("hint: make cp1 reachable"), "{}", refused.stderr);
    for name in ["cp2", "cp3"] {
        assert!(!lab.ssh(name, "test -e /var/lib/etcd/member").ok(), "{name} has begun etcd");
    }
    drop(power);
    lab.kmctl(&["up", "--yes"]).success();
    assert_eq!(voters(&lab, "cp1"), ["cp1", "cp2", "cp3"]);
    assert_eq!(frameworks(&lab), before);
    std::fs::remove_file(&smaller.cluster).expect("removed");
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn up_killed_at_five_points_ends_as_one_cluster() {
    let lab = Lab::ready();
    let hosts = lab.hosts("control-plane");
    // How etcd began, and on which host, depends on who was there before; nothing reads it any more.
    let beginning = ["etcd-initial.env", "etcd-founder"];
    let lasting = |host: &str| -> String {
        let lines = manifest(&lab, host);
        lines
            .lines()
            .filter(|line| !beginning.iter().any(|path| line.contains(path)))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let manifests = || -> BTreeMap<&String, String> { hosts.iter().map(|host| (host, lasting(host))).collect() };
    let undisturbed = manifests();
    lab.kmctl(&["down", "--yes", "--purge=lab"]).success();
    // Each run goes on where the one before was killed, so that the five points lie along the whole way.
    let said = tempfile::tempdir().expect("a directory");
    for point in 1..=5u64 {
        let mut command = lab.kmctl_command(&["up", "--yes"]);
        let file = std::fs::File::create(said.path().join(point.to_string())).expect("a file");
        let mut up = command.stdout(Stdio::null()).stderr(file).spawn().expect("kmctl starts");
        std::thread::sleep(Duration::from_secs(2 + 2 * point));
        if point % 2 == 0 {
            let _ = lab.ssh(&hosts[(point % 3) as usize], "pkill -9 -f 'km host'");
        } else {
            up.kill().expect("killed");
        }
        up.wait().expect("it ended");
    }
    let last = lab.kmctl(&["up", "--yes"]);
    let before = std::fs::read_to_string(said.path().join("5")).expect("what the run before said");
    assert!(last.ok(), "{}\nafter a run that ended with\n{}", ending(&last.stderr), ending(&before));
    for (host, manifest) in manifests() {
        assert_eq!(difference(&undisturbed[host], &manifest), "", "{host}");
    }
    is_one_cluster(&lab);
}

/// The last lines of a run.
fn ending(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[test]
#[ignore = "needs a lab with three control-plane hosts: scripts/test"]
fn a_cluster_that_has_lost_its_quorum_is_told_so_and_begins_anew_after_a_purge() {
    let lab = Lab::ready();
    for name in ["cp2", "cp3"] {
        lab.change("wipe", name);
    }
    let refused = lab.kmctl(&["up", "--yes"]);
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    let why = "etcd has no quorum: 2 of 3 members lost their data (cp2, cp3)";
    assert!(refused.stderr.contains(why) && refused.stderr.contains("down --purge"), "{}", refused.stderr);
    lab.kmctl(&["down", "--yes", "--purge=lab"]).success();
    lab.kmctl(&["up", "--yes"]).success();
    is_one_cluster(&lab);
}

/// All hosts are members of one etcd, and Mesos has one framework.
#[track_caller]
fn is_one_cluster(lab: &Lab) {
    assert_eq!(voters(lab, "cp1"), ["cp1", "cp2", "cp3"]);
    assert_eq!(frameworks(lab).len(), 1, "{:?}", frameworks(lab));
}

/// The same cluster.yaml without some hosts, beside it: it names key and known_hosts by relative paths.
fn without(lab: &Lab, hosts: &[&str]) -> Lab {
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let kept = text.lines().filter(|line| !hosts.iter().any(|host| line.contains(&format!("name: {host}"))));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    let smaller = Lab { cluster: format!("{}.smaller", lab.cluster), ..Lab::bare() };
    std::fs::write(&smaller.cluster, kept).expect("written");
    smaller
}

/// The lab as seen through another API server than the endpoint.
fn through(lab: &Lab, host: &str) -> Lab {
    let text = std::fs::read_to_string(&lab.kubeconfig).expect("the kubeconfig");
    let kubeconfig = format!("{}.{host}", lab.kubeconfig);
    std::fs::write(&kubeconfig, text.replace(&lab.address("cp1"), &lab.address(host))).expect("written");
    Lab { kubeconfig, ..Lab::bare() }
}

/// Names of etcd's members that vote, as one of them tells.
fn voters(lab: &Lab, host: &str) -> Vec<String> {
    let pki = "/etc/kubernetes/pki";
    let client = format!("--cert {pki}/apiserver-etcd-client.crt --key {pki}/apiserver-etcd-client.key");
    // The one that came with the etcd that runs: its folder is named after what is in it.
    let etcdctl = format!(
        "\"$(dirname \"$(readlink /proc/$(systemctl show -P MainPID etcd)/exe)\")/etcdctl\" \
         --endpoints https://127.0.0.1:2379 --cacert {pki}/etcd/ca.crt {client} member list -w json"
    );
    let list: Value = serde_json::from_str(&lab.ssh(host, &etcdctl).success()).expect("JSON");
    let members = list["members"].as_array().cloned().unwrap_or_default();
    let voting = members.iter().filter(|member| member["isLearner"] != true);
    let mut names: Vec<String> = voting.map(|member| member["name"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort();
    names
}

/// The host whose process holds a Lease.
fn leader(lab: &Lab, lease: &str) -> String {
    let lease = lab.get(&["-n", "kube-system", "lease", lease]).expect("the Lease");
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    holder.split('_').next().unwrap_or_default().to_owned()
}

/// Ids of the frameworks of this cluster that Mesos has.
fn frameworks(lab: &Lab) -> Vec<String> {
    let state = lab.mesos_get("/state");
    let all = state["frameworks"].as_array().cloned().unwrap_or_default();
    let ours = all.iter().filter(|one| one["name"] == "kubernetes-lab");
    ours.map(|one| one["id"].as_str().unwrap_or_default().to_owned()).collect()
}
