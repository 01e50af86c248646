//! Fewer nodes than there are: which ones leave, how pods move, and which nodes are kept after all.
use std::time::Duration;

use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Bounds, Effect, Event, MesosCall};
use kmctl_core::model::nodes::{LEAVING_TAINT, NodePhase};
use mesos::types::{TaskInfo, TaskState};

/// Names of the pods that are evicted.
fn evicted(effects: &[Effect]) -> Vec<&str> {
    let evicted = effects.iter().filter_map(|effect| match effect {
        Effect::Api(ApiRequest::EvictPod { name, .. }) => Some(name.as_str()),
        _ => None,
    });
    evicted.collect()
}

fn most(max: u32) -> Event {
    Event::Bounds(Bounds { max: Some(max), ..Bounds::default() })
}

fn kills(effects: &[Effect], task: &TaskInfo) -> bool {
    effects
        .iter()
        .any(|effect| matches!(effect, Effect::Mesos(MesosCall::Kill { task: id, .. }) if *id == task.task_id.value))
}

/// Two ready nodes: `agent1` with one pod, `agent2` with two.
fn two_nodes() -> (Bench, TaskInfo, TaskInfo) {
    let mut bench = Bench::new();
    let (one, _) = bench.running(&controlled("a"), "agent1");
    let (two, _) = bench.running(&controlled("b"), "agent2");
    let c = controlled("c");
    bench.pod(&c);
    bench.offer("agent2", 2.0, 2048.0);
    bench.bind(&c, "agent2");
    for task in accepted(&bench.seconds(1)) {
        bench.update(&task, TaskState::Running);
    }
    (bench, one, two)
}

#[test]
fn the_cheapest_node_is_cordoned_its_pods_are_evicted_and_only_then_it_is_killed() {
    let (mut bench, one, two) = two_nodes();
    let mut effects = bench.on(most(1));
    effects.extend(bench.seconds(1));
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving);
    assert_eq!(
        bench.nodes["agent1"].why,
        "more nodes than nodes.max (1); cheapest of 2: 1 pod to move (0.5 cpus, 128 MB)"
    );
    assert_eq!(bench.nodes["agent2"].phase, NodePhase::Ready);
    assert_eq!(evicted(&effects), ["a"]);
    assert!(!kinds(&effects).contains(&"delete_pod"), "evicted, not deleted");
    let mark = kinds(&effects).iter().position(|kind| *kind == "mark_node");
    let evict = kinds(&effects).iter().position(|kind| *kind == "evict_pod");
    assert!(mark < evict, "cordoned first");
    // The disruption budget forbids it: the eviction is repeated, and nothing is killed.
    let later = bench.wait(Duration::from_secs(300));
    assert!((55..=62).contains(&evicted(&later).len()), "{}", evicted(&later).len());
    assert!(!kills(&later, &one) && !kinds(&later).contains(&"delete_pod"));
    bench.pods.remove("uid-a");
    let gone = bench.on(Event::PodGone("uid-a".into()));
    assert!(kills(&gone, &one) && !kills(&gone, &two));
    bench.update(&one, TaskState::Killed);
    assert_eq!(bench.nodes.keys().collect::<Vec<_>>(), ["agent2"]);
}

#[test]
fn a_pod_that_nobody_would_make_again_is_left_to_its_owner() {
    let mut bench = Bench::new();
    let (node, _) = bench.running(&pod("bare"), "agent1");
    let mut effects = bench.on(most(0));
    effects.extend(bench.seconds(120));
    assert!(evicted(&effects).is_empty() && !kinds(&effects).contains(&"delete_pod"));
    assert!(!kills(&effects, &node));
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving);
    assert!(bench.nodes["agent1"].why.contains("1 pod without a controller"));
}

#[test]
fn of_two_nodes_the_one_that_could_not_be_drained_stays() {
    let mut bench = Bench::new();
    bench.running(&pod("bare"), "agent1");
    bench.running(&controlled("b"), "agent2");
    bench.on(most(1));
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Ready);
    assert_eq!(bench.nodes["agent2"].phase, NodePhase::Leaving);
}

#[test]
fn with_room_again_a_node_that_was_leaving_stays() {
    let (mut bench, one, _) = two_nodes();
    bench.on(most(1));
    bench.seconds(2);
    bench.on(most(2));
    let effects = bench.seconds(30);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Ready);
    assert_eq!(bench.nodes["agent1"].why, "");
    assert!(bench.nodes["agent1"].taints.iter().all(|taint| taint.key != LEAVING_TAINT));
    assert!(evicted(&effects).is_empty() && !kills(&effects, &one));
    // A node whose task was already killed keeps leaving.
    bench.on(most(1));
    bench.pods.remove("uid-a");
    assert!(kills(&bench.on(Event::PodGone("uid-a".into())), &one));
    bench.on(most(2));
    bench.seconds(5);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving);
}

#[test]
fn candidates_go_before_nodes_that_run() {
    let (mut bench, _, _) = two_nodes();
    bench.pod(&controlled("d"));
    bench.offer("agent3", 2.0, 2048.0);
    assert!(bench.nodes.contains_key("agent3"));
    bench.on(most(2));
    assert!(!bench.nodes.contains_key("agent3"));
    assert!(bench.nodes.values().all(|node| node.phase == NodePhase::Ready));
}

#[test]
fn a_finished_pod_kept_by_a_finalizer_does_not_keep_its_node() {
    let mut bench = Bench::new();
    let (node, task) = bench.running(&controlled("a"), "agent1");
    bench.on(most(0));
    let mut ending = bench.pods["uid-a"].clone();
    ending.deleting = true;
    bench.pod(&ending);
    assert!(!kills(&bench.seconds(30), &node), "its task still runs");
    let mut effects = bench.update(&task, TaskState::Killed);
    effects.extend(bench.seconds(1));
    assert!(kills(&effects, &node));
}

#[test]
fn an_idle_node_stays_until_as_many_others_as_nodes_min_are_ready() {
    let mut bench = Bench::new();
    bench.running(&controlled("a"), "agent1");
    bench.on(Event::Bounds(Bounds { min: 1, ..Bounds::default() }));
    // A second node is starting for another pod, and the first becomes idle.
    let b = controlled("b");
    bench.pod(&b);
    bench.offer("agent2", 2.0, 2048.0);
    bench.bind(&b, "agent2");
    let tasks = accepted(&bench.seconds(1));
    bench.pods.remove("uid-a");
    bench.on(Event::PodGone("uid-a".into()));
    bench.seconds(700);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Ready, "the other one has not come up");
    for task in &tasks {
        bench.update(task, TaskState::Running);
    }
    bench.kubelet_ready("agent2");
    bench.seconds(2);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving);
    assert_eq!(bench.nodes["agent1"].why, "idle for 600s");
}
