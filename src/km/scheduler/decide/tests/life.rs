//! The lifecycle of nodes.
use serde_json::json;

use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Bounds, Effect, Event, MesosCall, Refused};
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::protocol::launch::TaskData;
use mesos::types::TaskState;

fn deletes(effects: &[Effect], name: &str) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::Api(ApiRequest::DeletePod { name: deleted, force, .. }) if deleted == name => Some(*force),
        _ => None,
    })
}

fn kills(effects: &[Effect], id: &str) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Mesos(MesosCall::Kill { task, .. }) if task == id))
}

#[test]
fn a_candidate_that_nobody_needs_is_withdrawn() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    bench.pods.remove(&web.uid);
    let mut effects = bench.on(Event::PodGone(web.uid.clone()));
    effects.extend(bench.seconds(7));
    assert!(bench.nodes.is_empty());
    assert!(kinds(&effects).contains(&"suppress"));
}

#[test]
fn a_node_that_has_just_passed_a_filter_is_not_withdrawn() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    bench.seconds(6);
    bench.filter(&web, &["agent1"]);
    bench.on(Event::PodGone(web.uid.clone()));
    bench.seconds(4);
    assert!(bench.nodes.contains_key("agent1"));
    bench.seconds(3);
    assert!(!bench.nodes.contains_key("agent1"));
}

#[test]
fn the_lease_is_ours_until_the_kubelet_is_there() {
    let mut bench = Bench::new();
    let renewals = |effects: &[Effect]| effects.iter().filter(|effect| effect.kind() == "renew_lease").count();
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    bench.bind(&web, "agent1");
    assert_eq!(renewals(&bench.seconds(40)), 4);
    bench.kubelet_ready("agent1");
    assert_eq!(renewals(&bench.seconds(40)), 0);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Ready);
}

#[test]
fn an_idle_node_leaves_in_order_taint_kill_delete() {
    let mut bench = Bench::new();
    let web = pod("web");
    let (node, task) = bench.running(&web, "agent1");
    bench.seconds(700);
    assert!(bench.nodes.contains_key("agent1"), "a pod keeps it");
    bench.pods.remove(&web.uid);
    let gone = bench.on(Event::PodGone(web.uid.clone()));
    assert!(kills(&gone, &task.task_id.value), "the pod's task ends with the pod");
    bench.update(&task, TaskState::Killed);
    assert!(!kinds(&bench.seconds(590)).contains(&"mark_node"));
    let leaving = bench.seconds(15);
    let order: Vec<&str> = kinds(&leaving).into_iter().filter(|kind| matches!(*kind, "mark_node" | "kill")).collect();
    assert_eq!(order[..2], ["mark_node", "kill"]);
    assert!(kills(&leaving, &node.task_id.value));
    assert_eq!(bench.filter(&pod("late"), &["agent1"]).1["agent1"], Refused::Leaving);
    assert!(bench.nodes.contains_key("agent1"), "not before the executor is gone");
    bench.update(&node, TaskState::Killed);
    assert!(!bench.nodes.contains_key("agent1"));
    bench.on(Event::PodGone("uid-late".into()));
    assert!(!bench.log.iter().any(
        |effect| matches!(effect, Effect::Mesos(MesosCall::Accept { tasks, .. }) if tasks[0].name.starts_with("sweep"))
    ));
}

#[test]
fn daemon_pods_neither_wake_nor_hold_a_node_and_start_with_it() {
    let mut bench = Bench::new();
    let web = pod("web");
    let system = daemon("system", "agent1");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    bench.pod(&system);
    assert_eq!(bench.filter(&system, &["agent1"]).1["agent1"], Refused::NotStarted);
    let big = pod_with(
        "big",
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "64Mi"}}}]}}),
    );
    assert!(bench.filter(&big, &["agent1"]).0.is_empty(), "the daemon's share is kept free");
    bench.on(Event::PodGone("uid-big".into()));
    bench.bind(&web, "agent1");
    let names: Vec<String> = accepted(&bench.seconds(1)).into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["node.agent1", "web.default", "system.default"]);
    for task in accepted(&bench.log.clone()) {
        bench.update(&task, TaskState::Running);
    }
    bench.kubelet_ready("agent1");
    assert_eq!(bench.pods["uid-system"].node.as_deref(), Some("agent1"));
    bench.pods.remove("uid-web");
    bench.on(Event::PodGone("uid-web".into()));
    bench.seconds(605);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving, "idle though the daemon runs");
}

#[test]
fn nodes_min_starts_nodes_without_pods_and_keeps_them() {
    let mut bench = Bench::new();
    let raised = bench.on(Event::Bounds(Bounds { min: 1, ..Bounds::default() }));
    assert!(kinds(&raised).contains(&"revive"));
    bench.offer_all(&["agent1", "agent2"], 2.0, 2048.0);
    let names: Vec<String> = accepted(&bench.log).into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["node.agent1"]);
    let node = accepted(&bench.log).remove(0);
    bench.update(&node, TaskState::Running);
    bench.kubelet_ready("agent1");
    let quiet = bench.seconds(700);
    assert!(bench.nodes.contains_key("agent1") && bench.core.summary().suppressed, "{:?}", kinds(&quiet));
    bench.on(Event::Bounds(Bounds::default()));
    bench.seconds(5);
    assert_eq!(bench.nodes["agent1"].phase, NodePhase::Leaving);
}

