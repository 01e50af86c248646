//! Endpoints are right again within ten seconds of whatever happened to them.
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{apply_speaker, beside, granted, host_of, node_of, service};
use crate::support::*;

const LIMIT: Duration = Duration::from_secs(10);

/// After so long without a word from its kubelet the controller manager calls a node unknown, and its pods not ready:
/// 40 s, looked at every 5 s (`--node-monitor-grace-period` and `--node-monitor-period` of kube-controller-manager).
const KUBERNETES_RULE: Duration = Duration::from_secs(60);

/// `address:port` of a Service's Endpoints.
fn endpoints(lab: &Lab) -> Vec<String> {
    let object = lab.get(&["-n", "repair", "endpoints", "web"]).unwrap_or_default();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for subset in list(&object, "subsets") {
        for port in list(&subset, "ports") {
            all.extend(list(&subset, "addresses").iter().map(|one| format!("{}:{}", one["ip"], port["port"])));
        }
    }
    all.sort();
    all
}

/// The same out of its slices, which also name endpoints that are not ready.
fn slices(lab: &Lab) -> Vec<String> {
    let mut all = Vec::new();
    for slice in lab.list(&["-n", "repair", "endpointslices", "-l", "kubernetes.io/service-name=web"]) {
        for port in slice["ports"].as_array().into_iter().flatten() {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true) {
                all.push(format!("{}:{}", endpoint["addresses"][0], port["port"]));
            }
        }
    }
    all.sort();
    all
}

/// The Service `web` of the pods `a` and `b`.
struct Web<'a>(&'a Lab);

impl<'a> Web<'a> {
    /// `second` is what `b` has beside.
    fn with_two_pods(namespace: &Namespace<'a>, second: &Value) -> Web<'a> {
        let ports = json!([{ "name": "tcp", "port": 80, "targetPort": "tcp" }]);
        service(namespace, "web", &json!({ "selector": { "part": "web" }, "ports": ports }));
        for (name, extra) in [("a", &json!({})), ("b", second)] {
            apply_speaker(namespace, name, extra);
            namespace.lab.kubectl(&["-n", "repair", "label", "pod", name, "part=web"]).success();
            namespace.wait(name, NODE_START);
        }
        Web(namespace.lab)
    }

    /// The endpoints that these pods make.
    fn of(&self, names: &[&str]) -> Vec<String> {
        let pods = names.iter().map(|name| self.0.pod("repair", name).expect("there"));
        let mut all: Vec<String> = pods
            .map(|pod| {
                let port = granted(&pod).into_iter().find(|port| port["protocol"] == "TCP").expect("granted");
                format!("\"{}\":{}", host_of(&pod), port["hostPort"])
            })
            .collect();
        all.sort();
        all
    }

    /// Waits until Endpoints and slices are what they should be.
    fn right(&self, after: &str, limit: Duration, wanted: &[String]) {
        eventually_or(
            limit,
            &format!("the endpoints to be right after {after}: {wanted:?}"),
            || format!("{:?} {:?}", endpoints(self.0), slices(self.0)),
            || (endpoints(self.0) == wanted && slices(self.0) == wanted).then_some(()),
        );
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn endpoints_are_right_again_after_a_killed_writer_and_after_a_foreign_edit() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "repair");
    let web = Web::with_two_pods(&namespace, &json!({}));
    let (both, only) = (web.of(&["a", "b"]), web.of(&["a"]));
    web.right("the start", SETTLE, &both);

    let host = lab.hosts("control-plane").remove(0);
    let pid = || lab.ssh(&host, "systemctl show -p MainPID --value km-endpoints").success().trim().to_owned();
    let old = pid();
    // It dies first, so that the change can be nobody's but its successor's.
    lab.ssh(&host, &format!("kill -9 {old}")).success();
    lab.kubectl(&["-n", "repair", "label", "pod", "b", "part-"]).success();
    web.right("kill -9", LIMIT, &only);
    lab.kubectl(&["-n", "repair", "label", "pod", "b", "part=web"]).success();
    web.right("the successor's start", LIMIT, &both);
    assert_ne!(pid(), old, "somebody else wrote");

    let began = Instant::now();
    lab.kubectl(&["-n", "repair", "patch", "endpoints", "web", "--type=merge", "-p", "{\"subsets\":[]}"]).success();
    lab.kubectl(&["-n", "repair", "delete", "endpointslices", "-l", "kubernetes.io/service-name=web"]).success();
    web.right("a foreign edit", LIMIT.saturating_sub(began.elapsed()), &both);
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn endpoints_of_a_lost_node_go_by_kubernetes_rules() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "repair");
    let web = Web::with_two_pods(&namespace, &beside("podAntiAffinity", "a"));
    let (both, only) = (web.of(&["a", "b"]), web.of(&["a"]));
    web.right("the start", SETTLE, &both);

    let node = node_of(&lab.pod("repair", "b").expect("there"));
    assert_ne!(node, node_of(&lab.pod("repair", "a").expect("there")));
    // A node that starts is called unknown as well, until its kubelet has reported for the first time.
    let ready = |status: &str| {
        let node = lab.get(&["node", &node])?;
        let conditions = node["status"]["conditions"].as_array()?;
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == status).then_some(())
    };
    eventually(NODE_START, "the node to be ready", || ready("True"));
    let power = PowerCut::of(&lab, &node);
    // A node that is gone is not called anything any more.
    eventually(KUBERNETES_RULE, "the node to be called unknown", || {
        if lab.get(&["node", &node]).is_none() { Some(()) } else { ready("Unknown") }
    });
    web.right("the loss of a node", LIMIT, &only);
    // The host comes back with another boot: what ran there has ended, and Mesos and km find that out.
    drop(power);
    eventually(NODE_START, "the lost pod's task to end", || lab.task("b.repair").is_none().then_some(()));
    lab.wait_for_agents(NODE_START);
}
