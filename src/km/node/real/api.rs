//! Access to the API server with the kubelet's client certificate: km node has no credentials of its own.
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::{OnceCell, mpsc};
use tracing::debug;

use super::super::decide::{Deletion, Event, PodPhase, PodView};
use super::super::deps::{ApiClient, DepError};
use super::super::view::api::Clients;
use super::api_load_balancer::Way;
use super::kubeconfig::{User, client_certificate, document};
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::k8s::relist::KnownKeys;
use kmctl_core::node::spec::DepsSpec;
use kmctl_core::protocol::launch::PodLaunch;
use kmctl_core::text::duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Backoff between watches. Retried until the node ends: its pods are reported in no other way.
const WATCH_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10));

/// The API of one cluster, accessed as one of its nodes.
pub struct RealApi {
    spec: DepsSpec,
    /// A local proxy to several API servers, opened on first use.
    way: OnceCell<Way>,
}

impl RealApi {
    /// For one node.
    pub fn new(spec: DepsSpec) -> Self {
        RealApi { spec, way: OnceCell::new() }
    }

    /// The URL of the API: of its only server, or of the local proxy to several of them.
    pub async fn server(&self) -> Result<String, DepError> {
        match self.spec.api.servers.as_slice() {
            [one] => Ok(one.clone()),
            servers => Ok(self.way.get_or_try_init(|| Way::open(servers)).await?.url.clone()),
        }
    }

    /// Whether the node's Ready condition is true.
    pub async fn node_ready(&self) -> Result<bool, DepError> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let name = &self.spec.node.name;
        let node = limited(nodes.get(name), format!("read node {name}")).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    async fn pods_of(&self, pod: &PodLaunch) -> Result<Api<Pod>, DepError> {
        Ok(Api::namespaced(self.client().await?, &pod.namespace))
    }

    /// Watches until the stream must be restarted.
    async fn watch_once(
        &self,
        events: &mpsc::UnboundedSender<Event>,
        known: &mut KnownKeys<String>,
        retries: &mut Retries,
    ) -> Result<(), DepError> {
        let pods: Api<Pod> = Api::all(self.client().await?);
        // Nodes may list pods by this selector only.
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.spec.node.name));
        let mut stream = watcher(pods, config).boxed();
        loop {
            let event = match stream.next().await {
                None => return Ok(()),
                Some(Err(error)) => return Err(DepError::other("watch this node's pods")(error)),
                Some(Ok(event)) => event,
            };
            match event {
                watcher::Event::Init => known.begin(),
                watcher::Event::InitApply(pod) => {
                    known.insert(pod.uid().unwrap_or_default());
                    let _ = events.send(Event::PodSeen(view(&pod)));
                }
                watcher::Event::InitDone => {
                    for uid in known.end() {
                        let _ = events.send(Event::PodGone { uid });
                    }
                    retries.reset();
                    let _ = events.send(Event::PodsListed);
                }
                watcher::Event::Apply(pod) => {
                    known.insert(pod.uid().unwrap_or_default());
                    let _ = events.send(Event::PodSeen(view(&pod)));
                }
                watcher::Event::Delete(pod) => {
                    let uid = pod.uid().unwrap_or_default();
                    known.remove(&uid);
                    let _ = events.send(Event::PodGone { uid });
                }
            }
        }
    }
}

#[async_trait]
impl Clients for RealApi {
    async fn client(&self) -> Result<Client, DepError> {
        let what = "create an API client";
        let certificate = client_certificate();
        if !certificate.exists() {
            return Err(DepError::NotNow("the kubelet has no client certificate yet".to_owned()));
        }
        let text = document(&self.server().await?, &self.spec.folders, &User::Certificate(&certificate));
        let kubeconfig = Kubeconfig::from_yaml(&text).map_err(DepError::other(what))?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(DepError::other(what))?;
        config.connect_timeout = Some(CONNECT_LIMIT);
        Client::try_from(config).map_err(DepError::other(what))
    }
}

