//! Host ports are granted, lacking, free again, and never somebody else's.
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{apply_speaker, beside, granted, heard, host_of, node_of, service};
use crate::support::*;

/// The first port of Mesos' default range, which the lab's agents have.
const FOREIGN: u64 = 31000;

/// A pod that declares so many ports, on a given node or on any.
fn declaring(lab: &Lab, name: &str, ports: u16, node: Option<&str>) {
    let declared: Vec<Value> = (1..=ports).map(|port| json!({ "containerPort": port })).collect();
    let selector = node.map_or_else(|| json!({}), |node| json!({ "kubernetes.io/hostname": node }));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "ports" },
        "spec": { "terminationGracePeriodSeconds": 0, "nodeSelector": selector, "containers": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "1000"], "ports": declared,
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
        }] },
    });
    lab.apply(&pod.to_string());
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn host_ports_are_granted_by_pod_told_when_they_lack_and_free_again_and_no_foreign_one_is_taken() {
    let lab = Lab::ready();
    let foreign = lab.foreign_framework("spark", &["--cpus", "0.1", "--mem", "64", "--port", &FOREIGN.to_string()]);
    let agents: Vec<String> = lab.hosts("agent").iter().map(|agent| lab.address(agent)).collect();
    let task_answers = |agent: &str| heard(agent, FOREIGN).ok().filter(|said| said.starts_with("hold."));
    eventually(SETTLE, "the foreign tasks to answer", || {
        agents.iter().all(|agent| task_answers(agent).is_some()).then_some(())
    });

    let namespace = Namespace::new(&lab, "ports");
    apply_speaker(&namespace, "one", &json!({}));
    let one = namespace.wait("one", NODE_START);
    apply_speaker(&namespace, "two", &beside("podAffinity", "one"));
    let mut ports = BTreeSet::new();
    for name in ["one", "two"] {
        let pod = namespace.wait(name, SETTLE);
        assert_eq!(node_of(&pod), node_of(&one));
        for port in granted(&pod).iter().filter(|port| port["protocol"] == "TCP") {
            let port = port["hostPort"].as_u64().expect("a number");
            let said = heard(&host_of(&pod), port).expect("an answer");
            assert_eq!(said.split(' ').next(), Some(name), "{said}");
            ports.insert(port);
        }
    }
    assert_eq!(ports.len(), 2);
    assert!(!ports.contains(&FOREIGN), "{ports:?}");

    // A Service's node port answers on the same machine, and the foreign task still does.
    let spec = json!({
        "type": "NodePort", "selector": { "app": "one" }, "ports": [{ "name": "tcp", "port": 80, "targetPort": "tcp" }],
    });
    let made = service(&namespace, "outward", &spec);
    let node_port = made["spec"]["ports"][0]["nodePort"].as_u64().expect("allocated");
    eventually(SETTLE, "the node port to answer", || {
        heard(&host_of(&one), node_port).ok().filter(|s| s.starts_with("one"))
    });
    for agent in &agents {
        assert!(task_answers(agent).is_some(), "{agent}:{FOREIGN}");
    }

    // More than any agent of the lab has.
    declaring(&lab, "many", 2000, None);
    eventually_or(
        Duration::from_secs(60),
        "an event that tells of host ports",
        || lab.events("ports", "many"),
        || {
            Some(lab.events("ports", "many"))
                .filter(|text| text.contains("2000 host ports needed, Mesos has 1001 there"))
        },
    );
    lab.kubectl(&["-n", "ports", "delete", "pod", "many", "--now"]).success();

    // Together more than the agent has: each can only run when the one before has given all of its ports back.
    for round in 0..3 {
        let name = format!("greedy-{round}");
        declaring(&lab, &name, 400, Some(&node_of(&one)));
        let pod = namespace.wait(&name, SETTLE);
        assert_eq!(granted(&pod).len(), 400);
        if round == 0 {
            declaring(&lab, "late", 700, Some(&node_of(&one)));
            eventually_or(
                Duration::from_secs(60),
                "an event that tells of host ports that others have",
                || lab.events("ports", "late"),
                || Some(lab.events("ports", "late")).filter(|text| text.contains("host ports free, 700 needed")),
            );
            lab.kubectl(&["-n", "ports", "delete", "pod", "late", "--now"]).success();
        }
        lab.kubectl(&["-n", "ports", "delete", "pod", &name, "--now"]).success();
    }
    eventually_or(
        SETTLE,
        "the rules of pods that are gone to go",
        || lab.ssh(&node_of(&one), "iptables-save -t nat").stdout,
        || (!lab.ssh(&node_of(&one), "iptables-save -t nat").success().contains("ports/greedy")).then_some(()),
    );
    drop(foreign);
}
