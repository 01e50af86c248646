//! What `km endpoints` needs for many Services, against the stock endpoint controllers: both from no Endpoints and
//! EndpointSlices at all until all are right, and then while pods become not ready and ready again.
//!
//! Pods are hollow: objects of the API with a status. One API server serves both in turns. A pod of ours is behind the
//! lowest port of its node that no other pod there has, as km scheduler grants them, so that the pods of a Service mostly
//! have different ports, and need a slice each.
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::contender::{Contender, OURS, Running, THEIRS};
use crate::figures;
use crate::server::Server;

const SERVICES: usize = 1000;

/// Endpoints of each.
const ENDPOINTS: usize = 10;

/// On which the pods are.
const NODES: usize = 100;

/// Pods that become not ready and ready again.
const CHANGES: usize = 200;

/// Ours and theirs take turns.
const ROUNDS: usize = 3;

/// Requests of this measurement at one time.
const AT_ONCE: usize = 32;

/// Within this time everything has to be right.
const PATIENCE: Duration = Duration::from_secs(180);

const NAMESPACE: &str = "bench";

/// Cost of one turn: processor seconds until all was there, those for the changes, and the most memory, in MiB.
#[derive(Default)]
struct Costs {
    fill: Vec<f64>,
    changes: Vec<f64>,
    memory: Vec<f64>,
}

pub async fn measure() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(server.client()).await;
    let (mut ours, mut theirs) = (Costs::default(), Costs::default());
    for _ in 0..ROUNDS {
        for (contender, costs) in [(&OURS, &mut ours), (&THEIRS, &mut theirs)] {
            turn(&world, contender, &server, folder.path(), costs).await;
        }
    }
    let of = format!("{SERVICES} Services of {ENDPOINTS} endpoints");
    figures::print(&format!("network: km endpoints, CPU for {of} from nothing"), ours.fill, theirs.fill, "s");
    let name = format!("network: km endpoints, CPU for {CHANGES} pods of these not ready and ready again");
    figures::print(&name, ours.changes, theirs.changes, "s");
    figures::print(&format!("network: km endpoints, memory for {of}"), ours.memory, theirs.memory, "MiB");
}

async fn turn(world: &World, contender: &Contender, server: &Server, folder: &Path, costs: &mut Costs) {
    world.clear().await;
    let mut running = contender.start(server, folder);
    world.until_right(&mut running, &[]).await;
    let fill = running.processor();
    // One pod of each of these Services.
    let changed: Vec<usize> = (0..CHANGES).map(|index| index * (SERVICES / CHANGES)).collect();
    world.set_ready(&changed, false).await;
    world.until_right(&mut running, &changed).await;
    world.set_ready(&changed, true).await;
    world.until_right(&mut running, &[]).await;
    costs.fill.push(fill);
    costs.changes.push(running.processor() - fill);
    costs.memory.push(running.most_memory());
}

/// Ready endpoints by object, and of slices also their Service.
#[derive(Default)]
struct Seen {
    endpoints: BTreeMap<String, usize>,
    slices: BTreeMap<String, (String, usize)>,
}

struct World {
    client: Client,
    seen: Arc<Mutex<Seen>>,
    _watching: [AbortOnDropHandle<()>; 2],
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource { group: group.into(), version: version.into(), api_version, kind: kind.into(), plural: plural.into() }
}

fn api(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = match kind {
        "EndpointSlice" => resource("discovery.k8s.io", "v1", kind, plural),
        _ => resource("", "v1", kind, plural),
    };
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

fn count<'a>(lists: impl Iterator<Item = &'a Value>) -> usize {
    lists.filter_map(Value::as_array).map(Vec::len).sum()
}

impl Seen {
    fn note(&mut self, slice: bool, event: watcher::Event<DynamicObject>) {
        let (object, gone) = match event {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => (object, false),
            watcher::Event::Delete(object) => (object, true),
            _ => return,
        };
        let name = object.metadata.name.unwrap();
        match (slice, gone) {
            (false, true) => drop(self.endpoints.remove(&name)),
            (true, true) => drop(self.slices.remove(&name)),
            (false, false) => {
                let subsets = object.data["subsets"].as_array().into_iter().flatten();
                self.endpoints.insert(name, count(subsets.map(|subset| &subset["addresses"])));
            }
            (true, false) => {
                let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] == json!(true);
                let endpoints = object.data["endpoints"].as_array().into_iter().flatten();
                let service = object.metadata.labels.unwrap_or_default()["kubernetes.io/service-name"].clone();
                self.slices.insert(name, (service, endpoints.filter(ready).count()));
            }
        }
    }

    /// Whether every Service has all its endpoints, these without one.
    fn right(&self, missing: &[usize]) -> bool {
        let mut by_slices: BTreeMap<&str, usize> = BTreeMap::new();
        for (service, count) in self.slices.values() {
            *by_slices.entry(service).or_default() += count;
        }
        (0..SERVICES).all(|service| {
            let expected = ENDPOINTS - usize::from(missing.binary_search(&service).is_ok());
            let name = service_name(service);
            self.endpoints.get(&name) == Some(&expected) && by_slices.get(name.as_str()) == Some(&expected)
        })
    }
}

