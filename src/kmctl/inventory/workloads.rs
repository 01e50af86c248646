//! Nodes, pods, disruption budgets and events in the detail that `scale` and `why` need.
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};
use serde::Serialize;

use super::objects::{ObjectsError, ask};
use kmctl_core::k8s::names::PROXY_REASON_ANNOTATION;
use kmctl_core::model::nodes::NodeFacts;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::selectors::Selector;

/// Everything that decides which nodes can be removed and which pods can run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workloads {
    /// Nodes that represent Mesos agents.
    pub nodes: Vec<NodeView>,
    /// Pods, including finished ones.
    pub pods: Vec<PodView>,
    pub budgets: Vec<Budget>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// The node as the km scheduler sees it.
    pub facts: NodeFacts,
    /// When the object was created.
    pub created: Option<Timestamp>,
    /// Marked unschedulable by an operator.
    pub cordoned: bool,
    /// Why the node is not ready, as reported by the kubelet.
    pub complaint: Option<String>,
    /// Why its kube-proxy is not in the requested mode.
    pub proxy_why: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// The pod as the km scheduler sees it.
    pub facts: PodFacts,
    /// Its controller, if any, e.g. `ReplicaSet web-7d9f`.
    pub controller: Option<String>,
    /// Its scheduler, if it is not the default one.
    pub other_scheduler: Option<String>,
    /// Names of scheduling gates that are closed.
    pub gates: Vec<String>,
    /// Pending, Running …
    pub phase: String,
    /// Whether its Ready condition holds.
    pub ready: bool,
    /// The reason for the phase, e.g. `Evicted: the node was low on memory`.
    pub message: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When its grace period ends, while it is being deleted.
    pub ends: Option<Timestamp>,
    /// What keeps its object after it has stopped.
    pub finalizers: Vec<String>,
    /// Containers that do not run as they should.
    pub troubles: Vec<Trouble>,
}

/// A container that does not run as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub container: String,
    pub image: String,
    /// The kubelet's reason, e.g. `ImagePullBackOff`.
    pub reason: String,
    /// The kubelet's message.
    pub message: String,
    /// How often it was restarted.
    pub restarts: i32,
    /// The exit code of its last termination.
    pub exit: Option<i32>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    pub namespace: String,
    pub name: String,
    /// Which pods it applies to.
    pub selector: Selector,
    /// How many pods may be evicted now.
    pub allowed: i32,
    /// How many pods are healthy.
    pub healthy: i32,
    /// How many pods must be healthy.
    pub wanted: i32,
}

/// An event on an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectEvent {
    /// When it was last seen.
    pub at: Option<Timestamp>,
    /// The component that reported it.
    pub source: String,
    /// The reason, as one word.
    pub reason: String,
    /// The message, as a sentence.
    pub message: String,
}

impl Workloads {
    /// Converts the API's objects. `defaults` are assumed for containers that request nothing.
    pub fn new(nodes: &[Node], pods: &[Pod], budgets: Vec<Budget>, defaults: Amount) -> Workloads {
        Workloads {
            nodes: nodes.iter().filter_map(node_view).collect(),
            pods: pods.iter().filter_map(|pod| pod_view(pod, defaults)).collect(),
            budgets,
        }
    }

    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.facts.name == name)
    }

    /// Pods that prevent a node from being removed.
    pub fn keeping(&self, node: &str) -> impl Iterator<Item = &PodView> {
        self.pods.iter().filter(move |pod| pod.facts.keeps_node() && pod.facts.node.as_deref() == Some(node))
    }

    /// Budgets that apply to a pod.
    pub fn budgets_of<'a>(&'a self, pod: &'a PodFacts) -> impl Iterator<Item = &'a Budget> {
        self.budgets.iter().filter(|budget| budget.namespace == pod.namespace && budget.selector.matches(&pod.labels))
    }
}

/// Queries everything. `defaults` are assumed for containers that request nothing.
pub async fn look(client: &Client, defaults: Amount) -> Result<Workloads, ObjectsError> {
    let list = ListParams::default();
    let nodes = ask("list nodes", Api::<Node>::all(client.clone()).list(&list)).await?;
    let pods = ask("list pods", Api::<Pod>::all(client.clone()).list(&list)).await?;
    Ok(Workloads::new(&nodes.items, &pods.items, budgets(client).await?, defaults))
}

async fn budgets(client: &Client) -> Result<Vec<Budget>, ObjectsError> {
    let budgets = Api::<PodDisruptionBudget>::all(client.clone());
    let found = ask("list disruption budgets", budgets.list(&ListParams::default())).await?;
    Ok(found.items.iter().map(budget).collect())
}

/// The relevant parts of a budget. An empty selector selects every pod of the namespace.
pub(crate) fn budget(found: &PodDisruptionBudget) -> Budget {
    let spec = found.spec.clone().unwrap_or_default();
    let status = found.status.clone().unwrap_or_default();
    Budget {
        namespace: found.metadata.namespace.clone().unwrap_or_default(),
        name: found.metadata.name.clone().unwrap_or_default(),
        selector: Selector::new(spec.selector.as_ref()),
        allowed: status.disruptions_allowed.unwrap_or_default(),
        healthy: status.current_healthy.unwrap_or_default(),
        wanted: status.desired_healthy.unwrap_or_default(),
    }
}

