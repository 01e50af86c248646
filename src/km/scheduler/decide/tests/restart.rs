//! After a kill at any moment, the next process adopts what exists.
use serde_json::json;

use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Bounds, Effect, Event, MesosCall};
use mesos::types::{TaskInfo, TaskState};

/// A new process with the API objects and the tasks of an old one. `answers` are the states that the master reports.
fn restarted(old: &Bench, answers: &[(&TaskInfo, TaskState)]) -> (Bench, Vec<Effect>) {
    let mut bench = Bench::cold(settings());
    (bench.nodes, bench.pods) = (old.nodes.clone(), old.pods.clone());
    let mut effects = Vec::new();
    for node in bench.nodes.clone().into_values() {
        effects.extend(bench.on(Event::Node(Box::new(node))));
    }
    for pod in bench.pods.clone().into_values() {
        effects.extend(bench.on(Event::Pod(Box::new(pod))));
    }
    bench.sync(Bounds::default());
    for (task, state) in answers {
        effects.extend(bench.update(task, *state));
    }
    let before = bench.log.len();
    bench.answer_sentinel();
    effects.extend(bench.log[before..].to_vec());
    (bench, effects)
}

fn destructive(effects: &[Effect]) -> Vec<&'static str> {
    let all = ["kill", "delete_pod", "delete_node", "accept", "create_node", "bind", "mark_node"];
    kinds(effects).into_iter().filter(|kind| all.contains(kind)).collect()
}

#[test]
fn nothing_is_decided_before_everything_is_known() {
    let mut bench = Bench::cold(settings());
    let web = pod("web");
    let mut effects = bench.pod(&web);
    bench.sync(Bounds::default());
    effects.extend(bench.offer("agent1", 2.0, 2048.0));
    assert!(destructive(&effects).is_empty());
    assert!(bench.filter(&web, &["agent1"]).0.is_empty());
    assert!(!bench.core.summary().acting);
    bench.answer_sentinel();
    assert!(bench.core.summary().acting);
}

#[test]
fn every_recorded_task_is_asked_for() {
    let mut old = Bench::new();
    let (node, task) = old.running(&pod("web"), "agent1");
    let (bench, _) = restarted(&old, &[]);
    let asked: Vec<String> = bench
        .log
        .iter()
        .filter_map(|effect| match effect {
            Effect::Mesos(MesosCall::Reconcile(tasks)) => {
                Some(tasks.iter().map(|(task, _)| task.clone()).collect::<Vec<_>>())
            }
            _ => None,
        })
        .flatten()
        .collect();
    assert!(asked.contains(&node.task_id.value) && asked.contains(&task.task_id.value), "{asked:?}");
}

#[test]
fn a_restart_beside_running_pods_touches_nothing() {
    let mut old = Bench::new();
    let (node, task) = old.running(&pod("web"), "agent1");
    let answers = [(&node, TaskState::Running), (&task, TaskState::Running)];
    let (mut bench, mut effects) = restarted(&old, &answers);
    effects.extend(bench.seconds(120));
    assert_eq!(destructive(&effects), Vec::<&str>::new());
    // A master that does not answer for them does no harm either.
    let mut silent = Bench::cold(settings());
    for node in old.nodes.values() {
        silent.on(Event::Node(Box::new(node.clone())));
    }
    for pod in old.pods.values() {
        silent.on(Event::Pod(Box::new(pod.clone())));
    }
    silent.sync(Bounds::default());
    let effects = silent.seconds(120);
    assert!(silent.core.summary().acting);
    assert_eq!(destructive(&effects), Vec::<&str>::new());
}

#[test]
fn a_pod_whose_annotations_were_replaced_while_nobody_looked_keeps_its_task() {
    let mut old = Bench::new();
    let (node, task) = old.running(&pod("web"), "agent1");
    let seen = old.pods.get_mut("uid-web").unwrap();
    (seen.task, seen.granted) = (None, None);
    let (mut bench, mut effects) = restarted(&old, &[(&node, TaskState::Running), (&task, TaskState::Running)]);
    effects.extend(bench.seconds(60));
    assert_eq!(destructive(&effects), Vec::<&str>::new());
    let recorded = effects.iter().find_map(|effect| match effect {
        Effect::Api(ApiRequest::Record { annotations, .. }) => annotations.get("kmctl.io/task"),
        _ => None,
    });
    assert_eq!(recorded, Some(&task.task_id.value));
}

