//! Tables of events and the effects they have.
use super::*;
use crate::node::launch::FORMAT;

const NODE: &str = "node.n.1";
const T: &str = "pod.u.1";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pod() -> PodLaunch {
    PodLaunch { format: FORMAT, namespace: "default".into(), name: "p".into(), uid: "u".into(), ports: Vec::new() }
}

fn grant(mem: f64) -> Grant {
    Grant { cpus: 0.5, mem }
}

fn launch(task_id: &str, mem: f64) -> Event {
    Event::Order(Order::LaunchPod { task_id: task_id.into(), pod: pod(), grant: grant(mem) })
}

fn kill(task_id: &str, seconds: u64) -> Event {
    Event::Order(Order::Kill { task_id: task_id.into(), grace: Some(at(seconds)) })
}

fn seen(phase: PodPhase) -> Event {
    Event::PodSeen(view(phase))
}

fn view(phase: PodPhase) -> PodView {
    PodView {
        uid: "u".into(),
        namespace: "default".into(),
        name: "p".into(),
        phase,
        message: String::new(),
        terminating: false,
        stopped: false,
    }
}

fn gone() -> Event {
    Event::PodGone { uid: "u".into() }
}

fn states(effects: &[Effect]) -> Vec<(&str, TaskState)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Report(report) => Some((report.task_id.as_str(), report.state)),
            _ => None,
        })
        .collect()
}

/// An agent that is ready, with two children.
fn ready() -> Agent {
    let mut agent = Agent::new(NODE.into(), &["containerd", "kubelet"]);
    assert_eq!(agent.begin(), [Effect::Prepare]);
    let effects = agent.on(Event::Prepared(Ok(())), at(1));
    assert_eq!(
        effects,
        [Effect::Resize { total: Grant::default() }, Effect::StartService { index: 0, after: Duration::ZERO }]
    );
    agent.on(Event::ServiceStarted { index: 0 }, at(1));
    let effects = agent.on(Event::ServiceReady { index: 0 }, at(2));
    assert_eq!(effects, [Effect::StartService { index: 1, after: Duration::ZERO }]);
    agent.on(Event::ServiceStarted { index: 1 }, at(2));
    let effects = agent.on(Event::ServiceReady { index: 1 }, at(3));
    assert_eq!(states(&effects), [(NODE, TaskState::Running)]);
    assert_eq!(effects.last(), Some(&Effect::WatchPods));
    agent
}

/// The same, with a running pod.
fn running() -> Agent {
    let mut agent = ready();
    agent.on(launch(T, 64.0), at(10));
    agent.on(Event::Admitted { task_id: T.into(), result: Ok(()) }, at(10));
    assert_eq!(states(&agent.on(seen(PodPhase::Running), at(11))), [(T, TaskState::Running)]);
    agent
}

#[test]
fn a_pod_starts_only_after_its_resources_are_in_place() {
    let mut agent = ready();
    let effects = agent.on(launch(T, 64.0), at(10));
    assert_eq!(effects, [Effect::Admit { task_id: T.into(), pod: pod(), total: grant(64.0) }]);
    let effects = agent.on(Event::Admitted { task_id: T.into(), result: Ok(()) }, at(10));
    assert_eq!(states(&effects), [(T, TaskState::Starting)]);
    assert!(agent.on(seen(PodPhase::Pending), at(11)).is_empty());
    assert_eq!(states(&agent.on(seen(PodPhase::Running), at(12))), [(T, TaskState::Running)]);
    assert!(agent.on(seen(PodPhase::Running), at(13)).is_empty(), "said once");
    assert!(agent.on(launch(T, 64.0), at(14)).is_empty(), "Mesos may launch again after the agent's restart");
}

#[test]
fn a_pod_whose_bound_cannot_be_raised_fails_and_the_bound_goes_back() {
    let mut agent = ready();
    agent.on(launch(T, 64.0), at(10));
    let effects = agent.on(Event::Admitted { task_id: T.into(), result: Err("denied".into()) }, at(10));
    assert_eq!(states(&effects), [(T, TaskState::Failed)]);
    assert!(effects.contains(&Effect::ReleasePorts { uid: "u".into() }));
    assert!(effects.contains(&Effect::Resize { total: Grant::default() }));
}

