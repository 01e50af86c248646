//! How km scheduler drains a node, against a real API server: evictions, taints, and what `kmctl` sees of budgets.
use k8s_openapi::api::core::v1::{Node, Pod};
use km::scheduler::api::Api;
use kmctl::inventory::workloads;
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::resources::Amount;
use kube::Client;
use kube::api::{Api as Objects, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::server::Server;

struct World {
    client: Client,
    budgets: ApiResource,
}

impl World {
    fn pods(&self) -> Objects<Pod> {
        Objects::namespaced(self.client.clone(), "default")
    }

    fn nodes(&self) -> Objects<Node> {
        Objects::all(self.client.clone())
    }

    /// A running pod; returns its UID.
    async fn pod(&self, name: &str) -> String {
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}], "terminationGracePeriodSeconds": 0},
        });
        let pod = self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        self.pods().patch_status(name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
        pod.metadata.uid.unwrap()
    }

    /// What the disruption controller would write.
    async fn allow(&self, budget: &str, allowed: u32) {
        let api = Objects::<DynamicObject>::namespaced_with(self.client.clone(), "default", &self.budgets);
        let generation = api.get(budget).await.unwrap().metadata.generation;
        let status = json!({"status": {"observedGeneration": generation, "disruptionsAllowed": allowed,
            "currentHealthy": 4, "desiredHealthy": 4, "expectedPods": 6}});
        api.patch_status(budget, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn evictions_keep_budgets_and_mean_one_pod_only() {
    let server = Server::start().await;
    let client = server.client();
    let budgets = ApiResource {
        group: "policy".to_owned(),
        version: "v1".to_owned(),
        api_version: "policy/v1".to_owned(),
        kind: "PodDisruptionBudget".to_owned(),
        plural: "poddisruptionbudgets".to_owned(),
    };
    let world = World { client: client.clone(), budgets };
    let api = Api::new(client.clone());
    let (a, b) = (world.pod("a").await, world.pod("b").await);
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"}, "spec": {"minAvailable": 4, "selector": {"matchLabels": {"app": "web"}}}});
    let objects = Objects::<DynamicObject>::namespaced_with(client.clone(), "default", &world.budgets);
    objects.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();

    world.allow("web", 0).await;
    assert!(!api.evict_pod("default", "a", &a).await.unwrap(), "the budget forbids it");
    assert!(world.pods().get_opt("a").await.unwrap().is_some());
    let seen = workloads::look(&client, Amount::new(250, 64)).await.unwrap();
    assert_eq!((seen.budgets[0].name.as_str(), seen.budgets[0].allowed, seen.budgets[0].wanted), ("web", 0, 4));
    let pod = seen.pods.iter().find(|pod| pod.facts.name == "a").unwrap();
    assert_eq!(seen.budgets_of(&pod.facts).count(), 1);

    world.allow("web", 1).await;
    assert!(api.evict_pod("default", "b", "another-uid").await.unwrap(), "nothing is left to do for that one");
    assert!(world.pods().get_opt("b").await.unwrap().is_some(), "another pod of the name is not touched");
    world.allow("web", 1).await;
    assert!(api.evict_pod("default", "b", &b).await.unwrap());
    assert!(world.pods().get_opt("b").await.unwrap().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    assert!(!api.evict_pod("default", "a", &a).await.unwrap(), "one was allowed");
    assert!(api.evict_pod("default", "gone", "x").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn a_leaving_node_is_tainted_and_one_that_stays_is_not() {
    let server = Server::start().await;
    let client = server.client();
    let world = World { client: client.clone(), budgets: ApiResource::erase::<Pod>(&()) };
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": "n1", "annotations": {"kmctl.io/agent-id": "S0"}},
        "spec": {"taints": [{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]},
    }))
    .unwrap();
    world.nodes().create(&PostParams::default(), &node).await.unwrap();
    let api = Api::new(client);
    let shown = async || -> (Value, Vec<String>) {
        let node = world.nodes().get("n1").await.unwrap();
        let taints = node.spec.unwrap().taints.unwrap_or_default().into_iter().map(|taint| taint.key).collect();
        (json!(node.metadata.annotations.unwrap()), taints)
    };
    api.mark_node("n1", NodePhase::Leaving, "too many").await.unwrap();
    api.mark_node("n1", NodePhase::Leaving, "too many").await.unwrap();
    let (annotations, mut taints) = shown().await;
    taints.retain(|key| !key.starts_with("node.kubernetes.io/"));
    assert_eq!(taints, ["dedicated", "kmctl.io/leaving"]);
    assert_eq!(
        (&annotations["kmctl.io/state"], &annotations["kmctl.io/reason"]),
        (&json!("leaving"), &json!("too many"))
    );
    api.mark_node("n1", NodePhase::Ready, "").await.unwrap();
    let (annotations, mut taints) = shown().await;
    taints.retain(|key| !key.starts_with("node.kubernetes.io/"));
    assert_eq!(taints, ["dedicated"]);
    assert_eq!((&annotations["kmctl.io/state"], annotations.get("kmctl.io/reason")), (&json!("ready"), None));
}
