//! Hollow nodes, real node agents on objects that run nothing, against a real API server.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use km::node::hollow::{Options, run};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

const COUNT: u32 = 50;
/// Fifty agents share two cores with the server that they talk to.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
#[ignore = "needs etcd and kube-apiserver: scripts/test"]
async fn fifty_hollow_nodes_register_run_a_pod_and_leave() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let stop = CancellationToken::new();
    let options = Options { count: COUNT, prefix: "hollow-".to_owned(), kubeconfig };
    let agents = tokio::spawn(run(options, stop.clone()));

    let client = server.client();
    let wanted: BTreeSet<String> = (0..COUNT).map(|number| format!("hollow-{number}")).collect();
    until("every node to be ready", || async { ready(&client).await == wanted }).await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let kept: BTreeSet<String> = names(&leases.list(&ListParams::default()).await.unwrap().items);
    assert_eq!(kept, wanted, "every node keeps a Lease");

    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "guest" },
        "spec": { "nodeName": "hollow-7", "containers": [{ "name": "main", "image": "none" }] },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    until("the pod to run", || async {
        let status = pods.get("guest").await.unwrap().status.unwrap_or_default();
        status.phase.as_deref() == Some("Running")
    })
    .await;
    pods.delete("guest", &DeleteParams::default()).await.unwrap();
    until("the pod to be gone", || async { pods.get_opt("guest").await.unwrap().is_none() }).await;

    stop.cancel();
    tokio::time::timeout(PATIENCE, agents).await.expect("the agents end").unwrap().unwrap();
    let nodes: Api<Node> = Api::all(client);
    assert_eq!(names(&nodes.list(&ListParams::default()).await.unwrap().items), BTreeSet::new(), "no node is left");
    assert_eq!(names(&leases.list(&ListParams::default()).await.unwrap().items), BTreeSet::new(), "no Lease is left");
}

async fn ready(client: &Client) -> BTreeSet<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let is_ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let all = nodes.list(&ListParams::default()).await.unwrap().items;
    names(&all.into_iter().filter(is_ready).collect::<Vec<_>>())
}

fn names<T: ResourceExt>(objects: &[T]) -> BTreeSet<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}

async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