#[test]
fn the_pod_of_a_started_task_without_a_binding_is_bound() {
    let mut old = Bench::new();
    old.running(&pod("first"), "agent1");
    let late = pod("late");
    old.pod(&late);
    old.offer("agent1", 2.0, 2048.0);
    old.bind(&late, "agent1");
    old.seconds(1);
    let tasks = accepted(&old.log);
    let running: Vec<_> = tasks.iter().map(|task| (task, TaskState::Running)).collect();
    let (bench, effects) = restarted(&old, &running);
    assert!(kinds(&effects).contains(&"bind"));
    assert_eq!(bench.pods["uid-late"].node.as_deref(), Some("agent1"));
    assert!(!kinds(&effects).contains(&"kill"));
}

#[test]
fn the_pod_of_a_task_that_is_being_killed_is_not_bound_to_it() {
    let mut old = Bench::new();
    let (node, first) = old.running(&pod("first"), "agent1");
    let late = pod("late");
    old.pod(&late);
    old.offer("agent1", 2.0, 2048.0);
    old.bind(&late, "agent1");
    let task = accepted(&old.seconds(1)).pop().unwrap();
    let answers = [(&node, TaskState::Running), (&first, TaskState::Running), (&task, TaskState::Killing)];
    let (mut bench, effects) = restarted(&old, &answers);
    assert!(!kinds(&effects).contains(&"bind"), "{:?}", kinds(&effects));
    bench.update(&task, TaskState::Killed);
    assert_eq!(bench.core.summary().tasks, 2);
}

#[test]
fn a_task_whose_granted_ports_are_forgotten_is_launched_anew() {
    let mut old = Bench::new();
    old.running(&pod("first"), "agent1");
    let ports = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}}}]}});
    let late = pod_with("late", ports);
    old.pod(&late);
    old.offer("agent1", 2.0, 2048.0);
    old.bind(&late, "agent1");
    old.seconds(1);
    let tasks = accepted(&old.log);
    let running: Vec<_> = tasks.iter().map(|task| (task, TaskState::Running)).collect();
    let (_, effects) = restarted(&old, &running);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Mesos(MesosCall::Kill { task, .. }) if task.contains("uid-late")))
    );
}

#[test]
fn the_task_of_a_pod_that_is_gone_is_killed_and_a_strange_one_is_left_alone() {
    let mut old = Bench::new();
    let (node, task) = old.running(&pod("web"), "agent1");
    old.pods.clear();
    let mut strange = task.clone();
    strange.task_id = "somebody-elses".into();
    let answers = [(&node, TaskState::Running), (&task, TaskState::Running), (&strange, TaskState::Running)];
    let (_, effects) = restarted(&old, &answers);
    let killed: Vec<&String> = effects
        .iter()
        .filter_map(|effect| if let Effect::Mesos(MesosCall::Kill { task, .. }) = effect { Some(task) } else { None })
        .collect();
    assert_eq!(killed, [&task.task_id.value]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(text) if text.contains("somebody-elses"))));
}

#[test]
fn a_node_whose_task_the_master_does_not_know_is_replaced() {
    let mut old = Bench::new();
    let (node, task) = old.running(&pod("web"), "agent1");
    let (bench, effects) = restarted(&old, &[(&node, TaskState::TaskUnknown), (&task, TaskState::TaskUnknown)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Api(ApiRequest::DeletePod { force: true, .. }))));
    assert!(bench.nodes.is_empty());
}

#[test]
fn a_new_stream_voids_all_offers_and_asks_again() {
    let mut bench = Bench::new();
    bench.pod(&pod("web"));
    bench.offer("agent1", 2.0, 2048.0);
    bench.on(Event::Disconnected);
    assert!(!bench.core.summary().acting);
    bench.on(Event::Subscribed);
    assert_eq!(bench.core.summary().offers, 0);
    bench.answer_sentinel();
    assert!(bench.core.summary().acting);
    assert!(!bench.core.summary().suppressed, "revived for the pod that still waits");
}

#[test]
fn a_launch_that_was_lost_on_the_way_is_asked_for() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    let (request, _) = bench.bind(&web, "agent1");
    let tasks = accepted(&bench.seconds(1));
    let later = bench.seconds(32);
    assert!(
        later.iter().any(|effect| matches!(effect, Effect::Mesos(MesosCall::Reconcile(tasks)) if tasks.len() == 2))
    );
    bench.update(&tasks[1], TaskState::Gone);
    assert!(bench.bound(request).flatten().is_some());
}
