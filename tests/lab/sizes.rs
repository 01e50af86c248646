//! What pods take from Mesos is what Kubernetes itself accounts for them.
use std::collections::BTreeMap;

use kmctl_core::cluster::quantity::{Bytes, Millicores};
use serde_json::json;

use crate::support::*;

/// Thousandths of a processor, and bytes.
type Size = (u64, u64);

/// The rounding that docs/scheduler.md documents: whole megabytes, and never less than a container of Mesos.
fn rounded((millicpus, bytes): Size) -> Size {
    (millicpus.max(10), bytes.div_ceil(1 << 20).max(32))
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn tasks_are_as_large_as_kubernetes_accounts_the_pods() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    lab.apply(
        "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: sizes-overhead}
handler: runc
overhead: {podFixed: {cpu: 50m, memory: 16Mi}}
",
    );
    let namespace = Namespace::new(&lab, "sizes");
    let pods = kmctl_core::k8s::manifests("sizes.yaml", include_str!("sizes.yaml")).expect("YAML");
    let mut documented = BTreeMap::new();
    for mut pod in pods {
        pod["metadata"]["namespace"] = json!("sizes");
        pod["spec"]["terminationGracePeriodSeconds"] = json!(2);
        for (list, ends) in [("containers", false), ("initContainers", true)] {
            for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                let ends = ends && container["restartPolicy"] != "Always";
                container["image"] = json!("docker.io/library/busybox:latest");
                container["imagePullPolicy"] = json!("IfNotPresent");
                container["command"] = json!(["sh", "-c", if ends { "true" } else { "sleep 100000" }]);
            }
        }
        let task = pod["metadata"]["annotations"]["task"].as_str().expect("a size").to_owned();
        documented.insert(name_of(&pod), task);
        // JSON is YAML.
        lab.apply(&pod.to_string());
    }
    assert_eq!(documented.len(), 12);
    lab.wait_for_pods("sizes", 12, NODE_START);
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debugger",
        "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000"]}]}});
    let patch = debugger.to_string();
    let ephemeral = ["-n", "sizes", "patch", "pod", "debugged", "--subresource", "ephemeralcontainers", "-p", &patch];
    lab.kubectl(&ephemeral).success();
    eventually(SETTLE, "the ephemeral container to run", || {
        let pod = lab.pod("sizes", "debugged")?;
        (!pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_null()).then_some(())
    });

    let scheduler = accounted_by_kube_scheduler(&lab);
    let (described, allocated) = accounted_by_kubectl(&lab);
    let tasks = lab.tasks();
    let mut sum: Size = (0, 0);
    for (name, documented) in &documented {
        let task = tasks.iter().find(|task| task["name"] == format!("{name}.sizes")).expect("a task");
        let (cpus, mem) = (number(&task["resources"]["cpus"]), number(&task["resources"]["mem"]));
        assert_eq!(format!("cpus:{cpus};mem:{mem}"), *documented, "{name}");
        let mesos = ((cpus * 1000.0).round() as u64, mem as u64);
        assert_eq!(mesos, rounded(scheduler[name]), "{name}: kube-scheduler accounts {:?}", scheduler[name]);
        assert_eq!(mesos, rounded(described[name]), "{name}: kubectl describes {:?}", described[name]);
        let pod = lab.pod("sizes", name).expect("there");
        assert_eq!(pod["metadata"]["annotations"]["kmctl.io/granted"], json!(documented), "{name}");
        sum = (sum.0 + described[name].0, sum.1 + described[name].1);
    }
    assert_eq!(allocated, sum, "the nodes' allocated resources are those of the twelve pods");
    drop(namespace);
    lab.kubectl(&["delete", "runtimeclass", "sizes-overhead"]).success();
}

/// By pod, out of kube-scheduler's `kube_pod_resource_request`.
fn accounted_by_kube_scheduler(lab: &Lab) -> BTreeMap<String, Size> {
    let mut sizes: BTreeMap<String, Size> = BTreeMap::new();
    let text = lab.kube_scheduler("/metrics/resources");
    let ours = |line: &&str| line.starts_with("kube_pod_resource_request{") && line.contains("namespace=\"sizes\"");
    for line in text.lines().filter(ours) {
        let label = |name: &str| line.split(&format!("{name}=\"")).nth(1)?.split('"').next();
        let value: f64 = line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number");
        let size = sizes.entry(label("pod").expect("a pod").to_owned()).or_default();
        match label("resource") {
            Some("cpu") => size.0 = (value * 1000.0).round() as u64,
            Some("memory") => size.1 = value as u64,
            _ => {}
        }
    }
    assert!(!sizes.is_empty(), "{text}");
    sizes
}

/// By pod, and the sum of "Allocated resources", out of `kubectl describe nodes`.
fn accounted_by_kubectl(lab: &Lab) -> (BTreeMap<String, Size>, Size) {
    let text = lab.kubectl(&["describe", "nodes"]).success();
    let cpu = |text: &str| text.parse::<Millicores>().map(|Millicores(number)| number).expect("a quantity");
    let memory = |text: &str| text.parse::<Bytes>().map(|Bytes(number)| number).expect("a quantity");
    let (mut pods, mut allocated): (BTreeMap<String, Size>, Size) = (BTreeMap::new(), (0, 0));
    let mut below = "";
    for line in text.lines() {
        if !line.starts_with(' ') {
            below = line.split(':').next().unwrap_or_default();
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match (below, words.as_slice()) {
            // Namespace, name, requests and limits of cpu, requests and limits of memory, each with a share.
            ("Non-terminated Pods", ["sizes", name, cpus, _, _, _, bytes, ..]) => {
                pods.insert((*name).to_owned(), (cpu(cpus), memory(bytes)));
            }
            ("Allocated resources", ["cpu", cpus, ..]) => allocated.0 += cpu(cpus),
            ("Allocated resources", ["memory", bytes, ..]) => allocated.1 += memory(bytes),
            _ => {}
        }
    }
    assert!(!pods.is_empty(), "{text}");
    (pods, allocated)
}
