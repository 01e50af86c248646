use super::*;
use crate::inventory::machine::Machine;
use crate::inventory::mesos::{Agent, AgentFlags, Master, Pressure};
use crate::plan::preflight::{Finding, judge_machine, judge_mesos};
use crate::provision::check::{HostReport, mesos_report};
use kmctl_core::cluster::Cluster;

fn cluster() -> Cluster {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "kmctl.io/v1alpha1", "kind": "Cluster", "metadata": { "name": "demo" },
        "spec": {
            "mesos": { "master": "10.0.0.5:5050" },
            "controlPlane": { "endpoint": "10.0.0.11:6443", "hosts": [{ "address": "10.0.0.11" }] }
        }
    }))
    .unwrap()
}

fn agent(name: &str, ports: &str) -> Agent {
    let flags = [("launcher", "linux"), ("isolation", "cgroups/cpu,cgroups/mem")];
    Agent {
        hostname: name.to_owned(),
        address: format!("{name}:5051"),
        version: "1.11.0".to_owned(),
        active: true,
        resources: Pressure { cpus: 4.0, mem: 8192.0 },
        ports: ports.to_owned(),
        flags: Some(AgentFlags {
            flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..AgentFlags::default()
        }),
        ..Agent::default()
    }
}

fn report(machine: Option<Machine>, agents: Vec<Agent>) -> Report {
    let cluster = cluster();
    let master = Master {
        version: "1.11.0".to_owned(),
        leader: "10.0.0.5:5050".to_owned(),
        region: Some("eu".to_owned()),
        agents,
        ..Master::default()
    };
    let mut findings = judge_mesos(&cluster, &master);
    match &machine {
        Some(machine) => findings.extend(judge_machine("cp1", machine)),
        None => findings.push(Finding::error("cp1", "no answer within 10s", "try `ssh 10.0.0.11` from here")),
    }
    findings.sort_by_key(|finding| finding.level);
    let host = HostReport { name: "cp1".to_owned(), address: "10.0.0.11".to_owned(), machine };
    let mesos = Some(mesos_report(&cluster, master));
    Report { cluster: "demo".to_owned(), hosts: vec![host], mesos, findings }
}

fn machine() -> Machine {
    Machine {
        uid: Some(0),
        architecture: "x86_64".to_owned(),
        os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        init: "systemd".to_owned(),
        systemd: "systemd 252".to_owned(),
        cpus: 4,
        memory_kib: 8 << 20,
        free_kib: [("/var/lib".to_owned(), 40 << 20)].into(),
        ..Machine::default()
    }
}

#[test]
fn a_fit_cluster_is_told_in_a_few_lines() {
    let agents = vec![agent("agent1", "[31000-32000]"), agent("agent2", "[31000-32000]")];
    let report = report(Some(machine()), agents);
    insta::assert_snapshot!(text(&report));
    assert_eq!(code(&report), Code::Ok);
}

#[test]
fn every_finding_comes_with_its_cure_and_errors_come_first() {
    let mut machine = machine();
    machine.memory_kib = 1 << 20;
    machine.ports.insert(6443, "nginx".to_owned());
    let agents = vec![agent("agent1", "[28000-32000]"), agent("agent2", "")];
    let report = report(Some(machine), agents);
    insta::assert_snapshot!(text(&report));
    assert_eq!(code(&report), Code::Failed);
}

#[test]
fn a_host_that_does_not_answer_has_an_exit_code_of_its_own() {
    let report = report(None, vec![agent("agent1", "[31000-32000]")]);
    insta::assert_snapshot!(text(&report));
    assert_eq!(code(&report), Code::SomeHosts);
}