#[async_trait]
impl ApiClient for RealApi {
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>) {
        let (mut known, mut retries) = (KnownKeys::default(), Retries::new(WATCH_AGAIN));
        while !events.is_closed() {
            // The stream's own errors end it here too: the client may need another server or a new certificate.
            if let Err(error) = self.watch_once(&events, &mut known, &mut retries).await {
                debug!("watch failed, restarting: {}", error.chain());
                if matches!(error, DepError::NotNow(_)) {
                    // No request was sent: the node's certificate may be issued at any moment.
                    retries.reset();
                }
            }
            tokio::time::sleep(retries.wait()).await;
        }
    }

    async fn delete_pod(&self, pod: &PodLaunch, grace: Option<Duration>) -> Result<Deletion, DepError> {
        delete(&self.pods_of(pod).await?, pod, grace).await
    }

    async fn forget_pod(&self, pod: &PodLaunch) -> Result<(), DepError> {
        delete(&self.pods_of(pod).await?, pod, Some(Duration::ZERO)).await.map(drop)
    }
}

/// Deletes the pod with exactly this UID without reading it first. The Node authorizer lets a node read only objects
/// that are bound to it; for any other, existing or not, it answers "no relationship found".
async fn delete(pods: &Api<Pod>, pod: &PodLaunch, grace: Option<Duration>) -> Result<Deletion, DepError> {
    let parameters = DeleteParams {
        grace_period_seconds: grace.map(|grace| u32::try_from(grace.as_secs()).unwrap_or(u32::MAX)),
        preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let what = format!("delete pod {}/{}", pod.namespace, pod.name);
    match tokio::time::timeout(CALL_LIMIT, pods.delete(&pod.name, &parameters)).await {
        Err(_) => Err(DepError::NotNow(format!("failed to {what}: no response within {}", duration(CALL_LIMIT)))),
        Ok(Ok(_)) => Ok(Deletion::Accepted),
        // Gone, or replaced by another pod.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(Deletion::Absent),
        // Not bound to this node, or not any more.
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            debug!("{what}: {}", status.message);
            Ok(Deletion::Foreign)
        }
        Ok(Err(error)) => Err(DepError::other(what)(error)),
    }
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>, what: String) -> Result<T, DepError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Err(_) => Err(DepError::NotNow(format!("failed to {what}: no response within {}", duration(CALL_LIMIT)))),
        Ok(result) => result.map_err(DepError::other(what)),
    }
}

/// The parts of a pod that the agent needs.
pub fn view(pod: &Pod) -> PodView {
    let status = pod.status.clone().unwrap_or_default();
    let phase = match status.phase.as_deref() {
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        _ => PodPhase::Pending,
    };
    PodView {
        uid: pod.uid().unwrap_or_default(),
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        phase,
        message: message(&status),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        stopped: stopped(pod),
        grace: pod
            .spec
            .as_ref()
            .and_then(|spec| u64::try_from(spec.termination_grace_period_seconds?).ok())
            .map(Duration::from_secs),
    }
}

/// Whether every container has a status, at least one has ended, and none runs. For a container that ran and no longer
/// exists, the kubelet reports the state waiting, with a made-up termination as the last state. Terminated init
/// containers do not count: the containers may be about to start.
fn stopped(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let mut states = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let told = status.container_statuses.as_ref().map_or(0, Vec::len);
    let ended = |one: &ContainerStatus| {
        [&one.state, &one.last_state].into_iter().flatten().any(|state| state.terminated.is_some())
    };
    let runs = |one: &ContainerStatus| one.state.as_ref().is_none_or(|state| state.running.is_some());
    let mut own = status.container_statuses.iter().flatten();
    told > 0 && told >= wanted && own.any(ended) && !states.any(runs)
}

