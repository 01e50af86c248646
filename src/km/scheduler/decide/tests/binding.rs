//! From a pending pod to its Binding.
use serde_json::json;

use super::bench::*;
use crate::scheduler::decide::{Answer, ApiRequest, Bounds, Effect, Event, MesosCall, NodeStep, Refused};
use kmctl_core::model::agents::scalars;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::launch::{PortMapping, TaskData};
use mesos::types::{Resource, TaskInfo, TaskState};

#[test]
fn a_pending_pod_wakes_an_agent_and_is_bound_once_its_task_has_started() {
    let mut bench = Bench::new();
    let web = pod("web");
    assert_eq!(kinds(&bench.pod(&web)), ["revive"]);
    let offered = bench.offer("agent1", 2.0, 2048.0);
    assert_eq!(kinds(&offered), ["create_node"]);
    let Some(Effect::Api(ApiRequest::CreateNode(spec))) = offered.iter().find(|effect| effect.kind() == "create_node")
    else {
        panic!()
    };
    assert_eq!(spec.labels["k8s.mesosphere.io/attribute-rack"], "rack-agent1");
    assert_eq!(spec.labels["topology.kubernetes.io/zone"], "zone-agent1");
    assert_eq!(bench.filter(&web, &["agent1"]).0, ["agent1"]);

    let (request, at_once) = bench.bind(&web, "agent1");
    assert_eq!(kinds(&at_once), ["prepare_node"], "the executor is saved before anything is launched");
    let launched = bench.seconds(1);
    let tasks = accepted(&launched);
    let [node, task] = tasks.as_slice() else { panic!("{tasks:?}") };
    assert_eq!((node.name.as_str(), task.name.as_str()), ("node.agent1", "web.default"));
    assert_eq!(scalars(&node.resources), Amount::new(10, 1));
    assert_eq!(scalars(&task.resources), Amount::new(500, 128));
    let executor = task.executor.clone().unwrap();
    assert_eq!(node.executor.as_ref(), Some(&executor), "one executor, verbatim");
    assert_eq!(scalars(&executor.resources), Amount::new(250, 512));
    assert!(executor.resources.iter().all(|resource| resource.allocation_role() == Some("kubernetes")));
    assert_eq!(
        executor.command.unwrap().value.unwrap(),
        format!("echo \"{}  km\" | sha256sum -c - && exec ./km node", "ab".repeat(32))
    );
    let TaskData::Node(launch) = data(node) else { panic!() };
    assert_eq!((launch.bootstrap_token.as_str(), launch.node_name.as_str()), ("abcdef.0123456789abcdef", "agent1"));
    assert_eq!(task.task_id.value.split('.').nth(1), Some("uid-web"));
    assert_eq!(bench.bound(request), None, "nothing is bound before the executor has said so");

    let (node, task) = (node.clone(), task.clone());
    bench.update(&node, TaskState::Starting);
    let started = bench.update(&task, TaskState::Starting);
    assert_eq!(kinds(&started), ["bind", "answer_bind"]);
    let Some(Effect::Api(ApiRequest::Bind(binding))) = started.iter().find(|effect| effect.kind() == "bind") else {
        panic!()
    };
    assert_eq!(
        (binding.node.as_str(), binding.annotations["kmctl.io/task"].as_str()),
        ("agent1", task.task_id.value.as_str())
    );
    assert_eq!(bench.bound(request), Some(None));
}

#[test]
fn binds_that_come_together_go_out_in_one_accept() {
    let mut bench = Bench::new();
    let (a, b, c) = (pod("a"), pod("b"), pod("c"));
    for each in [&a, &b, &c] {
        bench.pod(each);
    }
    bench.offer("agent1", 4.0, 4096.0);
    bench.running(&pod("first"), "agent1");
    bench.offer("agent1", 4.0, 4096.0);
    bench.bind(&a, "agent1");
    bench.bind(&b, "agent1");
    let (_, last) = bench.bind(&c, "agent1");
    assert!(accepted(&last).is_empty(), "collected for a moment");
    let after = bench.seconds(1);
    assert_eq!(kinds(&after).iter().filter(|kind| **kind == "accept").count(), 1);
    assert_eq!(accepted(&after).len(), 3);
}

