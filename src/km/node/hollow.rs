//! Hollow nodes: real node agents on objects that run nothing, against a real API server. They test how a control plane
//! handles many nodes. No km scheduler manages them, so they register themselves.
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::{Deletion, Event, Order, PodPhase, Report};
use super::deps::{
    ApiClient, ArtifactFetcher, Cgroups, Child, DepError, Executor, KubeletDeps, Mounter, Names, PortAllocator,
    ProcessLauncher, Program, Service,
};
use super::real::{RealClock, view};
use super::run::NodeAgent;
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::spec::Place;
use kmctl_core::protocol::launch::{self, Grant, NodeLaunch, PodLaunch};
use kmctl_core::text::duration;

const MANAGER: &str = "km-hollow-node";
/// As often as a kubelet renews its Lease.
const RENEWAL: Duration = Duration::from_secs(10);
/// The whole status is written every sixth time: a kubelet with a Lease also writes an unchanged status rarely.
const STATUS_EVERY: u32 = 6;
/// Backoff before the API is called again; retried until the node ends.
const AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(30));
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Options of `km hollow-node`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of nodes.
    pub count: u32,
    /// Prefix of their names.
    pub prefix: String,
    /// Credentials that may write Nodes, their Leases and pods' status.
    pub kubeconfig: PathBuf,
}

/// Runs hollow nodes until `stop` is cancelled, then removes their objects.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), DepError> {
    let Options { count, prefix, kubeconfig } = options;
    let what = || format!("read {}", kubeconfig.display());
    let kubeconfig = kube::config::Kubeconfig::read_from(&kubeconfig).map_err(DepError::other(what()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .map_err(DepError::other("use the credentials"))?;
    let client = Client::try_from(config).map_err(DepError::other("create an API client"))?;
    let mut agents = JoinSet::new();
    for number in 0..count {
        let launch = NodeLaunch {
            node_name: format!("{prefix}{number}"),
            // A range for benchmarks: a hollow node must not be reachable.
            node_ip: IpAddr::from([198, 18, (number >> 8) as u8, number as u8]),
            ..launch::example()
        };
        let config = KubeletConfiguration::for_launch(&launch, &Place::example());
        agents.spawn(NodeAgent::new(config, build(&launch, client.clone(), stop.clone())).run());
    }
    info!(count, "hollow nodes started");
    while agents.join_next().await.is_some() {}
    Ok(())
}

/// The only place where a hollow node's objects are created.
fn build(launch: &NodeLaunch, client: Client, stop: CancellationToken) -> KubeletDeps {
    let node = Arc::new(Hollow { name: launch.node_name.clone(), ip: launch.node_ip, client, stop });
    KubeletDeps {
        node_task: format!("node.{}", launch.node_name),
        executor: node.clone(),
        api: node.clone(),
        artifacts: node.clone(),
        mounter: node.clone(),
        cgroups: node.clone(),
        ports: node.clone(),
        names: node.clone(),
        launcher: node.clone(),
        services: vec![node],
        clock: Arc::new(RealClock::new()),
    }
}

struct Hollow {
    name: String,
    ip: IpAddr,
    client: Client,
    stop: CancellationToken,
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>, what: &str) -> Result<T, DepError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Err(_) => Err(DepError::NotNow(format!("failed to {what}: no response within {}", duration(CALL_LIMIT)))),
        Ok(result) => result.map_err(DepError::other(what)),
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn seconds() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn node_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kmctl.io/hollow": "true",
        } },
    })
}

fn status_object(ip: IpAddr, name: &str, since: &str) -> Value {
    let capacity = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
    json!({ "status": {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [{ "type": "InternalIP", "address": ip }, { "type": "Hostname", "address": name }],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "HollowReady", "message": "hollow node",
            "lastHeartbeatTime": seconds(), "lastTransitionTime": since,
        }],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "hollow://1", "kernelVersion": "",
            "kubeProxyVersion": "v1.37.2", "kubeletVersion": "v1.37.2", "machineID": "", "operatingSystem": "linux",
            "osImage": "hollow", "systemUUID": "",
        },
    } })
}