/// Events on one object, the newest last.
pub async fn events(
    client: &Client,
    namespace: Option<&str>,
    kind: &str,
    name: &str,
) -> Result<Vec<ObjectEvent>, ObjectsError> {
    let api: Api<Event> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let list = ListParams::default().fields(&format!("involvedObject.kind={kind},involvedObject.name={name}"));
    let found = ask("list events", api.list(&list)).await?;
    let mut all: Vec<ObjectEvent> = found.items.into_iter().map(occurrence).collect();
    all.sort_by_key(|one| one.at);
    Ok(all)
}

fn occurrence(event: Event) -> ObjectEvent {
    let component = event.source.and_then(|source| source.component).filter(|component| !component.is_empty());
    ObjectEvent {
        // kube-scheduler writes only eventTime.
        at: event.last_timestamp.map(|time| time.0).or(event.event_time.map(|time| time.0)),
        source: component.or(event.reporting_component).unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.message.unwrap_or_default(),
    }
}

fn node_view(node: &Node) -> Option<NodeView> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let not_ready = conditions.into_iter().flatten().find(|one| one.type_ == "Ready" && one.status != "True");
    Some(NodeView {
        facts: NodeFacts::new(node)?,
        created: node.metadata.creation_timestamp.as_ref().map(|time| time.0),
        cordoned: node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)),
        complaint: not_ready
            .map(|one| [one.reason.clone(), one.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(": "))
            .filter(|text| !text.is_empty()),
        proxy_why: node.metadata.annotations.as_ref().and_then(|all| all.get(PROXY_REASON_ANNOTATION).cloned()),
    })
}

fn pod_view(pod: &Pod, defaults: Amount) -> Option<PodView> {
    let facts = PodFacts::new(pod, defaults)?;
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let conditions = status.conditions.iter().flatten();
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    Some(PodView {
        controller: owner.map(|owner| format!("{} {}", owner.kind, owner.name)),
        other_scheduler: spec.scheduler_name.filter(|name| name != "default-scheduler"),
        gates: spec.scheduling_gates.into_iter().flatten().map(|gate| gate.name).collect(),
        ready: conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        phase: status.phase.clone().unwrap_or_default(),
        message: [status.reason.clone(), status.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(": "),
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        ends: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        finalizers: pod.metadata.finalizers.clone().unwrap_or_default(),
        troubles: statuses.filter_map(trouble).collect(),
        facts,
    })
}

/// Reasons of a container that has simply not been started yet.
const ON_THE_WAY: [&str; 3] = ["ContainerCreating", "PodInitializing", ""];

fn trouble(status: &ContainerStatus) -> Option<Trouble> {
    let state = status.state.clone().unwrap_or_default();
    let ended = state.terminated.clone().or(status.last_state.clone().and_then(|last| last.terminated));
    let exit = ended.as_ref().map(|ended| ended.exit_code);
    let (reason, message) = match (state.waiting, state.terminated) {
        (Some(waiting), _) => (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()),
        (None, Some(ended)) if ended.exit_code != 0 => {
            (ended.reason.unwrap_or_else(|| "Error".to_owned()), ended.message.unwrap_or_default())
        }
        _ => return None,
    };
    (!ON_THE_WAY.contains(&reason.as_str())).then(|| Trouble {
        container: status.name.clone(),
        image: status.image.clone(),
        reason,
        message,
        restarts: status.restart_count,
        exit,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_seen_with_its_controller_and_what_is_wrong_with_its_containers() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u", "name": "web-1", "namespace": "default",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true}]},
            "spec": {"containers": [{"name": "c"}], "nodeName": "agent1"},
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                "initContainerStatuses": [{"name": "first", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0}}}],
                "containerStatuses": [
                    {"name": "c", "image": "no/such", "imageID": "", "ready": false, "restartCount": 0,
                     "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"no/such\""}}},
                    {"name": "d", "image": "i", "imageID": "", "ready": false, "restartCount": 4,
                     "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                     "lastState": {"terminated": {"exitCode": 3}}},
                    {"name": "e", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                     "state": {"waiting": {"reason": "ContainerCreating"}}}]},
        }))
        .unwrap();
        let view = pod_view(&pod, Amount::default()).unwrap();
        assert_eq!(view.controller.as_deref(), Some("ReplicaSet web"));
        assert!(view.facts.controlled && !view.ready);
        let seen: Vec<_> =
            view.troubles.iter().map(|one| (one.container.as_str(), one.reason.as_str(), one.exit)).collect();
        assert_eq!(seen, [("c", "ImagePullBackOff", None), ("d", "CrashLoopBackOff", Some(3))]);
    }

    #[test]
    fn an_empty_selector_of_a_budget_means_every_pod() {
        let found: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "b", "namespace": "n"}, "spec": {"selector": {}, "minAvailable": 1},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 4, "desiredHealthy": 4, "expectedPods": 6},
        }))
        .unwrap();
        let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let budget = budget(&found);
        assert!(budget.selector.matches(&labels));
        assert_eq!((budget.allowed, budget.healthy, budget.wanted), (0, 4, 4));
    }
}
