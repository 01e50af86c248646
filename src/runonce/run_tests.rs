//! Tests the framework against an in-process Mesos.
use std::sync::Mutex;

use super::*;
use crate::decide::framework::{Settings, Wanted};
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::artifacts::KmProgram;
use kmctl_core::protocol::launch::{FORMAT, TaskData};
use kmctl_core::protocol::runonce::{PodEnd, ToNode};
use mesos::Masters;
use mesos::fake::{AgentSpec, FakeMaster, Options};
use mesos::transport::HttpSettings;
use mesos::types::{TaskInfo, TaskState};

/// Records a run's output and notes, for the test to inspect while it runs.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Listener for Heard {
    fn output(&mut self, pod: usize, container: &str, error: bool, data: &[u8]) {
        let text = format!("{pod}/{container}{}: {}", if error { "!" } else { "" }, String::from_utf8_lossy(data));
        self.0.lock().unwrap().push_str(&text);
    }

    fn note(&mut self, text: &str) {
        self.0.lock().unwrap().push_str(&format!("# {text}\n"));
    }
}

fn pods(names: &[&str]) -> Vec<Wanted> {
    names
        .iter()
        .map(|name| Wanted {
            given: serde_json::from_value(serde_json::json!({
                "uid": format!("uid-{name}"),
                "pod": {"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "env": [{"name": "E", "value": "hunter2"}]}]}},
            }))
            .unwrap(),
            namespace: "default".into(),
            name: (*name).to_owned(),
            amount: Amount::new(100, 64),
            ports: Vec::new(),
        })
        .collect()
}

fn new_run(pods: Vec<Wanted>) -> Run {
    let settings = Settings {
        role: "test".into(),
        user: "root".into(),
        cluster: "demo".into(),
        constraints: Vec::new(),
        overhead: Amount::new(250, 512),
        km: KmProgram { sha256: "ab".repeat(32), url: "http://127.0.0.1:1/km".into() },
        kubernetes_version: "v1.37.2".into(),
        root_dir: "/var/lib/kmctl/demo".into(),
        pod_cidr: "172.31.0.0/16".into(),
        cluster_domain: "cluster.local".into(),
        artifacts: Vec::new(),
        keep: false,
    };
    Run::new(settings, pods, rand::random())
}

/// A run in the background, and the Mesos that it runs on.
struct Bed {
    master: FakeMaster,
    heard: Heard,
    interrupted: CancellationToken,
    running: tokio::task::JoinHandle<Result<Outcome, MesosError>>,
}

async fn bed(names: &[&str], timeout: Option<Duration>, reached: Option<(Arc<AtomicBool>, String)>) -> Bed {
    let master = FakeMaster::start(Options { manual: true, ..Options::default() }).await.unwrap();
    master.add_agent(AgentSpec::new("a", 4.0, 4096.0));
    let masters = Masters::new(&[master.address()], &HttpSettings::default()).unwrap();
    let (heard, interrupted) = (Heard::default(), CancellationToken::new());
    let watch = Watch { timeout, interrupted: interrupted.clone(), reached };
    let (run, mut listener) = (new_run(pods(names)), heard.clone());
    let info = framework_info("runonce-test".into(), "root".into(), "test".into(), None);
    let running =
        tokio::spawn(async move { super::run(&Scheduler::new(masters), info, run, watch, &mut listener).await });
    Bed { master, heard, interrupted, running }
}

async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Bed {
    async fn tasks(&self) -> Vec<TaskInfo> {
        until("an ACCEPT", || {
            self.master.calls().into_iter().find_map(|call| match call {
                Call::Accept { accept } => Some(
                    accept
                        .operations
                        .into_iter()
                        .flat_map(|operation| match operation {
                            Operation::Launch { launch } => launch.task_infos,
                            _ => Vec::new(),
                        })
                        .collect::<Vec<_>>(),
                ),
                _ => None,
            })
        })
        .await
    }

    /// Messages that the framework has sent to its nodes so far.
    fn told(&self) -> Vec<ToNode> {
        let messages = self.master.calls().into_iter().filter_map(|call| match call {
            Call::Message { message } => serde_json::from_slice(&message.data.0).ok(),
            _ => None,
        });
        messages.collect()
    }

    async fn kill_of(&self, task: &TaskInfo) {
        until("a KILL of the node", || {
            let wanted = |call: &Call| matches!(call, Call::Kill { kill } if kill.task_id == task.task_id);
            self.master.calls().iter().any(wanted).then_some(())
        })
        .await;
    }

    async fn outcome(self) -> (Outcome, Vec<Call>, String) {
        let outcome = tokio::time::timeout(Duration::from_secs(20), self.running).await.unwrap().unwrap().unwrap();
        (outcome, self.master.calls(), self.heard.0.lock().unwrap().clone())
    }
}

fn end(code: u8) -> Bytes {
    Bytes(serde_json::to_vec(&PodEnd { exit_code: code }).unwrap())
}

#[tokio::test]
async fn a_pod_is_given_by_message_heard_and_its_code_carried_back_and_nothing_is_left() {
    let bed = bed(&["web"], None, None).await;
    let tasks = bed.tasks().await;
    assert_eq!(tasks.len(), 2);
    let executor = tasks[0].executor.clone().unwrap().executor_id;
    let say = |what: &FromNode| bed.master.message(&executor, serde_json::to_vec(what).unwrap().into());
    say(&FromNode::Wants { uids: vec!["uid-web".into()] });
    let given = until("the pod", || {
        bed.told().into_iter().find_map(|what| match what {
            ToNode::Given { pods } => Some(pods),
            ToNode::Heard { .. } => None,
        })
    })
    .await;
    assert_eq!(given[0].uid, "uid-web");
    let output = |sequence| FromNode::Output {
        sequence,
        uid: "uid-web".into(),
        container: "a".into(),
        error: false,
        data: Bytes(b"hello\n".to_vec()),
    };
    say(&output(1));
    say(&output(1));
    until("an answer", || bed.told().contains(&ToNode::Heard { sequence: 1 }).then_some(())).await;
    bed.master.report(&tasks[1].task_id, TaskState::Running, None);
    bed.master.report_with_data(&tasks[1].task_id, TaskState::Failed, Some(end(3)));
    bed.kill_of(&tasks[0]).await;
    let (outcome, calls, heard) = bed.outcome().await;
    assert_eq!(outcome, Outcome::Exit(3));
    assert_eq!(calls.last(), Some(&Call::Teardown));
    assert_eq!(heard.matches("0/a: hello\n").count(), 1, "{heard}");
    assert!(heard.contains("# pod web is running on a\n"), "{heard}");
    let everything = serde_json::to_string(&tasks).unwrap();
    let data: Vec<String> = tasks.iter().map(|task| String::from_utf8(task.data.clone().unwrap().0).unwrap()).collect();
    assert!(!everything.contains("hunter2") && !data.concat().contains("hunter2"));
    let TaskData::Run(launch) = serde_json::from_str(&data[0]).unwrap() else { panic!() };
    assert_eq!(launch.format, FORMAT);
}

#[tokio::test]
async fn the_time_is_up_and_the_pod_is_stopped() {
    let bed = bed(&["web"], Some(Duration::from_millis(400)), None).await;
    let tasks = bed.tasks().await;
    bed.kill_of(&tasks[0]).await;
    let (outcome, calls, _) = bed.outcome().await;
    assert_eq!(outcome, Outcome::TimeUp);
    assert_eq!(calls.last(), Some(&Call::Teardown));
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_in_mesos_also_while_it_waits_for_an_offer() {
    let bed = bed(&["web"], None, None).await;
    bed.tasks().await;
    bed.interrupted.cancel();
    let (outcome, calls, _) = bed.outcome().await;
    assert_eq!((outcome, calls.last()), (Outcome::Interrupted, Some(&Call::Teardown)));

    let huge: Vec<String> = (0..1).map(|_| "huge".to_owned()).collect();
    let mut wanted = pods(&huge.iter().map(String::as_str).collect::<Vec<_>>());
    wanted[0].amount = Amount::new(100_000, 64);
    let master = FakeMaster::start(Options::default()).await.unwrap();
    master.add_agent(AgentSpec::new("a", 4.0, 4096.0));
    let masters = Masters::new(&[master.address()], &HttpSettings::default()).unwrap();
    let interrupted = CancellationToken::new();
    let watch = Watch { timeout: None, interrupted: interrupted.clone(), reached: None };
    let info = framework_info("runonce-huge".into(), "root".into(), "test".into(), None);
    let mut heard = Heard::default();
    let stop = async {
        until("a DECLINE", || master.calls().iter().any(|call| call.name() == "DECLINE").then_some(())).await;
        interrupted.cancel();
    };
    let scheduler = Scheduler::new(masters);
    let (outcome, ()) = tokio::join!(super::run(&scheduler, info, new_run(wanted), watch, &mut heard), stop);
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    assert_eq!(master.calls().last(), Some(&Call::Teardown));
}

#[tokio::test]
async fn an_executor_that_dies_fails_its_pods_and_the_run() {
    let bed = bed(&["web"], None, None).await;
    let tasks = bed.tasks().await;
    bed.master.crash_executor(&tasks[0].executor.clone().unwrap().executor_id);
    let (outcome, ..) = bed.outcome().await;
    let Outcome::Failed { why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why[0].starts_with("pod web: "), "{why:?}");
}

#[tokio::test]
async fn a_lost_connection_ends_nothing() {
    let bed = bed(&["web"], None, None).await;
    let tasks = bed.tasks().await;
    bed.master.disconnect_all();
    until("a reconciliation", || bed.master.calls().iter().any(|call| call.name() == "RECONCILE").then_some(())).await;
    bed.master.report_with_data(&tasks[1].task_id, TaskState::Finished, Some(end(0)));
    let (outcome, _, heard) = bed.outcome().await;
    assert_eq!(outcome, Outcome::Exit(0), "{heard}");
}

#[tokio::test]
async fn a_wrong_master_fails_at_once() {
    let masters = Masters::new(&["127.0.0.1:1".to_owned()], &HttpSettings::default()).unwrap();
    let watch = Watch { timeout: None, interrupted: CancellationToken::new(), reached: None };
    let info = framework_info("x".into(), "root".into(), "test".into(), None);
    let failed =
        super::run(&Scheduler::new(masters), info, new_run(pods(&["web"])), watch, &mut Heard::default()).await;
    assert!(matches!(failed, Err(MesosError::NoLeader { .. })));
}

#[test]
fn that_nobody_fetches_from_kmctl_is_certain_only_after_a_while() {
    let reached = Arc::new(AtomicBool::new(false));
    let watch = Watch {
        timeout: None,
        interrupted: CancellationToken::new(),
        reached: Some((reached.clone(), "http://10.0.0.1:1".into())),
    };
    let long_ago = Instant::now().checked_sub(REACH_LIMIT).unwrap();
    assert!(unreached(&watch, None).is_none());
    assert!(unreached(&watch, Some(Instant::now())).is_none());
    assert!(unreached(&watch, Some(long_ago)).is_some_and(|why| why.contains("http://10.0.0.1:1")));
    reached.store(true, Ordering::Relaxed);
    assert!(unreached(&watch, Some(long_ago)).is_none());
}
