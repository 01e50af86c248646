//! Pods that wait are tried again when something happens, and not without pause: kube-scheduler's own figures say so.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::*;

/// Pods of the crowd, and how many of them the agent has room for.
const CROWD: usize = 50;
const FIT: usize = 20;

/// How often one pod of the crowd may be tried again while the others are placed, by what wakes it. An extender's refusal
/// names no reason that kube-scheduler could match with an event, so that each event wakes all pods that wait, and
/// `SchedulerPopFromBackoffQ` lets them skip their backoff while nothing else is queued.
const WAKES: [(&str, &[&str], u64); 3] = [
    // A pod that runs is bound and then written by its kubelet three times: received, its sandbox, its container. An attempt
    // during which such an event comes is queued again as one that failed.
    (
        "pods that are placed",
        &["AssignedPodAdd", "AssignedPodUpdate", "AssignedPodDelete", "ScheduleAttemptFailure"],
        4 * FIT as u64,
    ),
    // The Node is made, becomes ready, and is told at most each second what its pods were granted.
    ("the node", &["NodeAdd", "NodeUpdate", "storage.k8s.io/CSINode"], FIT as u64),
    // What is written to the waiting pod itself: a changed reason, and km scheduler's word that there is an offer now.
    ("the waiting pod", &["TargetPodUpdate"], 4),
];

/// Attempts for each waiting pod in [`QUIET`] without an event of ours: one event of the node (a kubelet reports its images
/// and conditions at times), tried twice.
const QUIET_EACH: u64 = 2;

/// Without any node, each try is an error, and comes 1 s and then every 2 s after the one before (`podMaxBackoffSeconds`),
/// rounded up to the next second.
const ERRORS_EACH: u64 = 16;

const QUIET: Duration = Duration::from_secs(30);

/// Attempts so far that did not end in a node.
fn vain_attempts(lab: &Lab) -> u64 {
    let text = lab.kube_scheduler("/metrics");
    let attempts = text.lines().filter(|line| line.starts_with("scheduler_schedule_attempts_total{"));
    let vain = attempts.filter(|line| !line.contains("result=\"scheduled\""));
    let counts = vain.map(|line| line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok()).expect("a number"));
    counts.sum::<f64>() as u64
}

/// How many pods each event has put into the queue of those to be tried, so far. A pod that comes from the backoff's queue
/// was counted when it went there, and a new pod is tried whatever happens.
fn woken(lab: &Lab) -> BTreeMap<String, u64> {
    let text = lab.kube_scheduler("/metrics");
    let mut woken = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("scheduler_queue_incoming_pods_total{")) {
        let label = |name: &str| {
            line.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split('"').next()).expect("a label")
        };
        let moved = ["BackoffComplete", "PopFromBackoffQ", "UnscheduledPodAdd"].contains(&label("event"));
        if !moved && label("queue") != "unschedulable" {
            let count = line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok()).expect("a number");
            *woken.entry(label("event").to_owned()).or_default() += count as u64;
        }
    }
    woken
}

