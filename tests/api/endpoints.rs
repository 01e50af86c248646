//! `km endpoints` against a real API server.
use std::time::{Duration, Instant};

use km::endpoints::run::serve;
use km::endpoints::wanted::{ENDPOINTS_MANAGER_LABEL, MANAGER, SLICE_MANAGER_LABEL};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// Within this time the writer has to be right again.
const PATIENCE: Duration = Duration::from_secs(10);

struct World {
    client: Client,
    slices: ApiResource,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
}

impl World {
    fn new(client: Client) -> World {
        World { client, slices: resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices") }
    }

    fn api(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), "default", &resource("", "v1", kind, plural))
    }

    fn slice_api(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), "default", &self.slices)
    }

    async fn create(&self, kind: &str, plural: &str, object: Value) -> DynamicObject {
        let mut object = object;
        object["apiVersion"] = json!("v1");
        object["kind"] = json!(kind);
        let object = serde_json::from_value(object).unwrap();
        self.api(kind, plural).create(&PostParams::default(), &object).await.unwrap()
    }

    async fn pod(&self, name: &str, node: &str, address: &str, ports: Value) {
        self.create(
            "Pod",
            "pods",
            json!({
                "metadata": {
                    "name": name, "labels": { "app": "web" }, "annotations": { "kmctl.io/ports": ports.to_string() },
                },
                "spec": {
                    "nodeName": node,
                    "containers": [{
                        "name": "c", "image": "busybox",
                        "ports": [{ "name": "http", "containerPort": 80 }],
                    }],
                },
            }),
        )
        .await;
        self.pod_status(name, address, true).await;
    }

    async fn pod_status(&self, name: &str, address: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({ "status": {
            "phase": "Running", "hostIP": address, "podIP": "172.30.0.9", "podIPs": [{ "ip": "172.30.0.9" }],
            "conditions": [{ "type": "Ready", "status": ready }],
        } });
        let pods = self.api("Pod", "pods");
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// `ip:port` of the Service's Endpoints, those not ready with a `!`.
    async fn endpoints(&self, service: &str) -> Option<Vec<String>> {
        let object = self.api("Endpoints", "endpoints").get_opt(service).await.unwrap()?;
        let mut all = Vec::new();
        for subset in object.data["subsets"].as_array().into_iter().flatten() {
            for port in subset["ports"].as_array().into_iter().flatten() {
                for (list, mark) in [("addresses", ""), ("notReadyAddresses", "!")] {
                    for address in subset[list].as_array().into_iter().flatten() {
                        all.push(format!("{mark}{}:{}", address["ip"].as_str().unwrap(), port["port"]));
                    }
                }
            }
        }
        all.sort();
        Some(all)
    }

    async fn raw_slices(&self) -> Vec<DynamicObject> {
        self.slice_api()
            .list(&ListParams::default().labels(&format!("{SLICE_MANAGER_LABEL}={MANAGER}")))
            .await
            .unwrap()
            .items
    }

    /// The same out of its slices.
    async fn slices(&self, service: &str) -> Vec<String> {
        let mut all = Vec::new();
        for slice in self.raw_slices().await {
            if slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] != service {
                continue;
            }
            for port in slice.data["ports"].as_array().into_iter().flatten() {
                for endpoint in slice.data["endpoints"].as_array().into_iter().flatten() {
                    let mark = if endpoint["conditions"]["ready"] == json!(true) { "" } else { "!" };
                    all.push(format!("{mark}{}:{}", endpoint["addresses"][0].as_str().unwrap(), port["port"]));
                }
            }
        }
        all.sort();
        all
    }

    async fn expect(&self, service: &str, expected: &[&str]) {
        let begin = Instant::now();
        loop {
            let (endpoints, slices) = (self.endpoints(service).await, self.slices(service).await);
            if endpoints.as_deref().is_some_and(|endpoints| endpoints == expected) && slices == expected {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "expected {expected:?}, Endpoints have {endpoints:?}, EndpointSlices {slices:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn versions(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for list in [
            self.api("Endpoints", "endpoints").list(&ListParams::default()).await.unwrap(),
            self.slice_api().list(&ListParams::default()).await.unwrap(),
        ] {
            all.extend(list.items.into_iter().map(|object| {
                format!("{} {}", object.metadata.name.unwrap(), object.metadata.resource_version.unwrap())
            }));
        }
        all
    }
}

fn mapping(container: u16, host: u16) -> Value {
    json!([{ "containerPort": container, "hostPort": host, "protocol": "TCP" }])
}

fn writer(client: &Client) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    writer_named(client, &uuid::Uuid::new_v4().to_string())
}

