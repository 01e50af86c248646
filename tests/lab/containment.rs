//! A pod that eats too much dies alone.
use std::time::Duration;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_that_eats_too_much_is_killed_alone() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "containment");
    namespace.sleeper("neighbour", "100m", "64Mi");
    let neighbour = namespace.wait("neighbour", NODE_START);
    let node = neighbour["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let executor = executor_pid(&lab, &node);

    // dd asks for one buffer of 2 GiB and fills it; without a limit of its own, only the node's grant stops it.
    let pinned = format!("  nodeSelector: {{kubernetes.io/hostname: {node}}}");
    namespace.pod("glutton", "100m", "64Mi", &pinned, "sleep 3; exec dd if=/dev/zero of=/dev/null bs=2G count=1");
    let killed = eventually_or(
        Duration::from_secs(120),
        "the glutton to be killed and restarted",
        || lab.kubectl(&["-n", "containment", "describe", "pods"]).stdout,
        || {
            let pod = lab.pod("containment", "glutton")?;
            let status = pod["status"]["containerStatuses"][0].clone();
            (status["restartCount"].as_u64()? >= 1).then_some(status)
        },
    );
    let reason = &killed["lastState"]["terminated"];
    assert!(reason["reason"] == "OOMKilled" || reason["exitCode"] == 137, "killed by the kernel: {reason}");

    let after = lab.pod("containment", "neighbour").expect("still there");
    assert_eq!(container_identity(&after), container_identity(&neighbour), "the neighbour lives on");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(executor_pid(&lab, &node), executor, "the executor lives on");
}

/// The pid of `km node` on the agent behind a node.
fn executor_pid(lab: &Lab, node: &str) -> String {
    let pid = lab.ssh(node, "pgrep -o -f 'km node'").success();
    assert!(!pid.trim().is_empty(), "an executor runs on {node}");
    pid.trim().to_owned()
}