/// The versions of the pods that wait: any write changes them, that of kube-scheduler to PodScheduled too.
fn waiting(lab: &Lab, namespace: &str) -> BTreeMap<String, Value> {
    let pods = lab.list(&["-n", namespace, "pods"]);
    let waiting = pods.iter().filter(|pod| pod["spec"]["nodeName"].is_null());
    waiting.map(|pod| (name_of(pod), pod["metadata"]["resourceVersion"].clone())).collect()
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_that_no_agent_can_take_is_tried_no_more_than_its_backoff_allows() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "hopeless");
    namespace.sleeper("huge", "100", "128Mi");
    std::thread::sleep(Duration::from_secs(5));
    let (before, versions) = (vain_attempts(&lab), waiting(&lab, "hopeless"));
    std::thread::sleep(QUIET);
    let tried = vain_attempts(&lab) - before;
    assert!(tried <= ERRORS_EACH, "without a node: {tried} attempts in {QUIET:?}");
    assert_eq!(waiting(&lab, "hopeless"), versions, "nothing is written while nothing changes");

    // With a node it is refused, and rests.
    namespace.sleeper("small", "50m", "32Mi");
    namespace.wait("small", NODE_START);
    settled(&lab);
    let (before, versions) = (vain_attempts(&lab), waiting(&lab, "hopeless"));
    assert_eq!(versions.len(), 1);
    std::thread::sleep(QUIET);
    let tried = vain_attempts(&lab) - before;
    assert!(tried <= QUIET_EACH, "with a node: {tried} attempts in {QUIET:?}");
    assert_eq!(waiting(&lab, "hopeless"), versions, "nothing is written while nothing changes");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn of_fifty_pods_twenty_run_and_the_others_rest_until_room_comes() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "crowd");
    let agent = lab.hosts("agent").remove(0);
    let agents = lab.mesos_get("/slaves")["slaves"].as_array().cloned().expect("agents");
    let there = agents.iter().find(|one| one["hostname"] == agent.as_str()).expect("the agent");
    // What the node takes is 0.26 cpus. Twenty such pods leave less than one of them needs.
    let each = ((number(&there["resources"]["cpus"]) * 1000.0 - 260.0) / FIT as f64) as u64;
    assert!(FIT as f64 * 32.0 + 513.0 < number(&there["resources"]["mem"]), "memory is no bound");

    let (vain, before) = (vain_attempts(&lab), woken(&lab));
    lab.apply(&crowd(&agent, each));
    lab.wait_for_pods("crowd", FIT, NODE_START);
    settled(&lab);
    let (vain, mut by_event) = (vain_attempts(&lab) - vain, woken(&lab));
    by_event.iter_mut().for_each(|(event, count)| *count -= before.get(event).unwrap_or(&0));
    by_event.retain(|_, count| *count > 0);
    for (what, events, each) in WAKES {
        let mut count = 0;
        by_event.retain(|event, woken| {
            let counted = events.iter().any(|name| event.starts_with(name));
            count += if counted { *woken } else { 0 };
            !counted
        });
        let most = CROWD as u64 * each;
        assert!(
            count <= most,
            "{what}: {CROWD} pods were tried again {count} times, at most {most} ({vain} vain attempts in all)"
        );
    }
    assert!(by_event.is_empty(), "pods were tried again for what is no event of the crowd: {by_event:?}");

    let (before, versions) = (vain_attempts(&lab), waiting(&lab, "crowd"));
    assert_eq!(versions.len(), CROWD - FIT);
    std::thread::sleep(QUIET);
    let tried = vain_attempts(&lab) - before;
    let most = versions.len() as u64 * QUIET_EACH;
    assert!(tried <= most, "{tried} attempts in {QUIET:?} for {} pods that wait, at most {most}", versions.len());
    assert_eq!(waiting(&lab, "crowd"), versions, "nothing is written while nothing changes");

    // Room for five.
    let running = lab.list(&["-n", "crowd", "pods", "--field-selector", "status.phase=Running"]);
    let mut delete = vec!["-n".to_owned(), "crowd".to_owned(), "delete".to_owned(), "pod".to_owned()];
    delete.extend(running.iter().take(5).map(name_of));
    lab.kubectl(&delete.iter().map(String::as_str).collect::<Vec<_>>()).success();
    lab.wait_for_pods("crowd", FIT, Duration::from_secs(10));
    drop(namespace);
}

/// Fifty pods for one agent.
fn crowd(agent: &str, millicpus: u64) -> String {
    let pods = (0..CROWD).map(|index| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: p{index}, namespace: crowd}}
spec:
  terminationGracePeriodSeconds: 1
  nodeSelector: {{kubernetes.io/hostname: {agent}}}
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, sleep 100000]
    resources: {{requests: {{cpu: {millicpus}m, memory: 32Mi}}}}
"
        )
    });
    pods.collect::<Vec<_>>().join("---\n")
}

/// Waits until kube-scheduler has tried nothing for five seconds.
fn settled(lab: &Lab) {
    let (mut count, mut since) = (vain_attempts(lab), Instant::now());
    eventually(SETTLE, "kube-scheduler to rest", || {
        let now = vain_attempts(lab);
        if now != count {
            (count, since) = (now, Instant::now());
        }
        (since.elapsed() >= Duration::from_secs(5)).then_some(())
    });
}