#[test]
fn pods_that_came_before_the_node_was_prepared_count_in_its_first_bound() {
    let mut agent = Agent::new(NODE.into(), &["containerd"]);
    agent.on(launch(T, 64.0), at(0));
    let effects = agent.on(Event::Prepared(Ok(())), at(1));
    assert_eq!(effects[0], Effect::Resize { total: grant(64.0) });
}

#[test]
fn phases_become_states_and_finished_pods_free_what_they_held() {
    for (phase, state) in [(PodPhase::Succeeded, TaskState::Finished), (PodPhase::Failed, TaskState::Failed)] {
        let mut agent = running();
        let effects = agent.on(seen(phase), at(20));
        assert_eq!(states(&effects), [(T, state)]);
        assert!(effects.contains(&Effect::Resize { total: Grant::default() }), "{phase:?}");
        assert!(agent.on(gone(), at(21)).is_empty(), "nothing is said of an ended task");
    }
}

#[test]
fn a_deleted_pod_is_killed_only_when_its_processes_are_gone() {
    let mut agent = running();
    let deleted = Event::PodSeen(PodView { terminating: true, ..view(PodPhase::Running) });
    assert_eq!(states(&agent.on(deleted, at(20))), [(T, TaskState::Killing)]);
    assert_eq!(agent.on(gone(), at(21)), [Effect::AwaitEmpty { uid: "u".into() }]);
    let effects = agent.on(Event::PodEmpty { uid: "u".into() }, at(22));
    assert_eq!(states(&effects), [(T, TaskState::Killed)]);
    assert!(effects.contains(&Effect::Resize { total: Grant::default() }));
}

#[test]
fn the_object_of_a_stopped_pod_is_removed_where_the_kubelet_forgets_it() {
    let mut agent = running();
    let deleted = |stopped| Event::PodSeen(PodView { terminating: true, stopped, ..view(PodPhase::Running) });
    agent.on(deleted(false), at(20));
    assert!(agent.on(Event::Tick, at(29)).is_empty(), "its containers run");
    agent.on(deleted(true), at(30));
    assert!(agent.on(Event::Tick, at(32)).is_empty(), "the kubelet has some time for it");
    assert_eq!(agent.on(Event::Tick, at(33)), [Effect::ForgetPod { pod: pod() }]);
    assert!(agent.on(Event::Tick, at(34)).is_empty(), "once");
    assert_eq!(agent.on(Event::Tick, at(63)), [Effect::ForgetPod { pod: pod() }], "a finalizer may keep it");
    assert_eq!(agent.on(gone(), at(64)), [Effect::AwaitEmpty { uid: "u".into() }]);
    assert!(agent.on(Event::Tick, at(99)).is_empty());
}

#[test]
fn a_kill_deletes_the_pod_with_its_grace() {
    let mut agent = running();
    let effects = agent.on(kill(T, 7), at(20));
    assert_eq!(states(&effects), [(T, TaskState::Killing)]);
    assert_eq!(effects[1], Effect::DeletePod { pod: pod(), grace: at(7) });
    assert_eq!(agent.on(kill(T, 1), at(21)), [Effect::DeletePod { pod: pod(), grace: at(1) }], "a shorter one later");
    assert_eq!(states(&agent.on(kill("pod.other", 1), at(22))), [("pod.other", TaskState::Killed)]);
}

#[test]
fn a_kill_before_the_kubelet_runs_ends_the_task_at_once() {
    let mut agent = Agent::new(NODE.into(), &["containerd"]);
    agent.on(launch(T, 64.0), at(0));
    assert_eq!(states(&agent.on(kill(T, 5), at(1))), [(T, TaskState::Killed)]);
}

#[test]
fn a_crashed_child_is_started_again_with_growing_waits_until_it_has_settled() {
    let mut agent = ready();
    let crash = |agent: &mut Agent, now| {
        let effects = agent.on(Event::ServiceEnded { index: 1, why: "ended".into(), fatal: false }, now);
        assert_eq!(states(&effects), [(NODE, TaskState::Running)], "the node lives on");
        match effects[1] {
            Effect::StartService { index: 1, after } => after.as_secs(),
            _ => unreachable!("{effects:?}"),
        }
    };
    let mut waits = Vec::new();
    for second in 10..16 {
        waits.push(crash(&mut agent, at(second)));
        agent.on(Event::ServiceStarted { index: 1 }, at(second));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 20]);
    assert_eq!(crash(&mut agent, at(15) + SETTLED), 1, "it had run well");
}

