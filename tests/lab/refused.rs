//! What nothing grants is refused, and it is said why.
use std::time::Duration;

use serde_json::json;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_resize_is_refused_and_the_pod_its_task_and_its_node_keep_their_size() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "resize");
    namespace.sleeper("web", "100m", "64Mi");
    let pod = namespace.wait("web", NODE_START);
    let node = pod["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let grant = || lab.get(&["node", &node]).expect("the node")["metadata"]["annotations"]["kmctl.io/grant"].clone();
    let before = grant();
    let larger = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}]}});
    let larger = larger.to_string();
    let refused = lab.kubectl(&["-n", "resize", "patch", "pod", "web", "--subresource", "resize", "-p", &larger]);
    assert!(!refused.ok(), "{}", refused.stdout);
    for part in ["its Mesos task cannot grow", "docs/scheduler.md", "What is refused"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let task = lab.task("web.resize").expect("its task");
    assert_eq!((number(&task["resources"]["cpus"]), number(&task["resources"]["mem"])), (0.1, 64.0));
    assert_eq!(grant(), before);
    let now = lab.pod("resize", "web").expect("there");
    assert_eq!(container_identity(&now), container_identity(&pod), "nothing was started anew");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn claims_are_refused_at_once_and_devices_wait_with_a_reason_and_wake_nothing() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let _namespace = Namespace::new(&lab, "ungranted");
    let pod = |name: &str, extra: &str, resources: &str| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: ungranted}}
spec:
{extra}
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    command: [sleep, '1000']
    resources: {{{resources}}}
"
        )
    };
    let claims = "  resourceClaims: [{name: gpu, resourceClaimName: mine}]";
    let manifest = pod("claims", claims, "claims: [{name: gpu}]");
    let refused = run_with(&mut lab.kubectl_command(&["apply", "-f", "-"]), &manifest);
    assert!(!refused.ok(), "{}", refused.stdout);
    for part in ["nothing grants them yet", "docs/scheduler.md", "What is refused"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }

    for (name, limits) in [("device", "nvidia.com/gpu: 1"), ("pages", "hugepages-2Mi: 4Mi")] {
        let resource = limits.split(": ").next().expect("a name");
        lab.apply(&pod(name, "", &format!("limits: {{cpu: 100m, memory: 64Mi, {limits}}}")));
        let told = eventually_or(
            Duration::from_secs(30),
            &format!("an event of {name} that names {resource}"),
            || lab.events("ungranted", name),
            || Some(lab.events("ungranted", name)).filter(|text| text.contains(resource)),
        );
        assert!(told.contains("What is refused"), "{told}");
        let why = lab.kmctl(&["why", "pod", &format!("ungranted/{name}")]).success();
        assert!(why.contains(resource) && why.contains("What is refused"), "{why}");
    }
    for _ in 0..5 {
        assert_eq!((lab.nodes().len(), lab.tasks().len()), (0, 0), "nothing is woken for them");
        std::thread::sleep(Duration::from_secs(1));
    }
}