impl Hollow {
    async fn register(&self) -> Result<(), DepError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let apply = PatchParams::apply(MANAGER).force();
        limited(nodes.patch(&self.name, &apply, &Patch::Apply(node_object(&self.name))), "register a node").await?;
        self.write_status(&seconds()).await?;
        self.renew().await
    }

    async fn write_status(&self, since: &str) -> Result<(), DepError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let status = Patch::Strategic(status_object(self.ip, &self.name, since));
        limited(nodes.patch_status(&self.name, &PatchParams::default(), &status), "write a node's status").await?;
        Ok(())
    }

    async fn renew(&self) -> Result<(), DepError> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": self.name },
            "spec": { "holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now() },
        });
        let apply = PatchParams::apply(MANAGER).force();
        limited(leases.patch(&self.name, &apply, &Patch::Apply(lease)), "renew a node's lease").await?;
        Ok(())
    }

    /// Does what a kubelet would do, without containers.
    async fn live(self: Arc<Self>) {
        let since = seconds();
        let mut retries = Retries::new(AGAIN);
        while let Err(error) = self.register().await {
            warn!(node = self.name, "retrying: {}", error.chain());
            tokio::time::sleep(retries.wait()).await;
        }
        let pods = async {
            let pods: Api<Pod> = Api::all(self.client.clone());
            let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.name));
            let mut stream = watcher(pods, config).boxed();
            let mut retries = Retries::new(AGAIN);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => self.pretend(&pod).await,
                    Ok(watcher::Event::InitDone) => retries.reset(),
                    Ok(_) => {}
                    Err(error) => {
                        warn!(node = self.name, "failed to watch pods: {error}");
                        tokio::time::sleep(retries.wait()).await;
                    }
                }
            }
        };
        let beats = async {
            for beat in 1.. {
                tokio::time::sleep(RENEWAL).await;
                let mut result = self.renew().await;
                if beat % STATUS_EVERY == 0 {
                    result = result.and(self.write_status(&since).await);
                }
                if let Err(error) = result {
                    warn!(node = self.name, "{}", error.chain());
                }
            }
        };
        tokio::join!(pods, beats);
    }

    /// A pod runs as soon as it is bound, and is removed as soon as it is deleted.
    async fn pretend(&self, pod: &Pod) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let seen = view(pod);
        let result = if seen.terminating {
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            limited(pods.delete(&pod.name_any(), &at_once), "remove a pod").await.map(|_| ())
        } else if seen.phase == PodPhase::Pending {
            let status = json!({ "status": { "phase": "Running", "hostIP": self.ip, "conditions": [
                { "type": "Ready", "status": "True" },
            ] } });
            let patch = Patch::Strategic(status);
            limited(pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch), "write a pod's status")
                .await
                .map(|_| ())
        } else {
            Ok(())
        };
        if let Err(error) = result {
            warn!(node = self.name, "{}", error.chain());
        }
    }

    async fn unregister(&self) -> Result<(), DepError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        // If they were already removed, nothing is left to do.
        let gone = |result: Result<(), DepError>| match result {
            Err(DepError::Other { source, .. }) if source.to_string().contains("NotFound") => Ok(()),
            other => other,
        };
        let at_once = DeleteParams::default();
        gone(limited(nodes.delete(&self.name, &at_once), "remove a node").await.map(|_| ()))?;
        gone(limited(leases.delete(&self.name, &at_once), "remove a node's lease").await.map(|_| ()))
    }
}

#[async_trait]
impl Executor for Hollow {
    async fn next(&self) -> Option<Order> {
        self.stop.cancelled().await;
        None
    }

    fn report(&self, report: Report) {
        let Report { task_id, state, message } = report;
        info!(task_id, ?state, "{message}");
    }

    async fn flush(&self) {}
}

#[async_trait]
impl ApiClient for Hollow {
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>) {
        // Its pods have no tasks; the hollow kubelet watches them.
        events.closed().await;
    }

    async fn delete_pod(&self, _: &PodLaunch, _: Option<Duration>) -> Result<Deletion, DepError> {
        Ok(Deletion::Absent)
    }
}

#[async_trait]
impl ArtifactFetcher for Hollow {
    async fn fetch(&self) -> Result<(), DepError> {
        Ok(())
    }
}

#[async_trait]
impl Names for Hollow {
    async fn open(&self) -> Result<(), DepError> {
        Ok(())
    }
}

#[async_trait]
impl Mounter for Hollow {
    async fn open(&self) -> Result<(), DepError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), DepError> {
        self.unregister().await
    }
}

#[async_trait]
impl Cgroups for Hollow {
    async fn create(&self) -> Result<String, DepError> {
        Ok("/hollow/pods".to_owned())
    }

    async fn resize(&self, _: Grant) -> Result<(), DepError> {
        Ok(())
    }

    async fn is_empty(&self, _: &str) -> bool {
        true
    }

    async fn stop(&self, _: Duration) -> Result<(), DepError> {
        Ok(())
    }
}

impl PortAllocator for Hollow {
    fn own(&self, preferred: u16) -> Result<u16, DepError> {
        Ok(preferred)
    }

    fn assign(&self, _: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }

    fn release(&self, _: &str) {}
}

#[async_trait]
impl ProcessLauncher for Hollow {
    async fn start(&self, _: Program) -> Result<Box<dyn Child>, DepError> {
        let node = Arc::new(Hollow {
            name: self.name.clone(),
            ip: self.ip,
            client: self.client.clone(),
            stop: self.stop.clone(),
        });
        Ok(Box::new(HollowChild(tokio::spawn(node.live()))))
    }
}

struct HollowChild(JoinHandle<()>);

#[async_trait]
impl Child for HollowChild {
    async fn wait(&mut self) -> String {
        match (&mut self.0).await {
            Ok(()) => "ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    async fn stop(&mut self, _: Duration) {
        self.0.abort();
    }
}

#[async_trait]
impl Service for Hollow {
    fn name(&self) -> &'static str {
        "hollow kubelet"
    }

    async fn program(&self, _: &KubeletConfiguration) -> Result<Program, DepError> {
        Ok(Program { name: self.name().to_owned(), argv: Vec::new(), environment: Vec::new() })
    }

    async fn ready(&self) -> Result<(), DepError> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        loop {
            let node = limited(nodes.get_opt(&self.name), "read a node").await;
            let status = node.ok().flatten().and_then(|node| node.status).unwrap_or_default();
            let ready = |condition: &k8s_openapi::api::core::v1::NodeCondition| {
                condition.type_ == "Ready" && condition.status == "True"
            };
            if status.conditions.iter().flatten().any(ready) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