#[test]
fn a_bind_whose_offer_is_gone_waits_for_the_next_and_fails_in_time() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let late = pod("late");
    bench.pod(&late);
    let (request, _) = bench.bind(&late, "agent1");
    assert!(kinds(&bench.seconds(5)).contains(&"revive"));
    assert_eq!(bench.bound(request), None);
    bench.offer("agent1", 1.0, 1024.0);
    assert_eq!(accepted(&bench.log).last().map(|task| task.name.clone()), Some("late.default".to_owned()));

    let never = pod("never");
    bench.pod(&never);
    let (request, _) = bench.bind(&never, "agent1");
    bench.seconds(110);
    assert!(bench.bound(request).flatten().unwrap().contains("no offer"));
}

#[test]
fn bind_is_idempotent_by_the_pods_uid() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.pod(&web);
    bench.offer_all(&["agent1", "agent2"], 2.0, 2048.0);
    let (first, _) = bench.bind(&web, "agent1");
    let (second, _) = bench.bind(&web, "agent1");
    bench.seconds(1);
    let tasks = accepted(&bench.log);
    assert_eq!(tasks.len(), 2, "one node task, one pod task");
    let (elsewhere, _) = bench.bind(&web, "agent2");
    assert!(bench.bound(elsewhere).flatten().is_some());
    assert_eq!(bench.filter(&web, &["agent1"]).0, ["agent1"], "only where its task is");
    bench.update(&tasks[1], TaskState::Starting);
    assert_eq!((bench.bound(first), bench.bound(second)), (Some(None), Some(None)));
    let (again, _) = bench.bind(&bench.pods["uid-web"].clone(), "agent1");
    assert_eq!(bench.bound(again), Some(None), "bound already is bound");
}

#[test]
fn a_task_that_mesos_refuses_fails_the_bind_and_nudges_the_pod() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.running(&pod("first"), "agent1");
    bench.pod(&web);
    bench.offer("agent1", 1.0, 1024.0);
    let (request, _) = bench.bind(&web, "agent1");
    let task = accepted(&bench.seconds(1)).pop().unwrap();
    bench.update(&task, TaskState::Dropped);
    assert!(bench.bound(request).flatten().unwrap().contains("TASK_DROPPED"));
    bench.offer("agent1", 1.0, 1024.0);
    assert!(kinds(&bench.seconds(2)).contains(&"nudge"));
}

#[test]
fn a_binding_that_the_api_refuses_ends_the_task() {
    let mut bench = Bench::new();
    bench.binds = false;
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 2.0, 2048.0);
    let (request, _) = bench.bind(&web, "agent1");
    let tasks = accepted(&bench.seconds(1));
    bench.update(&tasks[1], TaskState::Starting);
    let after = bench.on(Event::BindingPosted { uid: web.uid.clone(), error: Some("not found".into()) });
    assert!(bench.bound(request).flatten().unwrap().contains("not found"));
    assert!(after.iter().any(
        |effect| matches!(effect, Effect::Mesos(MesosCall::Kill { task, .. }) if *task == tasks[1].task_id.value)
    ));
}

/// A pod whose task was launched on a running node, and the task.
fn launched(bench: &mut Bench, name: &str) -> (kmctl_core::model::pods::PodFacts, TaskInfo) {
    bench.running(&pod("first"), "agent1");
    let web = pod(name);
    bench.pod(&web);
    bench.offer("agent1", 1.0, 1024.0);
    bench.bind(&web, "agent1");
    let task = accepted(&bench.seconds(1)).pop().unwrap();
    (web, task)
}

/// The seconds from now in which the task is killed.
fn kills(bench: &mut Bench, id: &str, seconds: u64) -> Vec<u64> {
    let kills = |effects: &[Effect]| {
        effects.iter().any(|e| matches!(e, Effect::Mesos(MesosCall::Kill { task, .. }) if task == id))
    };
    (0..seconds).filter(|_| kills(&bench.seconds(1))).collect()
}

