//! Nodes appear with the first pod, hold exactly what pods request, and go when idle.
use serde_json::Value;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn first_pod_makes_one_node_and_one_task_with_its_requests() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "from-zero");
    namespace.sleeper("web", "500m", "128Mi");
    let pod = namespace.wait("web", NODE_START);

    let nodes = lab.nodes();
    assert_eq!(nodes.len(), 1, "one pod wakes one node");
    let node = &nodes[0];
    assert_eq!(pod["spec"]["nodeName"], node["metadata"]["name"]);

    // The labels are the agent's attributes and fault domain, as Mesos itself tells them.
    let agent_id = node["metadata"]["annotations"]["kmctl.io/agent-id"].as_str().expect("the agent is named");
    let agents = lab.mesos_get("/slaves")["slaves"].as_array().cloned().expect("agents");
    let agent = agents.iter().find(|a| a["id"] == agent_id).expect("Mesos knows the agent");
    let attributes = agent["attributes"].as_object().expect("the lab's agents have attributes");
    assert!(!attributes.is_empty());
    for (name, value) in attributes {
        let label = &node["metadata"]["labels"][format!("k8s.mesosphere.io/attribute-{name}")];
        let wanted = value.as_str().map_or_else(|| value.to_string().trim_end_matches(".0").to_owned(), str::to_owned);
        assert_eq!(label, &Value::String(wanted), "attribute {name}");
    }
    let domain = &agent["domain"]["fault_domain"];
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["topology.kubernetes.io/region"], domain["region"]["name"]);
    assert_eq!(labels["topology.kubernetes.io/zone"], domain["zone"]["name"]);

    let task = lab.task("web.from-zero").expect("the pod is a Mesos task");
    assert_eq!(number(&task["resources"]["cpus"]), 0.5);
    assert_eq!(number(&task["resources"]["mem"]), 128.0);
    assert_eq!(task["slave_id"], agent_id);
    let uid = pod["metadata"]["uid"].as_str().expect("a UID");
    assert!(task["id"].as_str().is_some_and(|id| id.contains(uid)), "the task's id holds the pod's UID");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn ten_random_pods_use_exactly_their_sum_plus_nodes_and_overhead() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "sums");
    lab.apply(
        "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: with-overhead}
handler: runc
overhead: {podFixed: {cpu: 30m, memory: 20Mi}}
",
    );
    let mut random = Random(2026);
    let (mut cpus, mut mem) = (0.0, 0.0);
    for index in 0..10 {
        let (cpu, memory) = (random.between(10, 150), random.between(32, 120));
        let (init_cpu, init_memory) = (random.between(10, 200), random.between(32, 150));
        let overhead = index % 3 == 0;
        let init = format!(
            "  initContainers:
  - name: first
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [\"true\"]
    resources: {{requests: {{cpu: {init_cpu}m, memory: {init_memory}Mi}}}}
{}",
            if overhead { "  runtimeClassName: with-overhead" } else { "" }
        );
        namespace.pod(&format!("p{index}"), &format!("{cpu}m"), &format!("{memory}Mi"), &init, "sleep 100000");
        // Kubernetes' rule: the larger of the containers' sum and any init container, plus the overhead.
        cpus += f64::from(cpu.max(init_cpu) + if overhead { 30 } else { 0 }) / 1000.0;
        mem += f64::from(memory.max(init_memory) + if overhead { 20 } else { 0 });
    }
    lab.wait_for_pods("sums", 10, NODE_START);

    let tasks = lab.tasks();
    let node_tasks: Vec<&Value> =
        tasks.iter().filter(|t| t["name"].as_str().is_some_and(|n| n.starts_with("node."))).collect();
    let nodes = lab.nodes().len();
    assert_eq!(node_tasks.len(), nodes, "one node task a node");
    for task in node_tasks {
        cpus += number(&task["resources"]["cpus"]);
        mem += number(&task["resources"]["mem"]);
    }
    // cluster.yaml's default overhead: 250m and 512Mi.
    cpus += 0.25 * nodes as f64;
    mem += 512.0 * nodes as f64;
    let used = lab.framework()["used_resources"].clone();
    assert!((number(&used["cpus"]) - cpus).abs() < 0.0005, "cpus: Mesos counts {} and we {cpus}", used["cpus"]);
    assert_eq!(number(&used["mem"]), mem, "mem");
    drop(namespace);
    lab.kubectl(&["delete", "runtimeclass", "with-overhead"]).success();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_finished_pod_frees_its_resources_and_idle_nodes_go() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "finished");
    namespace.sleeper("keeper", "100m", "64Mi");
    namespace.pod("done", "300m", "100Mi", "  restartPolicy: Never", "exit 0");
    namespace.pod("broken", "100m", "64Mi", "  restartPolicy: Never", "exit 7");
    namespace.wait("keeper", NODE_START);

    let finished = eventually(SETTLE, "the finished pod's task", || lab.completed_task("done.finished"));
    assert_eq!(finished["state"], "TASK_FINISHED");
    let failed = eventually(SETTLE, "the failed pod's task", || lab.completed_task("broken.finished"));
    assert_eq!(failed["state"], "TASK_FAILED");
    assert_eq!(lab.pod("finished", "done").expect("still there")["status"]["phase"], "Succeeded");
    let used = number(&lab.framework()["used_resources"]["cpus"]);
    let nodes = lab.nodes().len() as f64;
    assert!(used < 0.1 + nodes * 0.27 + 0.001, "0.3 cpus are free again: {used}");

    lab.kubectl(&["-n", "finished", "delete", "pod", "keeper"]).success();
    let killed = eventually(SETTLE, "the deleted pod's task to end", || lab.completed_task("keeper.finished"));
    assert!(["TASK_KILLED", "TASK_FINISHED", "TASK_FAILED"].contains(&killed["state"].as_str().unwrap_or_default()));
    assert!(lab.task("keeper.finished").is_none());
    drop(namespace);
    lab.wait_for_zero_nodes();
    let used = lab.framework()["used_resources"].clone();
    assert_eq!((number(&used["cpus"]), number(&used["mem"])), (0.0, 0.0), "nothing is used");
}