fn service_name(service: usize) -> String {
    format!("s{service}")
}

fn pod_name(service: usize, index: usize) -> String {
    format!("p{service}-{index}")
}

fn status(address: &str, pod_address: &str, ready: bool) -> Value {
    json!({
        "phase": "Running", "hostIP": address, "podIP": pod_address, "podIPs": [{ "ip": pod_address }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
    })
}

/// All pods with their Service: where each is, and behind which port.
fn placed() -> Vec<(usize, usize, usize, usize)> {
    let mut taken = [0; NODES];
    let mut all = Vec::new();
    for service in 0..SERVICES {
        for index in 0..ENDPOINTS {
            // Anywhere, and the same in every run.
            let mut hasher = DefaultHasher::new();
            (service, index).hash(&mut hasher);
            let node = (hasher.finish() % NODES as u64) as usize;
            all.push((service, index, node, taken[node]));
            taken[node] += 1;
        }
    }
    all
}

impl World {
    async fn new(client: Client) -> World {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        let namespaces: Api<DynamicObject> =
            Api::all_with(client.clone(), &resource("", "v1", "Namespace", "namespaces"));
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watching = [("Endpoints", "endpoints"), ("EndpointSlice", "endpointslices")].map(|(kind, plural)| {
            let (seen, api) = (seen.clone(), api(&client, kind, plural));
            AbortOnDropHandle::new(tokio::spawn(async move {
                let mut events = watcher(api, watcher::Config::default()).boxed();
                while let Some(event) = events.next().await {
                    seen.lock().unwrap().note(kind == "EndpointSlice", event.unwrap());
                }
            }))
        });
        let world = World { client, seen, _watching: watching };
        stream::iter(0..NODES).for_each_concurrent(AT_ONCE, |node| world.create_node(node)).await;
        stream::iter(0..SERVICES).for_each_concurrent(AT_ONCE, |service| world.create_service(service)).await;
        stream::iter(placed()).for_each_concurrent(AT_ONCE, |placed| world.create_pod(placed)).await;
        world
    }

    async fn create(&self, kind: &str, plural: &str, object: Value) {
        let object = serde_json::from_value(object).unwrap();
        api(&self.client, kind, plural).create(&PostParams::default(), &object).await.unwrap();
    }

    /// The stock controllers write no slice with a pod whose node they do not know.
    async fn create_node(&self, node: usize) {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": format!("n{node}") } });
        let nodes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("", "v1", "Node", "nodes"));
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    }

    async fn create_service(&self, service: usize) {
        let name = service_name(service);
        let spec = json!({ "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": "http" }] });
        let object = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": spec });
        self.create("Service", "services", object).await;
    }

    async fn create_pod(&self, (service, index, node, number): (usize, usize, usize, usize)) {
        let name = pod_name(service, index);
        let ports = json!([{ "containerPort": 80, "hostPort": 31000 + number, "protocol": "TCP" }]);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "labels": { "app": service_name(service) },
                "annotations": { "kmctl.io/ports": ports.to_string() },
            },
            "spec": {
                "nodeName": format!("n{node}"),
                "containers": [{ "name": "c", "image": "none", "ports": [{ "name": "http", "containerPort": 80 }] }],
            },
        });
        self.create("Pod", "pods", pod).await;
        let (address, pod_address) = (format!("10.0.0.{node}"), format!("10.1.{node}.{number}"));
        self.set_status(&name, status(&address, &pod_address, true)).await;
    }

    async fn set_status(&self, pod: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        api(&self.client, "Pod", "pods").patch_status(pod, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Changes the first pod of each of these Services.
    async fn set_ready(&self, services: &[usize], ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let conditions = json!({ "conditions": [{ "type": "Ready", "status": ready }] });
        stream::iter(services)
            .for_each_concurrent(AT_ONCE, |service| {
                let conditions = conditions.clone();
                async move { self.set_status(&pod_name(*service, 0), conditions).await }
            })
            .await;
    }

    /// Removes what was written, and waits until it is gone.
    async fn clear(&self) {
        let (delete, all) = (DeleteParams::default(), ListParams::default());
        for (kind, plural) in [("Endpoints", "endpoints"), ("EndpointSlice", "endpointslices")] {
            api(&self.client, kind, plural).delete_collection(&delete, &all).await.unwrap();
        }
        self.until("everything to be removed", |seen| seen.endpoints.is_empty() && seen.slices.is_empty()).await;
    }

    /// Waits until all is right with one endpoint less for each of these.
    async fn until_right(&self, writer: &mut Running, missing: &[usize]) {
        self.until("all endpoints to be right", |seen| {
            writer.must_run();
            seen.right(missing)
        })
        .await;
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Seen) -> bool) {
        let began = Instant::now();
        while !holds(&self.seen.lock().unwrap()) {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
