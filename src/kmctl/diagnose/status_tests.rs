//! Reports as printed.
use super::*;
use crate::inventory::mesos::Agent;
use crate::inventory::objects::{NodeFacts, PodFacts};
use crate::inventory::units::UNITS;
use kmctl_core::cluster::NetworkMode;

fn units() -> Vec<Unit> {
    let unit = |name: &&str| Unit {
        name: (*name).to_owned(),
        state: "active".to_owned(),
        detail: "running".to_owned(),
        restarts: 0,
    };
    UNITS.iter().map(unit).collect()
}

fn report(units: Option<Vec<Unit>>) -> Report {
    let host = HostReport {
        name: "cp1".to_owned(),
        address: "10.0.0.11".to_owned(),
        units,
        certificates: Vec::new(),
        outdated: None,
    };
    Report::new("demo", "10.0.0.11:6443", vec![host])
}

fn pod(name: &str, uid: &str, node: Option<&str>, phase: &str) -> PodFacts {
    PodFacts {
        name: format!("default/{name}"),
        uid: uid.to_owned(),
        node: node.map(str::to_owned),
        phase: phase.to_owned(),
        task: None,
    }
}

fn task(id: &str, name: &str) -> RunningTask {
    RunningTask {
        id: id.to_owned(),
        name: name.to_owned(),
        state: "TASK_RUNNING".to_owned(),
        agent: "S0".to_owned(),
        resources: Pressure { cpus: 0.1, mem: 64.0 },
    }
}

fn master(tasks: Vec<RunningTask>) -> Master {
    let framework =
        Framework { id: "F-0001".to_owned(), connected: true, active: true, principal: String::new(), tasks };
    let agent = Agent { id: "S0".to_owned(), hostname: "agent1".to_owned(), ..Agent::default() };
    Master {
        version: "1.11.0".to_owned(),
        leader: "10.0.0.5:5050".to_owned(),
        agents: vec![agent],
        frameworks: vec![framework],
        ..Master::default()
    }
}

fn node(name: &str, state: &str) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        agent_id: Some("S0".to_owned()),
        state: Some(state.to_owned()),
        grant: Some("cpus:0.75;mem:644".to_owned()),
        ready: state == "ready",
        executor: Some("echo \"abcd  km\" | sha256sum -c - && exec ./km node".to_owned()),
        why: None,
        proxy: (state == "ready").then(|| "iptables (nft)".to_owned()),
        proxy_why: None,
    }
}

fn objects(nodes: Vec<NodeFacts>, pods: Vec<PodFacts>) -> Objects {
    Objects { version: "v1.37.2".to_owned(), unready: Vec::new(), nodes, pods, network_policies: Vec::new() }
}

#[test]
fn an_idle_cluster_is_well_without_nodes() {
    let mut report = report(Some(units()));
    report.add(Some(&objects(Vec::new(), Vec::new())), Some(&master(Vec::new())), None);
    insta::assert_snapshot!(report.text(now(), false));
    assert_eq!(report.code(), Code::Ok);
}

#[test]
fn a_busy_cluster_shows_nodes_and_pods_and_tasks_that_agree() {
    let mut report = report(Some(units()));
    let pods = vec![pod("web", "u1", Some("agent1"), "Running"), pod("wait", "u2", None, "Pending")];
    let tasks = vec![task("pod.u1.0a1b2c3d", "web.default"), task("node.agent1.0a1b2c3d", "node.agent1")];
    report.add(
        Some(&objects(vec![node("agent1", "ready"), node("a-longer-name", "candidate")], pods)),
        Some(&master(tasks)),
        Some("abcd"),
    );
    insta::assert_snapshot!(report.text(now(), false));
    assert_eq!(report.code(), Code::Ok);
}

