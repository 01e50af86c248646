//! Writes to the Kubernetes API, one function per effect. Contains no policy.
use std::collections::BTreeMap;

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as PodEvent, Node, Pod, Secret, Taint};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api as Objects, Client};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::decide::{Binding, Token};
use kmctl_core::k8s::events::{FAILED_SCHEDULING, HELD};
use kmctl_core::k8s::names::MANAGER;
use kmctl_core::k8s::names::{
    BOOTSTRAP_GROUP, EXECUTOR_ANNOTATION, FRAMEWORK_CONFIG_MAP, GRANT_ANNOTATION, MANAGED_BY_LABEL, NAMESPACE,
    NODE_TASK_ANNOTATION, NUDGE_ANNOTATION, REASON_ANNOTATION, SETTINGS_CONFIG_MAP, STATE_ANNOTATION, TASK_ANNOTATION,
    TOKEN_ID_ANNOTATION, UNCLEANED_KEY,
};
use kmctl_core::model::candidate::NodeSpec;
use kmctl_core::model::candidate::candidate;
use kmctl_core::model::nodes::{LEAVING_TAINT, NodePhase};
use kmctl_core::model::resources::Amount;
use mesos::types::ExecutorInfo;

/// Namespace of the kubelets' Leases.
const LEASES: &str = "kube-node-lease";

/// Long enough to download everything onto a new agent, short enough to expire soon.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// The API, for writing.
#[derive(Clone)]
pub struct Api {
    client: Client,
    /// Serializes updates of the list of agents, which is read, changed and written.
    agents: Arc<Mutex<()>>,
}

fn merge() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn status_of(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// An object that does not exist counts as deleted.
fn unless_absent<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if status_of(&error) != 404 => Err(error),
        _ => Ok(()),
    }
}

impl Api {
    pub fn new(client: Client) -> Api {
        Api { client, agents: Arc::new(Mutex::new(())) }
    }

    fn nodes(&self) -> Objects<Node> {
        Objects::all(self.client.clone())
    }

    fn pods(&self, namespace: &str) -> Objects<Pod> {
        Objects::namespaced(self.client.clone(), namespace)
    }