fn deleted(bench: &mut Bench, pod: &kmctl_core::model::pods::PodFacts) -> Vec<Effect> {
    bench.pods.remove(&pod.uid);
    bench.on(Event::PodGone(pod.uid.clone()))
}

#[test]
fn a_pod_deleted_before_its_task_has_started_leaves_no_task_and_gets_no_binding() {
    let mut bench = Bench::new();
    let (web, task) = launched(&mut bench, "web");
    let gone = deleted(&mut bench, &web);
    assert!(kinds(&gone).contains(&"kill"));
    for state in [TaskState::Starting, TaskState::Killing, TaskState::Killed] {
        assert!(!kinds(&bench.update(&task, state)).contains(&"bind"), "{state}");
    }
    assert_eq!(bench.core.summary().tasks, 2, "the node's and the first pod's");
    assert!(kills(&mut bench, &task.task_id.value, 60).is_empty());
}

#[test]
fn a_pod_deleted_while_its_binding_is_posted_leaves_no_task() {
    for error in [None, Some("not found".to_owned())] {
        let mut bench = Bench::new();
        let (web, task) = launched(&mut bench, "web");
        bench.binds = false;
        assert!(kinds(&bench.update(&task, TaskState::Starting)).contains(&"bind"));
        assert!(kinds(&deleted(&mut bench, &web)).contains(&"kill"));
        bench.on(Event::BindingPosted { uid: web.uid.clone(), error });
        bench.update(&task, TaskState::Killing);
        bench.update(&task, TaskState::Killed);
        assert_eq!(bench.core.summary().tasks, 2);
        assert_eq!(bench.core.summary().pods_in_flight, 0);
    }
}

#[test]
fn a_task_whose_binding_was_refused_is_ended_and_not_bound_a_second_time() {
    let mut bench = Bench::new();
    let (web, task) = launched(&mut bench, "web");
    bench.binds = false;
    bench.update(&task, TaskState::Running);
    let mut effects = bench.on(Event::BindingPosted { uid: web.uid.clone(), error: Some("no such node".into()) });
    effects.extend(bench.seconds(5));
    effects.extend(bench.update(&task, TaskState::Killing));
    effects.extend(bench.update(&task, TaskState::Running));
    assert!(!kinds(&effects).contains(&"bind"), "{:?}", kinds(&effects));
    bench.update(&task, TaskState::Killed);
    assert_eq!(bench.core.summary().tasks, 2);
    // The pod itself still exists, and gets another task.
    bench.binds = true;
    bench.offer("agent1", 1.0, 1024.0);
    bench.bind(&web, "agent1");
    let second = accepted(&bench.seconds(1)).pop().unwrap();
    assert_ne!(second.task_id, task.task_id);
    assert!(kinds(&bench.update(&second, TaskState::Starting)).contains(&"bind"));
}

#[test]
fn a_task_that_does_not_end_is_killed_less_and_less_often() {
    let mut bench = Bench::new();
    let (web, task) = launched(&mut bench, "web");
    bench.update(&task, TaskState::Starting);
    deleted(&mut bench, &web);
    let kills = kills(&mut bench, &task.task_id.value, 1000);
    assert_eq!(kills, [9, 29, 69, 149, 309, 609, 909], "10, 20, 40, 80, 160, then 300 s apart");
}

#[test]
fn a_task_out_of_reach_is_killed_as_soon_as_it_runs_again() {
    let mut bench = Bench::new();
    let (web, task) = launched(&mut bench, "web");
    bench.update(&task, TaskState::Starting);
    deleted(&mut bench, &web);
    bench.update(&task, TaskState::Unreachable);
    let before = bench.log.len();
    assert!(kills(&mut bench, &task.task_id.value, 500).is_empty(), "nobody would hear it");
    let id = &task.task_id.value;
    let asked = |effect: &&Effect| matches!(effect, Effect::Mesos(MesosCall::Reconcile(all)) if all.iter().any(|(asked, _)| asked == id));
    assert_eq!(bench.log[before..].iter().filter(asked).count(), 4, "after 30, 60, 120 and 240 s");
    assert!(kinds(&bench.update(&task, TaskState::Running)).contains(&"kill"));
}