#[test]
fn what_is_wrong_is_named() {
    let mut units = units();
    units[3].state = "activating".to_owned();
    units[3].detail = "auto-restart".to_owned();
    units[3].restarts = 7;
    let mut report = report(Some(units));
    let pods = vec![pod("web", "u1", Some("agent1"), "Pending")];
    let mut facts = objects(vec![node("agent1", "starting")], pods);
    facts.unready = vec!["etcd failed: reason withheld".to_owned()];
    report.add(Some(&facts), Some(&master(vec![task("pod.u9.0a1b2c3d", "old.default")])), None);
    report.problems.push("cp2: connect to 10.0.0.12:22: connection refused".to_owned());
    insta::assert_snapshot!(report.text(now(), false));
    assert_eq!(report.code(), Code::Failed);
}

#[test]
fn a_host_that_is_not_seen_and_one_that_is_empty_look_different() {
    let mut unseen = report(None);
    unseen.add(None, None, None);
    assert_eq!(unseen.code(), Code::SomeHosts);
    let missing = |unit: Unit| Unit { state: "missing".to_owned(), detail: String::new(), ..unit };
    let empty = report(Some(units().into_iter().map(missing).collect()));
    assert_eq!(empty.code(), Code::Failed);
    insta::assert_snapshot!(format!("{}---\n{}", unseen.text(now(), false), empty.text(now(), false)));
}

fn now() -> jiff::Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

#[test]
fn what_is_older_than_the_file_or_about_to_end_is_told_though_nothing_is_broken() {
    let certificate = |path: &str, expires: &str, authority: bool| CertificateFacts {
        path: format!("/etc/kubernetes/{path}"),
        name: "kube-apiserver".to_owned(),
        expires: expires.parse().unwrap(),
        authority,
    };
    let mut report = report(Some(units()));
    report.hosts[0].certificates = vec![
        certificate("pki/apiserver.crt", "2026-12-24T12:00:00Z", false),
        certificate("pki/ca.crt", "2036-11-24T12:00:00Z", true),
        certificate("admin.conf", "2026-11-20T12:00:00Z", false),
    ];
    report.hosts[0].outdated = Some(vec!["/etc/kmctl/scheduler.yaml".to_owned(), "km-scheduler.service".to_owned()]);
    report.bounds = Some(BoundsReport { live: Bounds { min: 3, max: Some(3) }, file: Bounds { min: 0, max: None } });
    let mut leaving = node("agent1", "leaving");
    leaving.why = Some("more nodes than nodes.max (3); cheapest of 4: no pods".to_owned());
    let mut waits = task("node.agent1.0a1b2c3d", "node.agent1");
    waits.state = "TASK_STAGING".to_owned();
    report.add(Some(&objects(vec![leaving], Vec::new())), Some(&master(vec![waits])), Some("ef01"));
    insta::assert_snapshot!(format!("{}---\n{}", report.text(now(), false), report.text(now(), true)));
    assert_eq!(report.code(), Code::Ok);
}

#[test]
fn policies_that_nothing_enforces_are_named() {
    let mut facts = objects(Vec::new(), Vec::new());
    let mut quiet = report(Some(units()));
    quiet.warn(NetworkMode::HostPorts, &facts);
    facts.network_policies = vec!["shop/deny".to_owned(), "shop/allow".to_owned()];
    quiet.warn(NetworkMode::Cni, &facts);
    assert!(quiet.warnings.is_empty(), "with a plugin it is the plugin's matter");
    let mut told = report(Some(units()));
    told.warn(NetworkMode::HostPorts, &facts);
    let line = "! NetworkPolicy shop/deny and 1 more is not enforced: network.mode is hostPorts\n";
    let text = told.text(now(), false);
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_node_whose_kube_proxy_cannot_be_as_it_was_asked_for_says_why() {
    let mut report = report(Some(units()));
    let other = NodeFacts { proxy_why: Some("nft is not installed".to_owned()), ..node("agent1", "ready") };
    report.add(Some(&objects(vec![other], Vec::new())), Some(&master(Vec::new())), None);
    let text = report.text(now(), false);
    assert!(text.contains("! agent1: kube-proxy uses iptables (nft), not network.proxyMode: nft is not"), "{text}");
    assert_eq!(serde_json::to_value(&report).unwrap()["nodes"][0]["proxy"], "iptables (nft)");
}
