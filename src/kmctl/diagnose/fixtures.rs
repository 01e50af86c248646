//! A small world for tests: nodes, pods and budgets in the API's form, and agents in Mesos' form.
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::inventory::mesos::{Agent, Framework, Master, Pressure};
use crate::inventory::workloads::{Budget, Workloads, budget};
use kmctl_core::cluster::Cluster;
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::Summary;

pub(crate) fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub(crate) fn cluster() -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "kmctl.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "demo"},
        "spec": {
            "mesos": {"master": "10.0.0.5:5050", "frameworkName": "kubernetes-demo"},
            "controlPlane": {"endpoint": "10.0.0.11:6443", "hosts": [{"address": "10.0.0.11"}]},
        },
    }))
    .unwrap()
}

pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A node of ours on the agent `S-<name>`, in a state.
pub(crate) fn node(name: &str, state: &str) -> Value {
    let ready = if state == "ready" || state == "leaving" { "True" } else { "False" };
    json!({
        "metadata": {"name": name, "creationTimestamp": "2026-11-24T11:59:30Z",
            "annotations": {"kmctl.io/agent-id": format!("S-{name}"), "kmctl.io/state": state,
                "kmctl.io/reason": if state == "leaving" { "more nodes than nodes.max (1); cheapest of 2: 1 pod to move (0.1 cpus, 64 MB)" } else { "" }}},
        "status": {"nodeInfo": {"kubeletVersion": if state == "candidate" { "" } else { "v1.37.2" },
                "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""},
            "conditions": [{"type": "Ready", "status": ready}]},
    })
}

/// A running pod of a ReplicaSet on a node, with `change` applied.
pub(crate) fn pod(name: &str, node: Option<&str>, change: Value) -> Value {
    let mut pod = json!({
        "metadata": {"uid": format!("uid-{name}"), "name": name, "namespace": "default", "labels": {"app": "web"},
            "creationTimestamp": "2026-11-24T11:58:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true}]},
        "spec": {"containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
        "status": {"phase": if node.is_some() { "Running" } else { "Pending" },
            "conditions": [{"type": "Ready", "status": if node.is_some() { "True" } else { "False" }}]},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
        pod["metadata"]["annotations"] = json!({"kmctl.io/task": format!("pod.uid-{name}.0a1b2c3d")});
    }
    merge(&mut pod, change);
    pod
}

/// A change that removes a pod's controller, so that the pod would not be recreated.
pub(crate) fn bare() -> Value {
    json!({"metadata": {"ownerReferences": null}})
}

/// A budget over the pods of `app: web`.
pub(crate) fn pdb(name: &str, allowed: i32) -> Budget {
    let found = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 4},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 4, "desiredHealthy": 4, "expectedPods": 6},
    }));
    budget(&found.unwrap())
}

pub(crate) fn workloads(nodes: Vec<Value>, pods: Vec<Value>, budgets: Vec<Budget>) -> Workloads {
    let nodes: Vec<Node> = nodes.into_iter().map(|node| serde_json::from_value(node).unwrap()).collect();
    let pods: Vec<Pod> = pods.into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
    Workloads::new(&nodes, &pods, budgets, Amount::new(250, 64))
}

/// An agent of 4 cpus and 4096 MB, partly in use by others.
pub(crate) fn agent(name: &str, cpus: f64, mem: f64) -> Agent {
    Agent {
        id: format!("S-{name}"),
        hostname: name.to_owned(),
        address: format!("{name}:5051"),
        version: "1.11.0".to_owned(),
        active: true,
        attributes: [("rack".to_owned(), format!("rack-{name}"))].into(),
        resources: Pressure { cpus: 4.0, mem: 4096.0 },
        used: Pressure { cpus, mem },
        ports: "[31000-32000]".to_owned(),
        ..Agent::default()
    }
}

/// A master that knows the framework.
pub(crate) fn master(agents: Vec<Agent>) -> Master {
    let framework =
        Framework { id: "F".to_owned(), connected: true, active: true, principal: String::new(), tasks: Vec::new() };
    Master {
        version: "1.11.0".to_owned(),
        leader: "10.0.0.5:5050".to_owned(),
        agents,
        frameworks: vec![framework],
        ..Master::default()
    }
}

/// A scheduler that knows everything.
pub(crate) fn acting() -> Summary {
    Summary { acting: true, ..Summary::default() }
}