#[test]
fn a_question_about_a_pod_that_is_gone_does_not_bring_it_back() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let web = pod("web");
    bench.pod(&web);
    deleted(&mut bench, &web);
    bench.filter(&web, &["agent1"]);
    assert_eq!(bench.core.summary().pending_pods, 0);
    bench.offer("agent1", 1.0, 1024.0);
    let after = bench.seconds(60);
    assert!(!kinds(&after).contains(&"nudge"), "{:?}", kinds(&after));
}

#[test]
fn a_node_that_cannot_be_made_is_tried_with_growing_waits() {
    for (step, kind) in [(NodeStep::Create, "create_node"), (NodeStep::Prepare, "prepare_node")] {
        let mut bench = Bench::new();
        bench.refuses = Some(step);
        bench.on(Event::Bounds(Bounds { min: 1, ..Bounds::default() }));
        for _ in 0..30 {
            // Offers are declined after a while, and made again.
            bench.offer("agent1", 2.0, 2048.0);
            bench.seconds(2);
        }
        let tries = bench.log.iter().filter(|effect| effect.kind() == kind).count();
        assert!((3..=6).contains(&tries), "{kind} {tries} times in a minute");
        bench.refuses = None;
        for _ in 0..35 {
            bench.offer("agent1", 2.0, 2048.0);
            bench.seconds(2);
        }
        assert!(bench.log.iter().filter(|effect| effect.kind() == kind).count() > tries, "and tried on");
    }
}

#[test]
fn the_filter_says_why_word_for_word() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let host_port = |port: u16| {
        pod_with(
            "p",
            json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}],
            "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}}}]}}),
        )
    };
    let big = pod_with(
        "big",
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "64Mi"}}}]}}),
    );
    bench.pod(&big);
    bench.pod(&host_port(31001));
    bench.offer("agent1", 1.5, 1024.0);
    let reason = |bench: &mut Bench, pod: &PodFacts, node: &str| bench.filter(pod, &[node]).1.remove(node);
    assert_eq!(reason(&mut bench, &big, "agent1"), Some(Refused::NotOffered));
    assert_eq!(reason(&mut bench, &host_port(31001), "agent1"), None);
    assert_eq!(reason(&mut bench, &host_port(80), "agent1"), Some(Refused::PortsNotOffered));
    assert_eq!(reason(&mut bench, &big, "stranger"), Some(Refused::Stranger));
}

#[test]
fn a_node_may_use_what_its_tasks_were_granted_whatever_its_pods_say_since() {
    let mut bench = Bench::new();
    let web = pod("web");
    bench.running(&web, "agent1");
    let grant = |bench: &Bench| {
        bench.log.iter().rev().find_map(|effect| match effect {
            Effect::Api(ApiRequest::PublishGrant { node, grant }) if node == "agent1" => Some(*grant),
            _ => None,
        })
    };
    let own = Amount::new(260, 513);
    assert_eq!(grant(&bench), Some(Amount::new(500, 128) + own));
    let recorded = bench.log.iter().find_map(|effect| match effect {
        Effect::Api(ApiRequest::Bind(binding)) => binding.annotations.get("kmctl.io/granted").cloned(),
        _ => None,
    });
    assert_eq!(recorded.as_deref(), Some("cpus:0.5;mem:128"));

    let mut resized = bench.pods[&web.uid].clone();
    resized.amount = Amount::new(2000, 1024);
    bench.pod(&resized);
    bench.seconds(2);
    assert_eq!(grant(&bench), Some(Amount::new(500, 128) + own));
    // A new process that finds the pod knows the grant too.
    let mut restarted = Bench::cold(settings());
    let facts = bench.nodes["agent1"].clone();
    restarted.nodes.insert("agent1".into(), facts.clone());
    restarted.pod(&resized);
    restarted.on(Event::Node(Box::new(facts)));
    restarted.sync(Bounds::default());
    restarted.answer_sentinel();
    assert_eq!(grant(&restarted), Some(Amount::new(500, 128) + own));
}

