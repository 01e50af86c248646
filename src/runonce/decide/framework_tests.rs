use serde_json::json;

use super::*;
use kmctl_core::protocol::launch::TaskData;
use mesos::types::{Attribute, Bytes, Resource};

const NOW: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        role: "kubernetes".into(),
        user: "root".into(),
        cluster: "demo".into(),
        constraints: Vec::new(),
        overhead: Amount::new(250, 512),
        km: KmProgram { sha256: "ab".repeat(32), url: "http://10.0.0.11:10271/artifacts/ab".into() },
        kubernetes_version: "v1.37.2".into(),
        root_dir: "/var/lib/kmctl/demo".into(),
        pod_cidr: "172.31.0.0/16".into(),
        cluster_domain: "cluster.local".into(),
        artifacts: Vec::new(),
        keep: false,
    }
}

fn wanted(name: &str, millicpus: i64) -> Wanted {
    let given = serde_json::from_value(json!({
        "uid": format!("uid-{name}"),
        "pod": {"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "hunter2"}]}]}},
    }));
    Wanted {
        given: given.unwrap(),
        namespace: "default".into(),
        name: name.into(),
        amount: Amount::new(millicpus, 64),
        ports: Vec::new(),
    }
}

fn run(pods: Vec<Wanted>) -> Run {
    Run::new(settings(), pods, 7)
}

fn offer(agent: &str, cpus: f64) -> Offer {
    let resources =
        [Resource::scalar("cpus", cpus), Resource::scalar("mem", 2048.0), Resource::ranges("ports", [(31000, 31005)])];
    Offer {
        id: format!("offer-{agent}").as_str().into(),
        agent_id: agent.into(),
        hostname: format!("host-{agent}"),
        resources: resources.map(|resource| resource.allocated_to("kubernetes")).to_vec(),
        ..Offer::default()
    }
}

fn tasks(effects: &[Effect]) -> Vec<TaskInfo> {
    effects
        .iter()
        .flat_map(|effect| if let Effect::Accept { tasks, .. } = effect { tasks.clone() } else { Vec::new() })
        .collect()
}

fn names(tasks: &[TaskInfo]) -> Vec<&str> {
    tasks.iter().map(|task| task.name.as_str()).collect()
}

fn update(task: &TaskInfo, state: TaskState, code: Option<u8>) -> Event {
    let mut status = TaskStatus::new(task.task_id.clone(), state);
    status.agent_id = Some(task.agent_id.clone());
    status.uuid = Some(Bytes(vec![1]));
    status.data = code.map(|exit_code| Bytes(serde_json::to_vec(&PodEnd { exit_code }).unwrap()));
    Event::Update(Box::new(status))
}

fn finished(effects: &[Effect]) -> Option<Outcome> {
    effects.iter().find_map(|effect| if let Effect::Finish(outcome) = effect { Some(outcome.clone()) } else { None })
}

fn killed(effects: &[Effect]) -> Vec<&str> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Kill { task, .. } = effect { Some(task.as_str()) } else { None })
        .collect()
}

#[test]
fn twenty_pods_on_one_agent_share_one_executor() {
    let mut run = run((0..20).map(|n| wanted(&format!("p{n}"), 50)).collect());
    let effects = run.on(Event::Offers(vec![offer("a", 2.0)]), NOW);
    let tasks = tasks(&effects);
    assert_eq!(tasks.len(), 21);
    assert_eq!(tasks[0].name, "runonce");
    assert!(tasks.windows(2).all(|pair| pair[0].executor == pair[1].executor));
    assert!(effects.contains(&Effect::Suppress), "nothing more is wanted");
}

#[test]
fn nothing_of_the_pods_but_names_and_sizes_is_in_the_tasks() {
    let mut run = run(vec![wanted("web", 100)]);
    let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    for task in &tasks {
        let data = String::from_utf8(task.data.clone().unwrap().0).unwrap();
        assert!(!data.contains("hunter2") && !serde_json::to_string(task).unwrap().contains("hunter2"), "{data}");
    }
    let TaskData::Run(launch) = serde_json::from_slice(&tasks[0].data.as_ref().unwrap().0).unwrap() else { panic!() };
    assert_eq!(
        format!("once-{}", tasks[0].executor.as_ref().unwrap().executor_id.as_str().replace("once.", "")),
        launch.run
    );
}