#[test]
fn a_dead_executor_costs_its_node_its_pods_move_and_a_sweep_follows() {
    let mut bench = Bench::new();
    let web = pod("web");
    let (node, task) = bench.running(&web, "agent1");
    let executor = node.executor.clone().unwrap().executor_id.value;
    let ended = bench.on(Event::ExecutorEnded { agent: "id-agent1".into(), executor: executor.clone() });
    assert_eq!(deletes(&ended, "web"), Some(true));
    assert!(!bench.nodes.contains_key("agent1"));
    bench.update(&node, TaskState::Failed);
    bench.update(&task, TaskState::Failed);
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    assert_eq!(sweep.name, "sweep.agent1");
    let TaskData::Sweep(data) = data(&sweep) else { panic!() };
    assert!(!data.purge);
    assert_ne!(sweep.executor.clone().unwrap().executor_id.value, executor, "executor ids are never used twice");
    bench.update(&sweep, TaskState::Finished);
    assert!(bench.core.summary().suppressed);
}

#[test]
fn an_agent_whose_node_died_is_not_the_first_choice_again() {
    let mut bench = Bench::new();
    let (node, _) = bench.running(&pod("web"), "agent1");
    bench.update(&node, TaskState::Failed);
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    bench.update(&sweep, TaskState::Finished);
    bench.pod(&pod("again"));
    let effects = bench.offer_all(&["agent1", "agent2"], 2.0, 2048.0);
    assert_eq!(created(&effects), ["agent2"]);
}

#[test]
fn a_task_that_ended_behind_the_apis_back_costs_the_pod_after_a_while() {
    let mut bench = Bench::new();
    let (_, task) = bench.running(&pod("web"), "agent1");
    bench.update(&task, TaskState::Lost);
    assert_eq!(deletes(&bench.seconds(10), "web"), None, "its own status may be on its way");
    assert_eq!(deletes(&bench.seconds(10), "web"), Some(false));
}

#[test]
fn an_agent_out_of_reach_keeps_its_pods_for_ten_minutes() {
    let mut bench = Bench::new();
    let (node, task) = bench.running(&pod("web"), "agent1");
    bench.update(&node, TaskState::Unreachable);
    bench.update(&task, TaskState::Unreachable);
    bench.on(Event::AgentLost("id-agent1".into()));
    assert_eq!(deletes(&bench.seconds(590), "web"), None);
    assert_eq!(deletes(&bench.seconds(15), "web"), Some(true));
    assert!(!bench.nodes.contains_key("agent1"));
}

#[test]
fn purge_drains_every_node_sweeps_every_agent_and_says_so() {
    let mut bench = Bench::new();
    let (node, task) = bench.running(&pod("web"), "agent1");
    bench.on(Event::KnownAgents(vec!["id-agent1".into()]));
    let effects = bench.on(Event::Bounds(Bounds { purge: true, ..Bounds::default() }));
    assert_eq!(deletes(&effects, "web"), Some(false), "drained, not forced");
    bench.update(&task, TaskState::Killed);
    bench.seconds(1);
    bench.update(&node, TaskState::Killed);
    bench.pod(&pod("new"));
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    let TaskData::Sweep(data) = data(&sweep) else { panic!("{}", sweep.name) };
    assert!(data.purge);
    assert!(bench.nodes.is_empty(), "no new node");
    let done = bench.update(&sweep, TaskState::Finished);
    assert!(kinds(&done).contains(&"purge_done"));
    assert!(!kinds(&bench.seconds(30)).contains(&"purge_done"), "once");
}

#[test]
fn a_node_that_somebody_deletes_ends() {
    let mut bench = Bench::new();
    let (node, _) = bench.running(&pod("web"), "agent1");
    bench.nodes.remove("agent1");
    let mut effects = bench.on(Event::NodeGone("agent1".into()));
    effects.extend(bench.seconds(1));
    assert!(kills(&effects, &node.task_id.value));
}

#[test]
fn a_pod_whose_annotations_are_replaced_keeps_its_task_and_gets_them_back() {
    let mut bench = Bench::new();
    let (_, task) = bench.running(&pod("web"), "agent1");
    let bound = bench.pods["uid-web"].clone();
    for record in [None, Some("pod.uid-web.ffffffff".to_owned())] {
        let mut replaced = bound.clone();
        (replaced.task, replaced.granted) = (record, None);
        let mut effects = bench.on(Event::Pod(Box::new(replaced.clone())));
        let expected = Effect::Api(ApiRequest::Record {
            namespace: "default".into(),
            name: "web".into(),
            uid: "uid-web".into(),
            annotations: bound.record(),
        });
        assert_eq!(bound.record()["kmctl.io/task"], task.task_id.value);
        assert_eq!(effects, std::slice::from_ref(&expected));
        // Written again every five seconds while the object lacks the annotations, and nothing else happens.
        effects = bench.seconds(21);
        assert_eq!(effects.iter().filter(|effect| **effect == expected).count(), 4, "{:?}", kinds(&effects));
        assert!(!kinds(&effects).iter().any(|kind| ["kill", "delete_pod"].contains(kind)), "{:?}", kinds(&effects));
        bench.on(Event::Pod(Box::new(bound.clone())));
        assert!(!kinds(&bench.seconds(21)).contains(&"record"));
    }
}
