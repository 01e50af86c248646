//! The cluster is shared with other frameworks: what is not needed is not held.
use std::time::Duration;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_waits_for_another_framework_and_its_event_says_so() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "sharing");
    // A node that is awake, so that the time measured is the scheduler's and not that of starting a node.
    namespace.sleeper("first", "100m", "64Mi");
    namespace.wait("first", NODE_START);
    let node = lab.nodes()[0].clone();

    let mut other = hold_everything(&lab);
    namespace.sleeper("waiting", "500m", "128Mi");
    let event = eventually(Duration::from_secs(30), "an event that names Mesos", || {
        let text = lab.events("sharing", "waiting");
        text.lines().find(|l| l.contains("Mesos") && l.chars().any(|c| c.is_ascii_digit())).map(str::to_owned)
    });
    assert!(event.contains("cpu"), "the figures are of a resource: {event}");
    assert_eq!(lab.pod("sharing", "waiting").expect("there")["status"]["phase"], "Pending");

    other.stop();
    namespace.wait("waiting", Duration::from_secs(10));
    assert_eq!(name_of(&lab.nodes()[0]), name_of(&node), "the same node");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn with_nothing_pending_no_offer_is_held_and_the_framework_is_suppressed() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    for sample in 0..60 {
        let framework = lab.framework();
        assert_eq!(framework["offers"].as_array().map(Vec::len), Some(0), "sample {sample}: {}", framework["offers"]);
        let offered = number(&framework["offered_resources"]["cpus"]);
        assert_eq!(offered, 0.0, "sample {sample}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let metrics = lab.mesos_get("/metrics/snapshot");
    let suppressed: Vec<_> = metrics
        .as_object()
        .expect("a map")
        .iter()
        .filter(|(name, _)| name.contains("kubernetes-") && name.ends_with("/suppressed"))
        .collect();
    assert!(!suppressed.is_empty(), "Mesos reports suppression per role");
    for (name, value) in suppressed {
        assert_eq!(number(value), 1.0, "{name}");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_that_no_agent_could_take_wakes_nothing_and_its_event_says_why() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "impossible");
    namespace.sleeper("huge", "100", "128Mi");
    namespace.pod("nowhere", "100m", "64Mi", "  nodeSelector: {k8s.mesosphere.io/attribute-rack: r99}", "sleep 1000");
    for (pod, wanted) in [("huge", "100 cpus"), ("nowhere", "r99")] {
        let text = eventually_or(
            Duration::from_secs(30),
            &format!("an event of {pod} with {wanted}"),
            || lab.events("impossible", pod),
            || Some(lab.events("impossible", pod)).filter(|t| t.contains(wanted)),
        );
        assert!(text.contains("Mesos"), "{text}");
    }
    // Long enough for several rounds of the scheduler's loop; the count is what is asserted.
    for _ in 0..10 {
        assert_eq!(lab.nodes().len(), 0, "no node was woken");
        assert_eq!(lab.tasks().len(), 0, "no task was launched");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A foreign framework that takes all that is free on every agent, with real tasks.
fn hold_everything(lab: &Lab) -> Background {
    let background = lab.foreign_framework("spark", &["--cpus", "all", "--mem", "all"]);
    eventually(SETTLE, "the other framework to hold the agents", || {
        let slaves = lab.mesos_get("/slaves")["slaves"].as_array().cloned().unwrap_or_default();
        let free = |s: &serde_json::Value| number(&s["resources"]["cpus"]) - number(&s["used_resources"]["cpus"]);
        (!slaves.is_empty() && slaves.iter().all(|s| free(s) < 0.3)).then_some(())
    });
    background
}