#[test]
fn what_does_not_fit_waits_for_the_next_offer_and_is_said() {
    let mut run = run(vec![wanted("big", 3000), wanted("small", 100)]);
    let first = tasks(&run.on(Event::Offers(vec![offer("a", 1.0)]), NOW));
    assert_eq!(names(&first), ["runonce", "small.default"]);
    assert_eq!(
        run.on(Event::Offers(vec![offer("a", 1.0)]), NOW),
        [Effect::Decline { offer: "offer-a".into(), seconds: 2.0 }]
    );
    let said = run.on(Event::Tick, Duration::from_secs(6));
    let [Effect::Note(text)] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        text.contains("pod big needs 3.26 CPU, 577 MiB") && text.contains("largest offer 1 CPU, 2048 MiB"),
        "{text}"
    );
    assert!(run.on(Event::Tick, Duration::from_secs(7)).is_empty(), "not all the time");
    // An agent that already has a node needs room for the pod only.
    let second = tasks(&run.on(Event::Offers(vec![offer("a", 3.0)]), NOW));
    assert_eq!(names(&second), ["big.default"]);
    assert_eq!(second[0].executor, first[0].executor, "verbatim");
}

#[test]
fn agents_that_the_constraints_exclude_are_left_alone() {
    let mut settings = settings();
    settings.constraints = vec![Constraint { attribute: "rack".into(), values: vec!["r1".into()] }];
    let mut run = Run::new(settings, vec![wanted("web", 100)], 7);
    assert!(tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW)).is_empty());
    let mut fitting = offer("b", 2.0);
    fitting.attributes = vec![Attribute::text("rack", "r1")];
    assert_eq!(tasks(&run.on(Event::Offers(vec![fitting]), NOW)).len(), 2);
}

#[test]
fn ports_come_from_the_offer_and_a_host_port_must_be_in_it() {
    let port = |host_port| PodPort { container_port: 80, host_port, protocol: "TCP".into() };
    for (host_port, expected) in [(None, Some(31000)), (Some(31004), Some(31004)), (Some(80), None)] {
        let mut web = wanted("web", 100);
        web.ports = vec![port(host_port)];
        let tasks = tasks(&run(vec![web]).on(Event::Offers(vec![offer("a", 2.0)]), NOW));
        let found = tasks.get(1).map(|task| {
            let TaskData::Pod(pod) = serde_json::from_slice(&task.data.as_ref().unwrap().0).unwrap() else { panic!() };
            assert!(task.resources.iter().any(|resource| resource.name == "ports"));
            pod.ports[0].host_port
        });
        assert_eq!(found, expected, "{host_port:?}");
    }
}

#[test]
fn a_run_ends_with_the_first_code_that_is_not_zero_when_its_nodes_are_gone() {
    let mut run = run(vec![wanted("a", 100), wanted("b", 100), wanted("c", 100)]);
    let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    run.on(update(&tasks[3], TaskState::Failed, Some(9)), NOW);
    run.on(update(&tasks[1], TaskState::Finished, Some(0)), NOW);
    let effects = run.on(update(&tasks[2], TaskState::Failed, Some(3)), NOW);
    assert_eq!(killed(&effects), [tasks[0].task_id.as_str()]);
    assert_eq!(finished(&effects), None, "the node is not gone yet");
    let effects = run.on(update(&tasks[0], TaskState::Killed, None), NOW);
    assert_eq!(finished(&effects), Some(Outcome::Exit(3)));
    assert!(matches!(effects[0], Effect::Acknowledge(_)));
    assert!(run.on(Event::Tick, NOW).is_empty(), "once");
}

#[test]
fn pods_that_could_not_be_run_make_the_run_fail_after_the_others_have_ended() {
    let mut run = run(vec![wanted("a", 100), wanted("b", 100)]);
    let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    let mut status = TaskStatus::new(tasks[1].task_id.clone(), TaskState::Failed).with_message("no such image");
    status.agent_id = Some("a".into());
    run.on(Event::Update(Box::new(status)), NOW);
    run.on(update(&tasks[2], TaskState::Finished, Some(0)), NOW);
    let effects = run.on(update(&tasks[0], TaskState::Killed, None), NOW);
    assert_eq!(
        finished(&effects),
        Some(Outcome::Failed { why: vec!["pod a: on host-a: no such image".into()], fetch: false })
    );
}

#[test]
fn that_nothing_could_be_fetched_is_known_from_what_ended_the_task_and_not_from_the_pods_name() {
    for (name, message, expected) in [
        ("fetch", "no such image", false),
        ("web", "Failed to fetch all URIs for container", true),
        ("web", "failed to fetch bin/kubelet from http://10.0.0.1:1/x: HTTP 404", true),
    ] {
        let mut run = run(vec![wanted(name, 100)]);
        let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
        let mut status = TaskStatus::new(tasks[0].task_id.clone(), TaskState::Failed).with_message(message);
        status.agent_id = Some("a".into());
        let effects = run.on(Event::Update(Box::new(status)), NOW);
        assert!(matches!(finished(&effects), Some(Outcome::Failed { fetch, .. }) if fetch == expected), "{message}");
    }
}

