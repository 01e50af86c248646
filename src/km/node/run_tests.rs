//! The agent on recorded objects.
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::UnboundedSender;

use super::*;
use crate::node::decide::{Deletion, PodPhase, PodView};
use crate::node::recorded::{World, deps};
use kmctl_core::node::spec::Place;
use kmctl_core::protocol::launch::{self, FORMAT, Grant, PodLaunch};

/// The agent is built from these two only.
#[test]
fn an_agent_is_made_of_a_configuration_and_injected_objects() {
    let _: fn(KubeletConfiguration, KubeletDeps) -> NodeAgent = NodeAgent::new;
}

struct Trial {
    world: Arc<World>,
    orders: UnboundedSender<Order>,
    agent: JoinHandle<()>,
}

fn begin(world: World) -> Trial {
    let world = Arc::new(world);
    let (deps, orders) = deps(&world);
    let config = KubeletConfiguration::for_launch(&launch::example(), &Place::example());
    let agent = tokio::spawn(NodeAgent::new(config, deps).run());
    Trial { world, orders, agent }
}

fn pod(task_id: &str) -> Order {
    let pod =
        PodLaunch { format: FORMAT, namespace: "default".into(), name: "p".into(), uid: "u".into(), ports: Vec::new() };
    Order::LaunchPod { task_id: task_id.into(), pod, grant: Grant { cpus: 0.5, mem: 64.0 } }
}

fn view(phase: PodPhase) -> Event {
    Event::PodSeen(PodView {
        uid: "u".into(),
        namespace: "default".into(),
        name: "p".into(),
        phase,
        message: String::new(),
        terminating: false,
        stopped: false,
        grace: None,
    })
}

fn order_of(notes: &[String], wanted: &[&str]) -> Vec<usize> {
    wanted
        .iter()
        .map(|begin| {
            notes.iter().position(|note| note.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {notes:#?}"))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_comes_up_runs_a_pod_and_leaves_in_order() {
    let Trial { world, orders, agent } = begin(World::default());
    world.until("watch pods").await;
    orders.send(pod("t")).unwrap();
    world.until("report t Starting").await;
    world.pods.lock().unwrap().as_ref().unwrap().send(view(PodPhase::Running)).unwrap();
    world.until("report t Running").await;
    orders.send(Order::Shutdown { grace: None }).unwrap();
    agent.await.unwrap();
    let notes = world.notes();
    let order = order_of(
        &notes,
        &[
            "open",
            "cgroup",
            "names",
            "fetch",
            "start containerd",
            "start kubelet",
            "start kube-proxy",
            "report node.n.1 Running",
            "bound 64 MB",
            "report t Starting",
            "report t Running",
            "report node.n.1 Killing",
            "delete p",
            "report t Killed",
            "stop kube-proxy",
            "stop kubelet",
            "stop pods",
            "stop containerd",
            "close",
            "report node.n.1 Killed",
            "flush",
        ],
    );
    assert!(order.is_sorted(), "{notes:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_child_is_reported_and_started_again() {
    let Trial { world, orders, agent } = begin(World::default());
    world.until("watch pods").await;
    world.crashes.lock().unwrap().push_back("exited (exit status: 255)".into());
    world.crash.notify_waiters();
    world.until("report node.n.1 Running kubelet exited (exit status: 255); restarting in 1s").await;
    let starts = || world.notes().iter().filter(|note| *note == "start kubelet").count();
    while starts() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.notes().iter().filter(|note| *note == "start containerd").count(), 1, "only what crashed");
    orders.send(Order::Shutdown { grace: None }).unwrap();
    agent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_denied_cgroup_fails_the_node_before_anything_is_started() {
    let world = World::default();
    *world.cgroup_denied.lock().unwrap() = Some("cgroups are mounted read-only here".into());
    let Trial { world, orders: _orders, agent } = begin(world);
    agent.await.unwrap();
    let notes = world.notes();
    assert!(notes.iter().any(|note| note == "report node.n.1 Failed cgroups are mounted read-only here"), "{notes:#?}");
    assert!(!notes.iter().any(|note| note.starts_with("start ")), "{notes:#?}");
    assert!(notes.iter().any(|note| note == "close"), "what was made is removed: {notes:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_bound_is_denied_fails_alone() {
    let Trial { world, orders, agent } = begin(World::default());
    world.until("watch pods").await;
    *world.cgroup_denied.lock().unwrap() = Some("no".into());
    orders.send(pod("t")).unwrap();
    world.until("report t Failed no").await;
    *world.cgroup_denied.lock().unwrap() = None;
    assert!(!agent.is_finished());
    orders.send(Order::Shutdown { grace: None }).unwrap();
    agent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_changes_nothing() {
    let Trial { world, orders, agent } = begin(World::default());
    world.until("watch pods").await;
    orders.send(pod("t")).unwrap();
    world.until("report t Starting").await;
    let before = world.notes();
    world.wall_offset.store(10 * 365 * 24 * 3600, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.notes(), before, "no restart, no deadline, no report");
    orders.send(Order::Shutdown { grace: None }).unwrap();
    agent.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_mesos_side_ends_the_node() {
    let Trial { world, orders, agent } = begin(World::default());
    world.until("watch pods").await;
    drop(orders);
    agent.await.unwrap();
    assert!(world.notes().iter().any(|note| note == "close"));
}

/// The API gives these answers in order, and then repeats the last one. Returns the recorded requests and reports.
async fn killed_before_it_was_seen(answers: Vec<Result<Deletion, String>>, kills: u32) -> Vec<String> {
    let world = World::default();
    *world.deletion.lock().unwrap() = answers.last().cloned();
    *world.deletions.lock().unwrap() = answers.into();
    let Trial { world, orders, agent } = begin(world);
    world.until("watch pods").await;
    orders.send(pod("t")).unwrap();
    world.until("report t Starting").await;
    for _ in 0..kills {
        orders.send(Order::Kill { task_id: "t".into(), grace: None }).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    let notes = world.notes();
    agent.abort();
    notes
}

fn deletions(notes: &[String]) -> usize {
    notes.iter().filter(|note| note.starts_with("delete p")).count()
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_while_it_starts_ends_its_task_and_asks_the_api_once_or_twice() {
    let late = || Err("no answer within 10 s".to_owned());
    let cases = [
        ("404, or 409 for another UID", vec![Ok(Deletion::Absent)], 1),
        ("403, which is asked about once more", vec![Ok(Deletion::Foreign)], 2),
        ("403, and gone meanwhile", vec![Ok(Deletion::Foreign), Ok(Deletion::Absent)], 2),
        ("no answer at first", vec![late(), late(), Ok(Deletion::Absent)], 3),
        ("taken, and never seen", vec![Ok(Deletion::Accepted), Ok(Deletion::Absent)], 2),
    ];
    for (what, answers, requests) in cases {
        let notes = killed_before_it_was_seen(answers, 1).await;
        assert_eq!(deletions(&notes), requests, "{what}: {notes:#?}");
        assert!(notes.contains(&"report t Killed the pod is gone".to_owned()), "{what}: {notes:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn kills_that_come_again_join_the_deletion_that_is_under_way() {
    let notes = killed_before_it_was_seen(vec![Err("the API server is away".to_owned())], 30).await;
    assert!(deletions(&notes) <= 11, "in 300 s, with 30 kills: {}", deletions(&notes));
    assert_eq!(notes.iter().filter(|note| note.starts_with("report t Killing")).count(), 1);
    assert!(!notes.iter().any(|note| note.starts_with("report t Killed")), "it may run for all that is known");
}
