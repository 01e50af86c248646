//! Tables of events and their effects.
use super::*;
use kmctl_core::protocol::launch::FORMAT;

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
        grace: Some(at(30)),
    }
}

fn gone() -> Event {
    Event::PodGone { uid: "u".into() }
}

fn delete(seconds: u64) -> Effect {
    Effect::DeletePod { pod: pod(), grace: Some(at(seconds)) }
}

/// A deletion that leaves the grace period to the pod's own specification.
fn delete_as_it_says() -> Effect {
    Effect::DeletePod { pod: pod(), grace: None }
}

fn answer(result: Result<Deletion, &str>) -> Event {
    Event::PodDeleted { uid: "u".into(), result: result.map_err(str::to_owned) }
}

/// A ready agent with its pods listed, and one admitted pod that was not seen yet.
fn starting() -> Agent {
    let mut agent = ready();
    agent.on(Event::PodsListed, at(4));
    agent.on(launch(T, 64.0), at(10));
    agent.on(Event::Admitted { task_id: T.into(), result: Ok(()) }, at(10));
    agent
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
    assert_eq!(effects[1], delete(7));
    assert!(agent.on(kill(T, 2), at(21)).is_empty(), "one request at a time");
    assert_eq!(agent.on(answer(Ok(Deletion::Accepted)), at(21)), [delete(2)], "a shorter one later");
    assert!(agent.on(answer(Ok(Deletion::Accepted)), at(21)).is_empty());
    assert!(agent.on(kill(T, 7), at(22)).is_empty(), "a longer one says nothing new");
    assert_eq!(agent.on(kill(T, 0), at(22)), [delete(1)], "zero would leave its containers without an object");
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
    assert!(effects.contains(&delete(30)), "its own is shorter than the 45 s that Mesos leaves");
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
    assert!(report.message.contains("left for the clean-up task: a mount"), "{}", report.message);
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

#[test]
fn what_the_node_may_not_delete_is_gone_only_if_its_own_watch_does_not_have_it() {
    let mut agent = starting();
    assert_eq!(agent.on(kill(T, 60), at(20))[1], delete_as_it_says());
    assert!(agent.on(answer(Ok(Deletion::Foreign)), at(20)).is_empty(), "a Binding may be on its way to both");
    assert_eq!(agent.on(Event::Tick, at(21)), [delete_as_it_says()]);
    assert_eq!(agent.on(answer(Ok(Deletion::Foreign)), at(21)), [Effect::AwaitEmpty { uid: "u".into() }]);
    assert_eq!(states(&agent.on(Event::PodEmpty { uid: "u".into() }, at(22))), [(T, TaskState::Killed)]);

    for answered in [Deletion::Foreign, Deletion::Absent] {
        let mut agent = running();
        agent.on(Event::PodsListed, at(12));
        agent.on(kill(T, 60), at(20));
        assert!(agent.on(answer(Ok(answered)), at(20)).is_empty(), "{answered:?}: its containers may run");
        assert_eq!(agent.on(Event::Tick, at(21)), [delete(30)]);
        let effects = agent.on(answer(Ok(answered)), at(21));
        assert!(matches!(effects.as_slice(), [Effect::Warn(_)]), "{answered:?}: {effects:?}");
        assert_eq!(agent.on(Event::Tick, at(23)), [delete(30)]);
        assert!(agent.on(answer(Ok(answered)), at(23)).is_empty(), "said once");
        assert_eq!(agent.on(gone(), at(24)), [Effect::AwaitEmpty { uid: "u".into() }]);
        assert!(agent.on(gone(), at(24)).is_empty(), "waited for once");
        assert!(agent.on(Event::Tick, at(99)).is_empty(), "the deletion ends with the pod");
    }
}

#[test]
fn before_the_pods_are_listed_only_the_api_servers_absence_counts() {
    let mut agent = ready();
    agent.on(launch(T, 64.0), at(10));
    agent.on(kill(T, 60), at(20));
    for second in [20, 21, 23] {
        assert!(agent.on(answer(Ok(Deletion::Foreign)), at(second)).is_empty());
        agent.on(Event::Tick, at(second + 30));
    }
    agent.on(answer(Ok(Deletion::Foreign)), at(53));
    assert_eq!(agent.on(Event::PodsListed, at(54)), [delete_as_it_says()], "what could not be settled can be now");
    agent.on(answer(Ok(Deletion::Foreign)), at(54));
    agent.on(Event::Tick, at(55));
    assert_eq!(agent.on(answer(Ok(Deletion::Foreign)), at(55)), [Effect::AwaitEmpty { uid: "u".into() }]);
}

#[test]
fn deletions_that_fail_are_asked_for_again_with_growing_waits_and_told_once() {
    let mut agent = running();
    agent.on(kill(T, 60), at(20));
    let (mut asked, mut told) = (Vec::new(), 0);
    let mut effects = agent.on(answer(Err("no answer within 10 s")), at(20));
    for second in 20..400 {
        told += effects.iter().filter(|effect| matches!(effect, Effect::Warn(_))).count();
        effects = agent.on(Event::Tick, at(second));
        effects.extend(agent.on(kill(T, 60), at(second)));
        if effects.contains(&delete(30)) {
            asked.push(second);
            effects = agent.on(answer(Err("no answer within 10 s")), at(second));
        }
    }
    assert_eq!(asked, [21, 23, 27, 35, 51, 83, 143, 203, 263, 323, 383]);
    assert_eq!(told, 1);
    let effects = agent.on(Event::Tick, at(443));
    assert_eq!(effects, [delete(30)]);
    assert!(
        matches!(agent.on(answer(Err("refused")), at(443)).as_slice(), [Effect::Warn(_)]),
        "another reason is news"
    );
}

#[test]
fn a_deletion_that_was_taken_is_asked_for_again_where_nothing_comes_of_it() {
    // The pod appeared and disappeared between two lists, so the watch never reports it.
    let mut agent = starting();
    agent.on(kill(T, 60), at(20));
    assert!(agent.on(answer(Ok(Deletion::Accepted)), at(20)).is_empty());
    assert_eq!(agent.on(Event::Tick, at(21)), [delete_as_it_says()]);
    assert_eq!(agent.on(answer(Ok(Deletion::Absent)), at(21)), [Effect::AwaitEmpty { uid: "u".into() }]);
    // A pod that was seen has its grace period first.
    let mut agent = running();
    agent.on(kill(T, 60), at(20));
    agent.on(answer(Ok(Deletion::Accepted)), at(20));
    assert!(agent.on(Event::Tick, at(59)).is_empty());
    assert_eq!(agent.on(Event::Tick, at(60)), [delete(30)]);
}

#[test]
fn a_pod_that_is_seen_after_its_deletion_has_no_more_time_than_mesos_allows() {
    let mut agent = starting();
    assert_eq!(agent.on(kill(T, 5), at(20))[1], delete_as_it_says());
    agent.on(answer(Ok(Deletion::Accepted)), at(20));
    let seen = Event::PodSeen(PodView { terminating: true, ..view(PodPhase::Pending) });
    assert_eq!(agent.on(seen.clone(), at(20)), [delete(5)]);
    assert!(agent.on(seen, at(21)).is_empty());
}

#[test]
fn a_pod_that_counted_as_gone_and_is_seen_after_all_is_deleted() {
    let mut agent = starting();
    agent.on(kill(T, 60), at(20));
    agent.on(answer(Ok(Deletion::Absent)), at(20));
    assert_eq!(agent.on(seen(PodPhase::Pending), at(21)), [delete(30)]);
    assert!(agent.on(Event::PodEmpty { uid: "u".into() }, at(21)).is_empty(), "it was too early");
    assert_eq!(agent.on(gone(), at(22)), [Effect::AwaitEmpty { uid: "u".into() }]);
    assert_eq!(states(&agent.on(Event::PodEmpty { uid: "u".into() }, at(23))), [(T, TaskState::Killed)]);
}

#[test]
fn a_task_that_is_killed_while_it_gets_its_resources_is_never_starting_again() {
    let mut agent = ready();
    agent.on(launch(T, 64.0), at(10));
    assert_eq!(states(&agent.on(kill(T, 5), at(10))), [(T, TaskState::Killing)]);
    assert!(agent.on(Event::Admitted { task_id: T.into(), result: Ok(()) }, at(11)).is_empty());
    assert!(states(&agent.on(seen(PodPhase::Running), at(12))).is_empty());
}

#[test]
fn a_node_that_is_being_stopped_is_not_running_again_when_a_child_crashes() {
    let mut agent = running();
    agent.on(kill(NODE, 60), at(100));
    let effects = agent.on(Event::ServiceEnded { index: 1, why: "ended".into(), fatal: false }, at(101));
    assert_eq!(states(&effects), [(NODE, TaskState::Killing)]);
}

#[test]
fn a_pod_killed_after_the_kubelets_start_is_deleted_even_if_the_node_is_not_ready() {
    let mut agent = Agent::new(NODE.into(), &["containerd", "kubelet"]);
    agent.on(Event::Prepared(Ok(())), at(1));
    agent.on(launch(T, 64.0), at(2));
    agent.on(Event::Admitted { task_id: T.into(), result: Ok(()) }, at(2));
    agent.on(Event::ServiceReady { index: 0 }, at(3));
    let effects = agent.on(kill(T, 5), at(4));
    assert_eq!(states(&effects), [(T, TaskState::Killing)]);
    assert_eq!(effects[1], delete_as_it_says());
}

#[test]
fn the_object_of_a_pod_that_runs_after_all_is_left_alone() {
    let mut agent = running();
    let deleted = |stopped| Event::PodSeen(PodView { terminating: true, stopped, ..view(PodPhase::Running) });
    agent.on(deleted(true), at(20));
    agent.on(deleted(false), at(21));
    assert!(agent.on(Event::Tick, at(24)).is_empty());
}

#[test]
fn a_bound_that_cannot_be_set_is_tried_with_growing_waits_and_told_once() {
    let mut agent = ready();
    assert!(matches!(agent.on(Event::Resized(Err("busy".into())), at(10)).as_slice(), [Effect::Warn(_)]));
    let mut tried = Vec::new();
    for second in 10..100 {
        if agent.on(Event::Tick, at(second)) == [Effect::Resize { total: Grant::default() }] {
            tried.push(second);
            assert!(agent.on(Event::Resized(Err("busy".into())), at(second)).is_empty());
        }
    }
    assert_eq!(tried, [11, 13, 17, 25, 41, 73]);
}