#[test]
fn a_candidate_declares_what_its_kubelet_will_and_has_the_agents_disk() {
    let mut bench = Bench::new();
    bench.pod(&pod("web"));
    let mut offer = bench.offer_of("agent1", 2.0, 2048.0);
    offer.resources.push(Resource::scalar("disk", 10240.0));
    let effects = bench.on(Event::Offers(vec![offer]));
    let made = effects.iter().find_map(|effect| match effect {
        Effect::Api(ApiRequest::CreateNode(spec)) => Some((spec.declared_features, spec.disk)),
        _ => None,
    });
    assert_eq!(made, Some((kmctl_core::k8s::MINORS[0].declared_features, 10_240_000)));
}

#[test]
fn declared_ports_are_mapped_to_granted_ones_and_published() {
    let mut bench = Bench::new();
    let web = pod_with(
        "web",
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m", "memory": "128Mi"}},
        "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 99, "hostPort": 31001}]}]}}),
    );
    let (_, task) = bench.running(&web, "agent1");
    let TaskData::Pod(launch) = data(&task) else { panic!() };
    let mapping = |container_port, host_port, protocol: &str| PortMapping {
        container_port,
        host_port,
        protocol: protocol.into(),
    };
    let expected = [mapping(80, 31000, "TCP"), mapping(53, 31002, "UDP"), mapping(99, 31001, "TCP")];
    assert_eq!(launch.ports, expected);
    let ports: Vec<_> = task
        .resources
        .iter()
        .filter(|each| each.name == "ports")
        .flat_map(|each| each.intervals().collect::<Vec<_>>())
        .collect();
    assert_eq!(ports, [(31000, 31000), (31001, 31001), (31002, 31002)]);
    let published: Vec<PortMapping> =
        serde_json::from_str(bench.pods[&web.uid].granted_ports.as_ref().unwrap()).unwrap();
    assert_eq!(published, expected);
}

#[test]
fn a_pod_waits_for_host_ports_and_hears_how_many_are_missing() {
    let mut bench = Bench::new();
    let ports: Vec<_> = (1..=6).map(|port| json!({ "containerPort": port })).collect();
    let resources = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    let spec = json!({ "spec": { "containers": [{ "name": "c", "resources": resources, "ports": ports }] } });
    let (first, second) = (pod_with("first", spec.clone()), pod_with("second", spec));
    bench.running(&pod("other"), "agent1");
    bench.pod(&first);
    bench.pod(&second);
    bench.offer("agent1", 4.0, 4096.0);
    // Ten ports are offered, enough for one of the two pods. The other is refused while the first is being launched.
    assert_eq!(bench.filter(&second, &["agent1"]).0, ["agent1"]);
    bench.bind(&first, "agent1");
    assert_eq!(bench.filter(&second, &["agent1"]).1["agent1"], Refused::PortsNotOffered);
}

#[test]
fn a_running_node_is_preferred_to_one_that_must_be_started() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let effects = bench.on(Event::Prioritize { request: 9, nodes: vec!["agent1".into(), "agent2".into()] });
    assert_eq!(effects, [Effect::Answer(9, Answer::Prioritize(vec![("agent1".into(), 6), ("agent2".into(), 0)]))]);

    // If no node can be removed, a fuller node does not score higher.
    bench.on(Event::Bounds(Bounds { min: 2, max: Some(2), ..Bounds::default() }));
    let effects = bench.on(Event::Prioritize { request: 10, nodes: vec!["agent1".into()] });
    assert_eq!(effects, [Effect::Answer(10, Answer::Prioritize(vec![("agent1".into(), 5)]))]);
}
