//! Stock judgement: DaemonSets, selectors, anti-affinity and spreading, also from zero nodes.
use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_daemon_set_neither_wakes_nor_holds_a_node() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    assert_eq!(lab.hosts("agent").len(), 3, "the lab for this test has three agents");
    let namespace = Namespace::new(&lab, "daemons");
    lab.apply(
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere, namespace: daemons}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: docker.io/library/busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, sleep 100000]
        resources: {requests: {cpu: 50m, memory: 32Mi}}
",
    );
    namespace.sleeper("one", "100m", "64Mi");
    namespace.wait("one", NODE_START);
    lab.wait_for_pods("daemons", 2, SETTLE);
    let kubelets: usize = lab.hosts("agent").iter().map(|h| kubelets_on(&lab, h)).sum();
    assert_eq!(kubelets, 1, "one pod, one kubelet");

    lab.kubectl(&["-n", "daemons", "delete", "pod", "one"]).success();
    lab.wait_for_zero_nodes();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn node_selector_on_an_attribute_wakes_the_agent_that_has_it() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let agents = lab.mesos_get("/slaves")["slaves"].as_array().cloned().expect("agents");
    let last = agents.iter().max_by_key(|a| a["hostname"].as_str().map(str::to_owned)).expect("an agent");
    let rack = last["attributes"]["rack"].as_str().expect("a rack");
    let namespace = Namespace::new(&lab, "selector");
    let selector = format!("  nodeSelector: {{k8s.mesosphere.io/attribute-rack: {rack}}}");
    namespace.pod("picky", "100m", "64Mi", &selector, "sleep 100000");
    namespace.wait("picky", NODE_START);
    let node = &lab.nodes()[0];
    assert_eq!(node["metadata"]["labels"]["k8s.mesosphere.io/attribute-rack"], rack);
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn required_anti_affinity_over_hostname_takes_one_node_each_from_zero() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "apart");
    replicas(
        &lab,
        "apart",
        3,
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: spread}}}]}}",
    );
    let pods = lab.wait_for_pods(&namespace.name, 3, NODE_START);
    assert_eq!(distinct(&pods, |p| p["spec"]["nodeName"].clone()).len(), 3);
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn topology_spread_over_zones_holds_from_zero() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "zones");
    replicas(
        &lab,
        "zones",
        3,
        "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: spread}}}]",
    );
    let pods = lab.wait_for_pods(&namespace.name, 3, NODE_START);
    let nodes = lab.nodes();
    let zone = |pod: &Value| {
        let node = nodes.iter().find(|n| n["metadata"]["name"] == pod["spec"]["nodeName"]).expect("its node");
        node["metadata"]["labels"]["topology.kubernetes.io/zone"].clone()
    };
    assert_eq!(distinct(&pods, zone).len(), 3, "three zones, three pods, one in each");
}

fn replicas(lab: &Lab, namespace: &str, count: usize, constraint: &str) {
    lab.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: spread, namespace: {namespace}}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: spread}}}}
  template:
    metadata: {{labels: {{app: spread}}}}
    spec:
      terminationGracePeriodSeconds: 2
      {constraint}
      containers:
      - name: main
        image: docker.io/library/busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, sleep 100000]
        resources: {{requests: {{cpu: 50m, memory: 32Mi}}}}
"
    ));
}

fn kubelets_on(lab: &Lab, host: &str) -> usize {
    lab.ssh(host, "pgrep -x -c kubelet || true").success().trim().parse().unwrap_or_default()
}

fn distinct(pods: &[Value], key: impl Fn(&Value) -> Value) -> BTreeSet<String> {
    pods.iter().map(|p| key(p).to_string()).collect()
}