#[test]
fn a_child_that_can_never_start_ends_the_node_with_the_reason() {
    let mut agent = ready();
    let ended = Event::ServiceEnded { index: 1, why: "cannot work here".into(), fatal: true };
    assert_eq!(agent.on(ended, at(10)), [Effect::TearDown { grace: Duration::ZERO }]);
    let effects = agent.on(Event::TornDown(Ok(())), at(11));
    let Effect::Report(report) = &effects[0] else { unreachable!("{effects:?}") };
    assert_eq!((report.state, report.message.as_str()), (TaskState::Failed, "kubelet cannot work here"));
    assert_eq!(effects[1], Effect::Exit);
}

#[test]
fn a_node_that_cannot_be_prepared_fails_with_its_pods() {
    let mut agent = Agent::new(NODE.into(), &["containerd"]);
    agent.on(launch(T, 64.0), at(0));
    assert_eq!(agent.on(Event::Prepared(Err("overlay".into())), at(1)), [Effect::TearDown { grace: Duration::ZERO }]);
    let effects = agent.on(Event::TornDown(Ok(())), at(2));
    assert_eq!(states(&effects), [(T, TaskState::Failed), (NODE, TaskState::Failed)]);
}

#[test]
fn a_stopped_node_drains_its_pods_through_the_api_then_ends() {
    let mut agent = running();
    let effects = agent.on(kill(NODE, 60), at(100));
    assert_eq!(states(&effects), [(NODE, TaskState::Killing), (T, TaskState::Killing)]);
    assert!(effects.contains(&Effect::DeletePod { pod: pod(), grace: at(45) }));
    assert_eq!(states(&agent.on(launch("pod.late", 1.0), at(101))), [("pod.late", TaskState::Failed)]);
    agent.on(gone(), at(102));
    let effects = agent.on(Event::PodEmpty { uid: "u".into() }, at(103));
    assert_eq!(states(&effects), [(T, TaskState::Killed)]);
    assert!(matches!(effects.last(), Some(Effect::TearDown { .. })));
    let effects = agent.on(Event::TornDown(Ok(())), at(104));
    assert_eq!(states(&effects), [(NODE, TaskState::Killed)]);
    assert_eq!(effects.last(), Some(&Effect::Exit));
    assert!(agent.on(Event::Tick, at(105)).is_empty());
}

#[test]
fn pods_that_outstay_the_grace_are_ended_with_the_node() {
    let mut agent = running();
    agent.on(Event::Order(Order::Shutdown { grace: Some(at(60)) }), at(100));
    assert!(agent.on(Event::Tick, at(144)).is_empty());
    let effects = agent.on(Event::Tick, at(145));
    assert_eq!(effects, [Effect::TearDown { grace: Duration::from_millis(7500) }]);
    let effects = agent.on(Event::TornDown(Err("a mount".into())), at(150));
    assert_eq!(states(&effects), [(T, TaskState::Killed), (NODE, TaskState::Killed)]);
    let Effect::Report(report) = &effects[effects.len() - 2] else { unreachable!("{effects:?}") };
    assert!(report.message.contains("left for the sweep: a mount"), "{}", report.message);
}

#[test]
fn a_bound_that_could_not_be_lowered_is_tried_again() {
    let mut agent = ready();
    agent.on(Event::Resized(Err("busy".into())), at(10));
    assert_eq!(agent.on(Event::Tick, at(11)), [Effect::Resize { total: Grant::default() }]);
    assert!(agent.on(Event::Tick, at(12)).is_empty());
}

#[test]
fn a_node_that_never_gets_ready_is_given_up_with_the_name_of_what_it_waits_for() {
    let mut agent = Agent::new(NODE.into(), &["containerd", "kubelet"]);
    agent.on(Event::Prepared(Ok(())), at(1));
    agent.on(Event::ServiceReady { index: 0 }, at(2));
    assert!(agent.on(Event::Tick, at(599)).is_empty());
    assert_eq!(agent.on(Event::Tick, at(600)), [Effect::TearDown { grace: Duration::ZERO }]);
    let effects = agent.on(Event::TornDown(Ok(())), at(601));
    let Effect::Report(report) = &effects[0] else { unreachable!("{effects:?}") };
    assert!(report.message.starts_with("kubelet was not ready"), "{}", report.message);
}
