//! What the API server knows of nodes and pods, as far as `status` reports it.
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use serde::Serialize;

use kmctl_core::k8s::names::{
    AGENT_ID_ANNOTATION, EXECUTOR_ANNOTATION, GRANT_ANNOTATION, PROXY_MODE_ANNOTATION, PROXY_REASON_ANNOTATION,
    REASON_ANNOTATION, STATE_ANNOTATION, TASK_ANNOTATION,
};

/// Time limit for one request.
const ANSWER: Duration = Duration::from_secs(15);

/// Why the API server could not be queried.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// It refused, or the connection failed.
    #[error("failed to {what}")]
    Ask {
        /// The request that failed.
        what: &'static str,
        #[source]
        source: kube::Error,
    },
    /// It did not answer.
    #[error("failed to {what}: no response within {ANSWER:?}")]
    Silent {
        /// The request that failed.
        what: &'static str,
    },
}

/// What the API server knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    /// Version of the API server.
    pub version: String,
    /// The failed checks of `/readyz`. Empty if it is ready.
    pub unready: Vec<String>,
    /// Nodes, by name.
    pub nodes: Vec<NodeFacts>,
    /// Pods that have not ended.
    pub pods: Vec<PodFacts>,
    /// NetworkPolicies, `namespace/name`.
    pub network_policies: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    pub name: String,
    /// Its agent's id in Mesos.
    pub agent_id: Option<String>,
    /// candidate, starting, ready, leaving.
    pub state: Option<String>,
    /// What Mesos granted.
    pub grant: Option<String>,
    /// Whether the kubelet reports that it is ready.
    pub ready: bool,
    /// Its executor as recorded by the km scheduler.
    #[serde(skip)]
    pub executor: Option<String>,
    /// Why it is in its state.
    pub why: Option<String>,
    /// How its kube-proxy writes its rules.
    pub proxy: Option<String>,
    /// Why kube-proxy does not use the requested mode.
    pub proxy_why: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// `namespace/name`.
    pub name: String,
    pub uid: String,
    /// Its node, once bound.
    pub node: Option<String>,
    /// Pending, Running …
    pub phase: String,
    /// Its Mesos task, once bound.
    pub task: Option<String>,
}

pub(super) async fn ask<T>(
    what: &'static str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, ObjectsError> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(result) => result.map_err(|source| ObjectsError::Ask { what, source }),
        Err(_) => Err(ObjectsError::Silent { what }),
    }
}

/// Queries everything.
pub async fn look(client: &kube::Client) -> Result<Objects, ObjectsError> {
    let version = ask("query the version of the API server", client.apiserver_version()).await?.git_version;
    let unready = unready(client).await?;
    let list = ListParams::default();
    let nodes = ask("list nodes", Api::<Node>::all(client.clone()).list(&list)).await?;
    let pods = ask("list pods", Api::<Pod>::all(client.clone()).list(&list)).await?;
    let policies = Api::<NetworkPolicy>::all(client.clone());
    let policies = ask("list network policies", policies.list(&list)).await?;
    let ended = |pod: &PodFacts| matches!(pod.phase.as_str(), "Succeeded" | "Failed");
    Ok(Objects {
        version,
        unready,
        nodes: nodes.items.iter().map(node_facts).collect(),
        pods: pods.items.iter().map(pod_facts).filter(|pod| !ended(pod)).collect(),
        network_policies: policies.items.iter().map(full_name).collect(),
    })
}

/// `/readyz` answers 500 with a list while a check fails.
async fn unready(client: &kube::Client) -> Result<Vec<String>, ObjectsError> {
    let what = "query the readiness of the API server";
    let Ok(request) = http::Request::get("/readyz?verbose").body(Vec::new()) else { return Ok(Vec::new()) };
    match ask(what, client.request_text(request)).await {
        Ok(_) => Ok(Vec::new()),
        Err(ObjectsError::Ask { source: kube::Error::Api(status), .. }) => {
            let failed = status.message.lines().filter_map(|line| line.strip_prefix("[-]")).map(str::to_owned);
            let mut failed: Vec<String> = failed.collect();
            if failed.is_empty() {
                failed.push(format!("/readyz returned {}", status.code));
            }
            Ok(failed)
        }
        Err(error) => Err(error),
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    let annotation = |name: &str| node.metadata.annotations.as_ref()?.get(name).cloned();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    NodeFacts {
        name: node.metadata.name.clone().unwrap_or_default(),
        agent_id: annotation(AGENT_ID_ANNOTATION),
        state: annotation(STATE_ANNOTATION),
        grant: annotation(GRANT_ANNOTATION),
        executor: annotation(EXECUTOR_ANNOTATION),
        why: annotation(REASON_ANNOTATION),
        proxy: annotation(PROXY_MODE_ANNOTATION),
        proxy_why: annotation(PROXY_REASON_ANNOTATION),
        ready: conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True")),
    }
}

fn full_name(policy: &NetworkPolicy) -> String {
    let metadata = &policy.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn pod_facts(pod: &Pod) -> PodFacts {
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    PodFacts {
        name: format!("{namespace}/{}", metadata.name.clone().unwrap_or_default()),
        uid: metadata.uid.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        phase: pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default(),
        task: metadata.annotations.as_ref().and_then(|all| all.get(TASK_ANNOTATION).cloned()),
    }
}
