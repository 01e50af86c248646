//! New connections while a Deployment is replaced.
use std::time::Duration;

use serde_json::json;

use super::{apply_speaker, service, speaker};
use crate::support::*;

/// New connections a second.
const RATE: u32 = 50;

/// Seconds of them at most, where the update takes long.
const SECONDS: u32 = 240;

/// How many connections failed while it was replaced, and how.
pub fn failures_of_a_rolling_update(lab: &Lab) -> (usize, String) {
    let namespace = Namespace::new(lab, "roll");
    let mut spec = speaker("web", &json!({ "terminationGracePeriodSeconds": 30 }));
    // So that whoever still sends to a pod that goes is told in time where else to send.
    spec["containers"][0]["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "5"] } } });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "roll" },
        "spec": {
            "replicas": 3, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": spec },
        },
    });
    lab.apply(&deployment.to_string());
    lab.wait_for_pods("roll", 3, NODE_START);
    apply_speaker(&namespace, "caller", &json!({}));
    namespace.wait("caller", SETTLE);
    let ports = json!([{ "name": "tcp", "port": 8080, "targetPort": "tcp" }]);
    service(&namespace, "web", &json!({ "selector": { "app": "web" }, "ports": ports }));

    let script = format!("{}load('web', 8080, {RATE}, {SECONDS})\n", include_str!("load.py"));
    let command = ["-n", "roll", "exec", "-i", "caller", "--", "/usr/bin/python3", "-"];
    eventually(SETTLE, "the Service to answer", || {
        let once = format!("{}load('web', 8080, 1, 1)\n", include_str!("load.py"));
        run_with(&mut lab.kubectl_command(&command), &once).success().starts_with("1 0").then_some(())
    });
    let printed = std::thread::scope(|scope| {
        let load = scope.spawn(|| run_with(&mut lab.kubectl_command(&command), &script).success());
        std::thread::sleep(Duration::from_secs(5));
        lab.kubectl(&["-n", "roll", "rollout", "restart", "deployment", "web"]).success();
        lab.kubectl(&["-n", "roll", "rollout", "status", "deployment", "web", "--timeout=180s"]).success();
        // Until the last of the old pods is gone, which its Service may still lead to.
        eventually(SETTLE, "the old pods to end", || (lab.list(&["-n", "roll", "pods"]).len() == 4).then_some(()));
        // Within the load's time, or it was not tried.
        assert!(!load.is_finished(), "the update took longer than the load");
        lab.kubectl(&["-n", "roll", "exec", "caller", "--", "touch", "/tmp/load-stop"]).success();
        load.join().expect("it ends")
    });
    let (counts, how) = printed.split_once('\n').expect("two numbers first");
    let (all, failed) = counts.split_once(' ').expect("two numbers");
    let all: u32 = all.parse().expect("a number");
    assert!(all > 10 * RATE, "{all} connections");
    (failed.parse().expect("a number"), how.to_owned())
}