fn writer_named(client: &Client, identity: &str) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let (client, identity, stopped) = (client.clone(), identity.to_owned(), stop.clone());
    (stop, tokio::spawn(async move { serve(client, &identity, stopped).await.unwrap() }))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn endpoints_follow_pods_are_repaired_and_survive_restarts() {
    let server = Server::start().await;
    let world = World::new(server.client());
    let (stop, task) = writer(&world.client);

    let manual = json!({ "metadata": { "name": "manual" }, "spec": { "ports": [{ "port": 99 }] } });
    world.create("Service", "services", manual).await;
    let manual = json!({
        "metadata": { "name": "manual" },
        "subsets": [{ "addresses": [{ "ip": "10.1.1.1" }], "ports": [{ "port": 99 }] }],
    });
    world.create("Endpoints", "endpoints", manual).await;
    world
        .create(
            "Service",
            "services",
            json!({
                "metadata": { "name": "web", "labels": { "team": "a" } },
                "spec": { "selector": { "app": "web" }, "ports": [{ "port": 8080, "targetPort": "http" }] },
            }),
        )
        .await;
    world.expect("web", &[]).await;
    world.pod("a", "n1", "10.0.0.1", mapping(80, 31001)).await;
    world.pod("b", "n2", "10.0.0.2", mapping(80, 31002)).await;
    world.expect("web", &["10.0.0.1:31001", "10.0.0.2:31002"]).await;
    world.pod_status("b", "10.0.0.2", false).await;
    world.expect("web", &["!10.0.0.2:31002", "10.0.0.1:31001"]).await;

    // The API server keeps everything that was sent: nothing is written again when nothing changes.
    let service = world.api("Service", "services");
    let note = Patch::Merge(json!({ "metadata": { "annotations": { "note": "x" } } }));
    let before = world.versions().await;
    service.patch("web", &PatchParams::default(), &note).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.versions().await, before);

    // Somebody else edits, relabels and deletes.
    let endpoints = world.api("Endpoints", "endpoints");
    let edit =
        Patch::Merge(json!({ "subsets": [], "metadata": { "labels": { "x": "y" }, "annotations": { "k": "v" } } }));
    endpoints.patch("web", &PatchParams::default(), &edit).await.unwrap();
    world.expect("web", &["!10.0.0.2:31002", "10.0.0.1:31001"]).await;
    let repaired = endpoints.get("web").await.unwrap();
    let labels = repaired.metadata.labels.unwrap();
    assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), [ENDPOINTS_MANAGER_LABEL, "team"]);
    assert_eq!(repaired.metadata.annotations.unwrap()["k"], "v", "annotations are not ours");
    for slice in world.raw_slices().await {
        let name = slice.metadata.name.unwrap();
        let edit = Patch::Merge(json!({ "endpoints": [], "metadata": { "labels": { SLICE_MANAGER_LABEL: null } } }));
        world.slice_api().patch(&name, &PatchParams::default(), &edit).await.unwrap();
    }
    world.expect("web", &["!10.0.0.2:31002", "10.0.0.1:31001"]).await;
    endpoints.delete("web", &DeleteParams::default()).await.unwrap();
    for slice in world.raw_slices().await {
        world.slice_api().delete(&slice.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
    }
    world.expect("web", &["!10.0.0.2:31002", "10.0.0.1:31001"]).await;

    // A restart finds its own objects and writes nothing; what changed meanwhile is caught up.
    let before = world.versions().await;
    stop.cancel();
    task.await.unwrap();
    let (stop, task) = writer(&world.client);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.versions().await, before);
    stop.cancel();
    task.await.unwrap();
    world.pod_status("b", "10.0.0.2", true).await;
    world.api("Pod", "pods").delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    world
        .create(
            "Service",
            "services",
            json!({
                "metadata": { "name": "names" },
                "spec": { "clusterIP": "None", "selector": { "app": "web" }, "ports": [{ "name": "h", "port": 80 }] },
            }),
        )
        .await;
    let (stop, task) = writer(&world.client);
    world.expect("web", &["10.0.0.2:31002"]).await;
    world.expect("names", &["10.0.0.2:31002"]).await;

    // The Service goes, and with it what it had. Nobody else's objects are touched.
    service.delete("web", &DeleteParams::default()).await.unwrap();
    let begin = Instant::now();
    while world.endpoints("web").await.is_some() || !world.slices("web").await.is_empty() {
        assert!(begin.elapsed() < PATIENCE, "the objects of a deleted Service stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.endpoints("manual").await.unwrap(), ["10.1.1.1:99"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn one_of_two_writes_and_the_other_takes_over() {
    let server = Server::start().await;
    let world = World::new(server.client());
    let leases = Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(world.client.clone(), "kube-system");
    let holder = async || {
        let lease = leases.get_opt("km-endpoints").await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty())
    };
    let (first_stop, first) = writer(&world.client);
    let begin = Instant::now();
    let before = loop {
        if let Some(holder) = holder().await {
            break holder;
        }
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (second_stop, second) = writer(&world.client);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(holder().await.as_ref(), Some(&before));
    first_stop.cancel();
    first.await.unwrap();
    world
        .create(
            "Service",
            "services",
            json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } }),
        )
        .await;
    world.pod("a", "n1", "10.0.0.1", mapping(80, 31001)).await;
    world.expect("web", &["10.0.0.1:31001"]).await;
    assert_ne!(holder().await, Some(before));
    second_stop.cancel();
    second.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn a_writer_that_is_killed_mid_change_is_followed_within_ten_seconds() {
    let server = Server::start().await;
    let world = World::new(server.client());
    for index in 0..40 {
        let name = format!("s{index}");
        let spec = json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] });
        world.create("Service", "services", json!({ "metadata": { "name": name }, "spec": spec })).await;
    }
    world.pod("a", "n1", "10.0.0.1", mapping(80, 31001)).await;
    let (_, killed) = writer_named(&world.client, "host");
    world.expect("s0", &["10.0.0.1:31001"]).await;
    world.pod("b", "n2", "10.0.0.2", mapping(80, 31002)).await;
    // As soon as the first object of the change is there, with the rest under way: nothing is given back, the Lease
    // stays in the name of the dead.
    let begin = Instant::now();
    let done = async |name: &str| world.endpoints(name).await.is_some_and(|endpoints| endpoints.len() == 2);
    let all: Vec<String> = (0..40).map(|index| format!("s{index}")).collect();
    'first: loop {
        for name in &all {
            if done(name).await {
                break 'first;
            }
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    let (stop, task) = writer_named(&world.client, "host");
    let begin = Instant::now();
    for name in &all {
        world.expect(name, &["10.0.0.1:31001", "10.0.0.2:31002"]).await;
    }
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    stop.cancel();
    task.await.unwrap();
}