    fn maps(&self) -> Objects<ConfigMap> {
        Objects::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn apply_map(&self, name: &str, data: Value) -> Result<(), kube::Error> {
        let patch = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {MANAGED_BY_LABEL: MANAGER}}, "data": data});
        match self.maps().patch(name, &merge(), &Patch::Merge(&patch)).await {
            Err(error) if status_of(&error) == 404 => {
                let map: ConfigMap = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
                self.maps().create(&PostParams::default(), &map).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// Stores the framework's id for other hosts and for the operator.
    pub async fn save_framework_id(&self, id: &str) -> Result<(), kube::Error> {
        let _one = self.agents.lock().await;
        self.apply_map(FRAMEWORK_CONFIG_MAP, json!({"id": id})).await
    }

    /// The stored framework id.
    pub async fn framework_id(&self) -> Result<Option<String>, kube::Error> {
        let map = self.maps().get_opt(FRAMEWORK_CONFIG_MAP).await?;
        let id = map.and_then(|map| map.data?.remove("id"));
        Ok(id.filter(|id| !id.is_empty()))
    }

    async fn remember_agent(&self, agent: &str) -> Result<(), kube::Error> {
        let _one = self.agents.lock().await;
        let map = self.maps().get_opt(FRAMEWORK_CONFIG_MAP).await?.unwrap_or_default();
        let mut agents = super::watches::known_agents(&map);
        if agents.iter().any(|known| known == agent) {
            return Ok(());
        }
        agents.push(agent.to_owned());
        let text = serde_json::to_string(&agents).map_err(kube::Error::SerdeError)?;
        self.apply_map(FRAMEWORK_CONFIG_MAP, json!({"agents": text})).await
    }

    /// Records in the live settings that the purge is over, and which agents are not cleaned, with the reason.
    pub async fn purge_done(&self, uncleaned: &BTreeMap<String, String>) -> Result<(), kube::Error> {
        let uncleaned = serde_json::to_string(uncleaned).map_err(kube::Error::SerdeError)?;
        self.apply_map(SETTINGS_CONFIG_MAP, json!({"purge": "done", UNCLEANED_KEY: uncleaned})).await
    }

    /// Creates a candidate: a Node that is Ready without a kubelet, so that pods are scheduled to it.
    pub async fn create_node(&self, spec: NodeSpec) -> Result<(), kube::Error> {
        let name = spec.name.clone();
        let node: Node =
            serde_json::from_value(candidate(spec, &Timestamp::now().to_string())).map_err(kube::Error::SerdeError)?;
        // Before the Node, because the node controller judges a Node by its Lease.
        self.renew_lease(&name).await?;
        self.nodes().create(&PostParams::default(), &node).await.map(|_| ())
    }

    /// Renews a Node's Lease in place of the kubelet and under the kubelet's name, so that the kubelet can continue it.
    pub async fn renew_lease(&self, node: &str) -> Result<(), kube::Error> {
        let leases = Objects::<Lease>::namespaced(self.client.clone(), LEASES);
        let spec =
            json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": micro_time(Timestamp::now())});
        match leases.patch(node, &merge(), &Patch::Merge(json!({"spec": spec}))).await {
            Err(error) if status_of(&error) == 404 => {
                let lease = json!({"metadata": {"name": node}, "spec": spec});
                let lease: Lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                leases.create(&PostParams::default(), &lease).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    /// Creates a token, records it on the Node together with the executor, and adds the agent to those that had a node.
    pub async fn prepare_node(
        &self,
        node: &str,
        agent: &str,
        executor: &ExecutorInfo,
        task: &str,
    ) -> Result<Token, kube::Error> {
        self.remember_agent(agent).await?;
        let (id, secret) = (random(6), random(16));
        let expires = Timestamp::now().checked_add(TOKEN_LIFE).unwrap_or(Timestamp::now()).to_string();
        let token = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}"), "labels": {MANAGED_BY_LABEL: MANAGER}},
            "stringData": {"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
                "auth-extra-groups": BOOTSTRAP_GROUP, "expiration": expires, "description": format!("node {node}")},
        });
        let token: Secret = serde_json::from_value(token).map_err(kube::Error::SerdeError)?;
        let secrets = Objects::<Secret>::namespaced(self.client.clone(), NAMESPACE);
        secrets.create(&PostParams::default(), &token).await?;
        let executor = serde_json::to_string(executor).map_err(kube::Error::SerdeError)?;
        let patch = json!({"metadata": {"annotations": {
            EXECUTOR_ANNOTATION: executor, NODE_TASK_ANNOTATION: task, TOKEN_ID_ANNOTATION: id,
            STATE_ANNOTATION: NodePhase::Starting.as_str()}}});
        self.nodes().patch(node, &merge(), &Patch::Merge(patch)).await?;
        Ok(Token(format!("{id}.{secret}")))
    }

    /// Writes a node's state with its reason, and the taint that belongs to the state.
    pub async fn mark_node(&self, node: &str, phase: NodePhase, why: &str) -> Result<(), kube::Error> {
        let live = self.nodes().get(node).await?;
        let taints = live.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let reason = (!why.is_empty()).then_some(why);
        let mut patch =
            json!({"metadata": {"annotations": {STATE_ANNOTATION: phase.as_str(), REASON_ANNOTATION: reason}}});
        if let Some(taints) = taints_for(phase, &taints) {
            // The list is replaced as a whole, so it must still be the one that was read.
            patch["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
            patch["spec"] = json!({"taints": taints});
        }
        self.nodes().patch(node, &merge(), &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Publishes what Mesos has granted to a node.
    pub async fn publish_grant(&self, node: &str, grant: Amount) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"annotations": {GRANT_ANNOTATION: grant.to_string()}}});
        self.nodes().patch(node, &merge(), &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Deletes a Node, its Lease and its token.
    pub async fn delete_node(&self, node: &str, token_id: Option<&str>) -> Result<(), kube::Error> {
        if let Some(id) = token_id {
            self.delete_token(id).await?;
        }
        unless_absent(self.nodes().delete(node, &DeleteParams::default()).await)?;
        let leases = Objects::<Lease>::namespaced(self.client.clone(), LEASES);
        unless_absent(leases.delete(node, &DeleteParams::default()).await)
    }

    pub async fn delete_token(&self, id: &str) -> Result<(), kube::Error> {
        let secrets = Objects::<Secret>::namespaced(self.client.clone(), NAMESPACE);
        unless_absent(secrets.delete(&format!("bootstrap-token-{id}"), &DeleteParams::default()).await)
    }

    /// Binds a pod. A conflict counts as success if the pod is already bound to this node with this task.
    pub async fn bind(&self, binding: &Binding) -> Result<(), kube::Error> {
        let Binding { namespace, name, uid, node, annotations } = binding;
        let object = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": annotations},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let pods = self.pods(namespace);
        let answer: Result<Value, kube::Error> =
            pods.create_subresource("binding", name, &PostParams::default(), &object).await;
        let Err(error) = answer else { return Ok(()) };
        if status_of(&error) != 409 {
            return Err(error);
        }
        let pod = pods.get(name).await?;
        let there = pod.spec.and_then(|spec| spec.node_name).as_ref() == Some(node)
            && pod.metadata.uid.as_ref() == Some(uid)
            && pod.metadata.annotations.and_then(|mut all| all.remove(TASK_ANNOTATION))
                == annotations.get(TASK_ANNOTATION).cloned();
        if there { Ok(()) } else { Err(error) }
    }

    /// Makes kube-scheduler try a pod again. False if the pod no longer exists.
    pub async fn nudge(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, kube::Error> {
        let patch = json!({"metadata": {"uid": uid, "annotations": {NUDGE_ANNOTATION: Timestamp::now().as_millisecond().to_string()}}});
        match self.pods(namespace).patch(name, &merge(), &Patch::Merge(patch)).await {
            Err(error) if status_of(&error) == 404 => Ok(false),
            // A different pod of that name, which needs no nudge.
            Err(error) if status_of(&error) == 409 => Ok(true),
            other => other.map(|_| true),
        }
    }

    /// Writes annotations of a pod again, if its UID still matches.
    pub async fn record(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"uid": uid, "annotations": annotations}});
        match self.pods(namespace).patch(name, &merge(), &Patch::Merge(patch)).await {
            // The pod is gone, or a different one has its name.
            Err(error) if matches!(status_of(&error), 404 | 409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Writes a FailedScheduling event of our own.
    pub async fn explain(&self, namespace: &str, name: &str, uid: &str, message: &str) -> Result<(), kube::Error> {
        let now = Timestamp::now().to_string();
        let event = json!({
            "metadata": {"name": format!("{name}.{}", random(16)), "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
            "reason": FAILED_SCHEDULING.reason, "message": message, "type": "Warning", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": FAILED_SCHEDULING.component},
            "reportingComponent": MANAGER, "reportingInstance": "",
        });
        let event: PodEvent = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        Objects::namespaced(self.client.clone(), namespace)
            .create(&PostParams::default(), &event)
            .await
            .map(|_: PodEvent| ())
    }

    /// Writes an event that says why the scheduler does nothing.
    pub async fn report_held(&self, message: &str) -> Result<(), kube::Error> {
        let now = Timestamp::now().to_string();
        let event = json!({
            "metadata": {"name": format!("{FRAMEWORK_CONFIG_MAP}.{}", random(16)), "namespace": NAMESPACE},
            "involvedObject": {
                "apiVersion": "v1", "kind": HELD.object, "namespace": NAMESPACE, "name": FRAMEWORK_CONFIG_MAP,
            },
            "reason": HELD.reason, "message": message, "type": "Warning", "count": 1,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": HELD.component},
            "reportingComponent": MANAGER, "reportingInstance": "",
        });
        let event: PodEvent = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        Objects::namespaced(self.client.clone(), NAMESPACE)
            .create(&PostParams::default(), &event)
            .await
            .map(|_: PodEvent| ())
    }

    /// Evicts a pod, if its UID still matches. False if its disruption budgets forbid it for now.
    pub async fn evict_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, kube::Error> {
        // No apiVersion: the server then uses the version that it prefers. policy/v1 exists only since Kubernetes 1.22.
        let eviction = json!({"metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}}});
        let answer: Result<Value, kube::Error> =
            self.pods(namespace).create_subresource("eviction", name, &PostParams::default(), &eviction).await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) => match status_of(&error) {
                429 => Ok(false),
                // The pod is gone, or a different one has its name.
                404 | 409 => Ok(true),
                _ => Err(error),
            },
        }
    }

    /// Deletes a pod, if its UID still matches.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str, force: bool) -> Result<(), kube::Error> {
        let parameters = DeleteParams {
            grace_period_seconds: force.then_some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.pods(namespace).delete(name, &parameters).await {
            Err(error) if matches!(status_of(&error), 404 | 409) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// A node's taints for this state. None if they are correct already.
fn taints_for(phase: NodePhase, taints: &[Taint]) -> Option<Vec<Taint>> {
    let leaving = |taint: &Taint| taint.key == LEAVING_TAINT;
    match (phase == NodePhase::Leaving, taints.iter().any(leaving)) {
        (true, false) => {
            let own = Taint { key: LEAVING_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
            Some(taints.iter().cloned().chain([own]).collect())
        }
        (false, true) => Some(taints.iter().filter(|taint| !leaving(taint)).cloned().collect()),
        _ => None,
    }
}

fn micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Letters and digits allowed in bootstrap tokens.
fn random(length: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut generator = rand::rng();
    (0..length).map(|_| char::from(ALPHABET[generator.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaving_taint_comes_and_goes_and_leaves_the_others_alone() {
        let taint = |key: &str| Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let (other, own) = (taint("dedicated"), taint(LEAVING_TAINT));
        let cases = [
            (NodePhase::Leaving, vec![other.clone()], Some(vec![other.clone(), own.clone()])),
            (NodePhase::Leaving, vec![own.clone()], None),
            (NodePhase::Ready, vec![own, other.clone()], Some(vec![other.clone()])),
            (NodePhase::Ready, vec![other], None),
        ];
        for (phase, before, after) in cases {
            assert_eq!(taints_for(phase, &before), after, "{phase} {before:?}");
        }
    }

    #[test]
    fn tokens_have_the_form_that_the_api_server_wants() {
        let (id, secret) = (random(6), random(16));
        assert!(id.len() == 6 && secret.len() == 16);
        assert!(id.chars().chain(secret.chars()).all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert_ne!(secret, random(16));
    }
}
