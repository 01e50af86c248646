//! The API server, with the kubelet's client certificate: km node has no credentials of its own.
use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config, ResourceExt};
use tokio::sync::{OnceCell, mpsc};
use tracing::{debug, warn};

use super::super::decide::{Event, PodPhase, PodView};
use super::super::deps::{ApiClient, DepError};
use super::super::launch::PodLaunch;
use super::super::spec::DepsSpec;
use super::super::view::api::Clients;
use super::kubeconfig::{User, client_certificate, document};
use super::way::Way;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// The API of one cluster, as one of its nodes.
pub struct RealApi {
    spec: DepsSpec,
    /// Leads to several API servers, from its first use on.
    way: OnceCell<Way>,
}

impl RealApi {
    /// For one node.
    pub fn new(spec: DepsSpec) -> Self {
        RealApi { spec, way: OnceCell::new() }
    }

    /// Where the API is: its one server, or the way to several of them.
    pub async fn server(&self) -> Result<String, DepError> {
        match self.spec.api.servers.as_slice() {
            [one] => Ok(one.clone()),
            servers => Ok(self.way.get_or_try_init(|| Way::open(servers)).await?.url.clone()),
        }
    }

    /// The node's Ready condition is true.
    pub async fn node_ready(&self) -> Result<bool, DepError> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let name = &self.spec.node.name;
        let node = limited(nodes.get(name), format!("read node {name}")).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
    }

    /// Watches until the stream has to be made anew.
    async fn watch_once(
        &self,
        events: &mpsc::UnboundedSender<Event>,
        known: &mut BTreeSet<String>,
    ) -> Result<(), DepError> {
        let pods: Api<Pod> = Api::all(self.client().await?);
        // Nodes may list pods by this selector only.
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.spec.node.name));
        let mut stream = watcher(pods, config).boxed();
        let mut listed = BTreeSet::new();
        loop {
            let event = match stream.next().await {
                None => return Ok(()),
                Some(Err(error)) => return Err(DepError::other("watch this node's pods")(error)),
                Some(Ok(event)) => event,
            };
            match event {
                watcher::Event::Init => listed.clear(),
                watcher::Event::InitApply(pod) => {
                    listed.insert(pod.uid().unwrap_or_default());
                    let _ = events.send(Event::PodSeen(view(&pod)));
                }
                watcher::Event::InitDone => {
                    for uid in known.difference(&listed) {
                        let _ = events.send(Event::PodGone { uid: uid.clone() });
                    }
                    known.clone_from(&listed);
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
        let what = "make a client of the API";
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
        let mut known = BTreeSet::new();
        while !events.is_closed() {
            // The stream's own errors end it here too: the client may need another server or a new certificate.
            if let Err(error) = self.watch_once(&events, &mut known).await {
                debug!("watch made anew: {}", error.chain());
            }
            tokio::time::sleep(WATCH_RETRY).await;
        }
    }

    async fn delete_pod(&self, pod: &PodLaunch, grace: Duration) -> Result<bool, DepError> {
        let pods: Api<Pod> = Api::namespaced(self.client().await?, &pod.namespace);
        let found = limited(pods.get_opt(&pod.name), format!("read pod {}/{}", pod.namespace, pod.name)).await?;
        let Some(found) = found.filter(|found| found.uid().as_deref() == Some(pod.uid.as_str())) else {
            return Ok(false);
        };
        let own = found.spec.and_then(|spec| spec.termination_grace_period_seconds);
        delete(&pods, pod, shorter_grace(grace, own)).await
    }

    async fn forget_pod(&self, pod: &PodLaunch) -> Result<(), DepError> {
        let pods: Api<Pod> = Api::namespaced(self.client().await?, &pod.namespace);
        delete(&pods, pod, 0).await.map(drop)
    }
}

/// Deletes the pod with this very UID; `false`: there is none, or it is not bound to this node.
async fn delete(pods: &Api<Pod>, pod: &PodLaunch, grace: u32) -> Result<bool, DepError> {
    let parameters = DeleteParams {
        grace_period_seconds: Some(grace),
        preconditions: Some(Preconditions { uid: Some(pod.uid.clone()), resource_version: None }),
        ..DeleteParams::default()
    };
    let what = format!("delete pod {}/{}", pod.namespace, pod.name);
    match tokio::time::timeout(CALL_LIMIT, pods.delete(&pod.name, &parameters)).await {
        Err(_) => Err(DepError::NotNow(format!("{what}: no answer within {} s", CALL_LIMIT.as_secs()))),
        Ok(Ok(_)) => Ok(true),
        // Gone, another pod by now, or (forbidden) not bound to this node: no container of it is here.
        Ok(Err(kube::Error::Api(status))) if [404, 409, 403].contains(&status.code) => {
            if status.code == 403 {
                warn!("{what}: {}", status.message);
            }
            Ok(false)
        }
        Ok(Err(error)) => Err(DepError::other(what)(error)),
    }
}

/// The pod's own grace, or what Mesos leaves of it. At least a second: zero would remove the object while its
/// containers run.
fn shorter_grace(allowed: Duration, own: Option<i64>) -> u32 {
    let allowed = u32::try_from(allowed.as_secs()).unwrap_or(u32::MAX);
    let own = own.and_then(|own| u32::try_from(own).ok()).unwrap_or(u32::MAX);
    allowed.min(own).max(1)
}

async fn limited<T>(call: impl Future<Output = Result<T, kube::Error>>, what: String) -> Result<T, DepError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Err(_) => Err(DepError::NotNow(format!("{what}: no answer within {} s", CALL_LIMIT.as_secs()))),
        Ok(result) => result.map_err(DepError::other(what)),
    }
}

/// What the agent needs of a pod.
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
    }
}

/// Every container has a status, one at least has ended, and none runs.
fn stopped(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let mut states = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let told = status.container_statuses.as_ref().map_or(0, Vec::len);
    let ended = |one: &ContainerStatus| one.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let runs = |one: &ContainerStatus| one.state.as_ref().is_none_or(|state| state.running.is_some());
    told > 0 && told >= wanted && states.clone().any(ended) && !states.any(runs)
}

/// Why the pod is in its phase: its own reason, or its first container that ended badly.
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
    use super::*;

    #[test]
    fn a_pods_own_grace_is_shortened_but_never_prolonged() {
        let of = |allowed, own| shorter_grace(Duration::from_secs(allowed), own);
        assert_eq!([of(45, Some(2)), of(5, Some(30)), of(45, None), of(0, Some(30)), of(9, Some(0))], [2, 5, 45, 1, 1]);
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
