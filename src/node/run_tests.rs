//! The agent on recorded objects.
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::UnboundedSender;

use super::*;
use crate::node::decide::{PodPhase, PodView};
use crate::node::launch::{self, FORMAT, Grant, PodLaunch};
use crate::node::recorded::{World, deps};
use crate::node::spec::Place;

/// The agent is made of these two and nothing else.
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
    world.crashes.lock().unwrap().push_back("ended (exit status: 255)".into());
    world.crash.notify_waiters();
    world.until("report node.n.1 Running kubelet ended (exit status: 255); started again in 1 s").await;
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