#[test]
fn a_node_that_dies_takes_its_pods_along_and_is_not_used_again() {
    for event in [Event::Ended { agent: "a".into() }, Event::Tick] {
        let mut run = run(vec![wanted("a", 100), wanted("big", 3000)]);
        let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
        let event = if event == Event::Tick { update(&tasks[0], TaskState::Failed, None) } else { event };
        run.on(event, NOW);
        assert!(matches!(&run.pods[0].stage, Stage::Failed { why, .. } if why.contains("node on host-a stopped")));
        assert!(self::tasks(&run.on(Event::Offers(vec![offer("a", 4.0)]), NOW)).is_empty());
        assert_eq!(self::tasks(&run.on(Event::Offers(vec![offer("b", 4.0)]), NOW)).len(), 2);
    }
}

#[test]
fn a_task_whose_offer_was_gone_is_placed_again() {
    let mut run = run(vec![wanted("web", 100)]);
    let first = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    for task in &first {
        let mut status = TaskStatus::new(task.task_id.clone(), TaskState::Dropped);
        status.reason = Some(StatusReason::InvalidOffers);
        run.on(Event::Update(Box::new(status)), NOW);
    }
    assert_eq!(tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW)).len(), 2, "on the same agent, too");
}

#[test]
fn time_and_the_operator_end_a_run_and_a_node_that_does_not_end_is_not_waited_for_for_ever() {
    for (event, outcome) in [(Event::TimeUp, Outcome::TimeUp), (Event::Interrupted, Outcome::Interrupted)] {
        let mut waiting = run(vec![wanted("web", 100)]);
        assert_eq!(finished(&waiting.on(event.clone(), NOW)), Some(outcome.clone()), "nothing was launched");
        let mut run = run(vec![wanted("web", 100)]);
        let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
        let effects = run.on(event, NOW);
        assert_eq!(killed(&effects), [tasks[0].task_id.as_str()]);
        run.on(update(&tasks[1], TaskState::Killed, None), NOW);
        assert_eq!(finished(&run.on(Event::Tick, NOW + END_LIMIT - Duration::from_secs(1))), None);
        assert_eq!(finished(&run.on(Event::Tick, NOW + END_LIMIT)), Some(outcome));
    }
}

#[test]
fn a_node_is_given_the_pods_that_it_has_tasks_for_and_no_others() {
    let mut run = run(vec![wanted("web", 100), wanted("big", 9000)]);
    let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    let executor = tasks[0].executor.clone().unwrap().executor_id.value;
    let uids = vec!["uid-web".to_owned(), "uid-big".to_owned()];
    let message = |executor: &str| Event::Message {
        agent: "a".into(),
        executor: executor.into(),
        what: FromNode::Wants { uids: uids.clone() },
    };
    let effects = run.on(message(&executor), NOW);
    let [Effect::Send { what: ToNode::Given { pods }, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["uid-web"]);
    assert!(run.on(message("somebody"), NOW).is_empty(), "another executor on that agent");
}

#[test]
fn output_is_handed_on_once_and_in_order() {
    let mut run = run(vec![wanted("web", 100)]);
    let tasks = tasks(&run.on(Event::Offers(vec![offer("a", 2.0)]), NOW));
    let executor = tasks[0].executor.clone().unwrap().executor_id.value;
    let mut text = String::new();
    let mut answers = Vec::new();
    for sequence in [1, 3, 2, 2, 3] {
        let data = Bytes(sequence.to_string().into_bytes());
        let what = FromNode::Output { sequence, uid: "uid-web".into(), container: "a".into(), error: false, data };
        for effect in run.on(Event::Message { agent: "a".into(), executor: executor.clone(), what }, NOW) {
            match effect {
                Effect::Output { data, .. } => text.push_str(&String::from_utf8(data).unwrap()),
                Effect::Send { what: ToNode::Heard { sequence }, .. } => answers.push(sequence),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(text, "123");
    assert_eq!(answers, [1, 1, 2, 2, 3]);
}

#[test]
fn after_a_lost_connection_states_are_asked_for() {
    let mut run = run(vec![wanted("web", 100)]);
    assert!(run.on(Event::Subscribed, NOW).is_empty());
    assert_eq!(run.on(Event::Subscribed, NOW), [Effect::Reconcile, Effect::Revive]);
}
