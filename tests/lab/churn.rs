//! Pods that are deleted while they start: nothing of them may stay, and nobody may go on asking for them.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::support::*;

const NAMESPACE: &str = "churn";
const PODS: u32 = 200;
/// Over so many milliseconds they are made: ten a second, as a busy controller does.
const MADE_WITHIN: u32 = 20_000;
/// A pod is deleted so many milliseconds after it was made, at the latest.
const DELETED_WITHIN: u32 = 5_000;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn pods_deleted_at_any_time_of_their_start_leave_no_task_and_no_flood() {
    let lab = Lab::ready();
    // As many nodes all the time, so that they ask the API server as often before as after.
    let _bounds = Bounds(&lab);
    lab.kmctl(&["scale", "--nodes", &lab.hosts("agent").len().to_string()]).success();
    let namespace = Namespace::new(&lab, NAMESPACE);
    namespace.sleeper("keeper", "20m", "32Mi");
    namespace.wait("keeper", NODE_START);
    let idle = requests_per_second(&lab);
    let refused = refusals(&lab);

    make_and_delete(&lab);
    let ours =
        |task: &Value| task["name"].as_str().is_some_and(|name| name.starts_with('p') && name.ends_with(".churn"));
    eventually_or(
        Duration::from_secs(60),
        "every task of a deleted pod to end",
        || {
            lab.tasks()
                .iter()
                .filter(|task| ours(task))
                .map(|task| format!("{} {}\n", task["name"], task["state"]))
                .collect()
        },
        || (!lab.tasks().iter().any(ours)).then_some(()),
    );

    let more = refusals(&lab) - refused;
    assert!(more < f64::from(PODS) * 5.0, "{more} requests about pods were refused or about nothing");
    let completed = lab.framework()["completed_tasks"].as_array().cloned().unwrap_or_default();
    let completed: Vec<Value> = completed.into_iter().filter(ours).collect();
    assert!(!completed.is_empty(), "some pods had a task");
    for task in &completed {
        let states = task["statuses"].as_array().into_iter().flatten().filter_map(|one| one["state"].as_str());
        let ranks: Vec<u8> = states.clone().map(rank).collect();
        assert!(ranks.is_sorted(), "{} went back: {:?}", task["name"], states.collect::<Vec<_>>());
    }
    // Something may still be on its way, such as the events of the last pods.
    let mut last = f64::MAX;
    eventually_or(
        Duration::from_secs(40),
        "the API server to be idle again",
        || format!("{idle:.1} requests a second before"),
        || {
            last = requests_per_second(&lab);
            (last <= idle * 1.25 + 2.0).then_some(())
        },
    );
    println!("{idle:.1} requests a second before and {last:.1} after; {more} refused meanwhile");
    assert!(lab.pod(NAMESPACE, "keeper").is_some_and(|pod| ready(&pod)), "another pod is not disturbed");
}

/// How far a task has come.
fn rank(state: &str) -> u8 {
    match state {
        "TASK_STAGING" => 0,
        "TASK_STARTING" => 1,
        "TASK_RUNNING" => 2,
        "TASK_KILLING" => 3,
        _ => 4,
    }
}

/// Makes the pods and deletes each, some at once and some with a second to end, and returns when the last is asked to go.
fn make_and_delete(lab: &Lab) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&lab.kubeconfig).expect("the lab's kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
        let pods: Arc<Api<Pod>> = Arc::new(Api::namespaced(Client::try_from(config).expect("a client"), NAMESPACE));
        let mut random = Random(2026);
        let mut all = tokio::task::JoinSet::new();
        for index in 0..PODS {
            let (made, lives) = (random.between(0, MADE_WITHIN), random.between(0, DELETED_WITHIN));
            let (pods, at_once) = (pods.clone(), random.between(0, 4) == 0);
            all.spawn(async move {
                tokio::time::sleep(Duration::from_millis(made.into())).await;
                let name = format!("p{index}");
                let pod = serde_json::from_value(pod(&name)).expect("a pod");
                pods.create(&PostParams::default(), &pod).await.unwrap_or_else(|error| panic!("make {name}: {error}"));
                tokio::time::sleep(Duration::from_millis(lives.into())).await;
                let grace = DeleteParams { grace_period_seconds: at_once.then_some(0), ..DeleteParams::default() };
                match pods.delete(&name, &grace).await {
                    // km scheduler or km node may have been first.
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => {
                        other.unwrap_or_else(|error| panic!("delete {name}: {error}"));
                    }
                }
            });
        }
        while let Some(ended) = all.join_next().await {
            ended.expect("made and deleted");
        }
    });
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "churn"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000"],
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            }],
        },
    })
}

/// Requests that the API server has answered so far, of those whose labels are wanted.
fn requests(lab: &Lab, wanted: impl Fn(&str) -> bool) -> f64 {
    let metrics = lab.kubectl(&["get", "--raw", "/metrics"]).success();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{"));
    let counted = lines.filter_map(|line| line.rsplit_once("} "));
    counted.filter(|(labels, _)| wanted(labels)).filter_map(|(_, count)| count.parse::<f64>().ok()).sum()
}

/// What a node asks for in vain: pods that are gone, or not its own.
fn refusals(lab: &Lab) -> f64 {
    let refused = [r#"code="403""#, r#"code="404""#, r#"code="409""#, r#"code="429""#];
    requests(lab, |labels| labels.contains(r#"resource="pods""#) && refused.iter().any(|code| labels.contains(code)))
}

/// Over ten seconds, in which every node has renewed its Lease once.
fn requests_per_second(lab: &Lab) -> f64 {
    let window = Duration::from_secs(10);
    let before = requests(lab, |_| true);
    std::thread::sleep(window);
    (requests(lab, |_| true) - before) / window.as_secs_f64()
}
