//! Endpoints are right again within ten seconds of whatever happened to them.
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{apply_speaker, granted, host_of, service};
use crate::support::*;

const LIMIT: Duration = Duration::from_secs(10);

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

/// The same out of its slices.
fn slices(lab: &Lab) -> Vec<String> {
    let mut all = Vec::new();
    for slice in lab.list(&["-n", "repair", "endpointslices", "-l", "kubernetes.io/service-name=web"]) {
        for port in slice["ports"].as_array().into_iter().flatten() {
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                all.push(format!("{}:{}", endpoint["addresses"][0], port["port"]));
            }
        }
    }
    all.sort();
    all
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn endpoints_are_right_again_after_a_killed_writer_and_after_a_foreign_edit() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "repair");
    let labelled = |name: &str| {
        apply_speaker(&namespace, name, &json!({}));
        lab.kubectl(&["-n", "repair", "label", "pod", name, "part=web"]).success();
    };
    let spec = json!({ "selector": { "part": "web" }, "ports": [{ "name": "tcp", "port": 80, "targetPort": "tcp" }] });
    service(&namespace, "web", &spec);
    labelled("a");
    namespace.wait("a", NODE_START);
    labelled("b");
    namespace.wait("b", NODE_START);
    let of = |names: &[&str]| -> Vec<String> {
        let mut all: Vec<String> = names
            .iter()
            .map(|name| lab.pod("repair", name).expect("there"))
            .map(|pod| {
                let port = granted(&pod).into_iter().find(|port| port["protocol"] == "TCP").expect("granted");
                format!("\"{}\":{}", host_of(&pod), port["hostPort"])
            })
            .collect();
        all.sort();
        all
    };
    let right = |what: &str, limit: Duration, wanted: &[String]| {
        eventually_or(
            limit,
            &format!("the endpoints to be right after {what}: {wanted:?}"),
            || format!("{:?} {:?}", endpoints(&lab), slices(&lab)),
            || (endpoints(&lab) == wanted && slices(&lab) == wanted).then_some(()),
        );
    };
    let (both, only) = (of(&["a", "b"]), of(&["a"]));
    right("the start", SETTLE, &both);

    let host = lab.hosts("control-plane").remove(0);
    let pid = || lab.ssh(&host, "systemctl show -p MainPID --value km-endpoints").success().trim().to_owned();
    let old = pid();
    // It dies first, so that the change can be nobody's but its successor's.
    lab.ssh(&host, &format!("kill -9 {old}")).success();
    lab.kubectl(&["-n", "repair", "label", "pod", "b", "part-"]).success();
    right("kill -9", LIMIT, &only);
    lab.kubectl(&["-n", "repair", "label", "pod", "b", "part=web"]).success();
    right("the successor's start", LIMIT, &both);
    assert_ne!(pid(), old, "somebody else wrote");

    let began = Instant::now();
    lab.kubectl(&["-n", "repair", "patch", "endpoints", "web", "--type=merge", "-p", "{\"subsets\":[]}"]).success();
    lab.kubectl(&["-n", "repair", "delete", "endpointslices", "-l", "kubernetes.io/service-name=web"]).success();
    right("a foreign edit", LIMIT.saturating_sub(began.elapsed()), &both);
}