/// Why the pod is in its phase: its own reason, or its first container that failed.
fn message(status: &k8s_openapi::api::core::v1::PodStatus) -> String {
    let own: Vec<&str> = [status.reason.as_deref(), status.message.as_deref()].into_iter().flatten().collect();
    if !own.is_empty() {
        return own.join(": ");
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers
        .filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            let reason = ended.reason.as_deref().unwrap_or("Error");
            (ended.exit_code != 0)
                .then(|| format!("container {}: {reason}, exit code {}", container.name, ended.exit_code))
        })
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The outcome of a deletion that the API server answers with this status, and the requests that were sent.
    async fn deletion(status: u16, grace: Option<Duration>) -> (Result<Deletion, String>, Vec<String>) {
        let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = requests.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                seen.lock().unwrap().push(format!("{} {} {body}", head.method, head.uri.path()));
                let answer = serde_json::json!({"kind": "Status", "apiVersion": "v1", "code": status,
                    "status": if status == 200 { "Success" } else { "Failure" }, "reason": "r",
                    "message": "no relationship found between node and this object"});
                let answer = http::Response::builder()
                    .status(status)
                    .body(kube::client::Body::from(serde_json::to_vec(&answer).unwrap_or_default()));
                answer.map_err(std::io::Error::other)
            }
        });
        let pods: Api<Pod> = Api::namespaced(Client::new(service, "default"), "default");
        let pod =
            PodLaunch { format: 1, namespace: "default".into(), name: "p".into(), uid: "u".into(), ports: vec![] };
        let outcome = delete(&pods, &pod, grace).await.map_err(|error| error.chain());
        let requests = requests.lock().unwrap().clone();
        (outcome, requests)
    }

    #[tokio::test]
    async fn a_pod_that_the_node_may_not_read_is_deleted_without_being_read() {
        let answers = [
            (200, Some(Deletion::Accepted)),
            (404, Some(Deletion::Absent)),
            (409, Some(Deletion::Absent)),
            (403, Some(Deletion::Foreign)),
            (500, None),
            (429, None),
        ];
        for (status, expected) in answers {
            let (outcome, requests) = deletion(status, Some(Duration::from_secs(7))).await;
            assert_eq!(outcome.ok(), expected, "{status}");
            let [request] = requests.as_slice() else { panic!("one request, and no reading: {requests:?}") };
            assert!(request.starts_with("DELETE /api/v1/namespaces/default/pods/p "), "{request}");
            assert!(request.contains(r#""uid":"u""#) && request.contains(r#""gracePeriodSeconds":7"#), "{request}");
        }
        let (_, requests) = deletion(200, None).await;
        assert!(!requests[0].contains("gracePeriodSeconds"), "the pod's own counts: {requests:?}");
    }

    #[test]
    fn a_pod_whose_init_container_has_ended_is_not_stopped() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"containers": [{"name": "a"}]}, "status": {
            "initContainerStatuses": [{"name": "i", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "PodInitializing"}}}]}}))
        .unwrap();
        assert!(!view(&pod).stopped, "its image may be on the way");
    }

    fn waiting_pod(reason: &str) -> Pod {
        serde_json::from_value(
            serde_json::json!({"spec": {"containers": [{"name": "a"}]}, "status": {"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": reason}}}]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_pod_is_stopped_when_none_of_its_containers_runs() {
        let of = |states: &[serde_json::Value]| {
            let status = |state: &serde_json::Value| serde_json::json!({"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            let pod = serde_json::json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]},
                "status": {"containerStatuses": states.iter().map(status).collect::<Vec<_>>()}});
            view(&serde_json::from_value(pod).unwrap()).stopped
        };
        let (ended, waits, runs) = (
            serde_json::json!({"terminated": {"exitCode": 0}}),
            serde_json::json!({"waiting": {}}),
            serde_json::json!({"running": {}}),
        );
        assert!(of(&[ended.clone(), ended.clone()]) && of(&[ended.clone(), waits.clone()]));
        assert!(!of(&[ended.clone(), runs]), "one runs");
        assert!(!of(std::slice::from_ref(&ended)), "nothing is known of the other");
        let mut gone = waiting_pod("ContainerCreating");
        assert!(!view(&gone).stopped);
        if let Some(all) = gone.status.as_mut().and_then(|status| status.container_statuses.as_mut()) {
            all[0].last_state = serde_json::from_value(ended.clone()).ok();
        }
        assert!(view(&gone).stopped, "it was there, and is removed already");
        assert!(!of(&[waits.clone(), waits]) && !of(&[]), "it was never started, or may be about to");
    }

    #[test]
    fn a_failed_pods_message_names_the_container_and_its_exit_code() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "default", "uid": "u" },
            "status": { "phase": "Failed", "containerStatuses": [
                { "name": "good", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                  "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } },
                { "name": "bad", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                  "state": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } },
            ]},
        }))
        .unwrap();
        let view = view(&pod);
        assert_eq!(view.phase, PodPhase::Failed);
        assert_eq!(view.message, "container bad: OOMKilled, exit code 137");
    }
}
