//! What `kmctl up` forbids, judged by the real API server; what it takes of a candidate's Node; and that the requests which
//! it fills in are those that a pod's task is sized by.
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kmctl_core::k8s::MINORS;
use kmctl_core::k8s::manifests;
use kmctl_core::model::candidate::NodeSpec;
use kmctl_core::model::requests;
use kmctl_core::model::resources::Amount;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::server::Server;

/// Makes the objects of the template as `km host` does.
async fn apply_policies(client: &Client) {
    let template = include_str!("../../templates/api/policies.yaml.hbs");
    for object in manifests("policies.yaml", template).unwrap() {
        let kind = object["kind"].as_str().unwrap();
        let plural = match kind {
            "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
            "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
            other => panic!("an object of kind {other}"),
        };
        let resource = ApiResource {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "admissionregistration.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let name = object["metadata"]["name"].as_str().unwrap();
        let parameters = PatchParams { field_manager: Some("kmctl".to_owned()), force: true, ..PatchParams::default() };
        api.patch(name, &parameters, &Patch::Apply(&object)).await.unwrap();
    }
}

fn pod(name: &str, spec: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

/// The message of a refusal; none where it was taken, or failed for another reason.
fn refusal<T: std::fmt::Debug>(answer: kube::Result<T>) -> Option<String> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => Some(status.message),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    }
}

/// A policy is in force a moment after it was made.
async fn soon<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    for _ in 0..120 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("waited half a minute for {what}");
}

const DOCUMENTED: &str = "docs/scheduler.md of kmctl, \"What is refused\"";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn resizes_and_resource_claims_are_refused_with_the_reason_and_other_pods_pass() {
    let server = Server::start().await;
    let client = server.client();
    apply_policies(&client).await;
    // Once more: nothing changes, as with the second `kmctl up`.
    apply_policies(&client).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let plain = json!({"containers": [{"name": "c", "image": "busybox",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]});
    pods.create(&PostParams::default(), &pod("web", &plain)).await.unwrap();

    let resize = |cpu: String| {
        let change = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let pods = pods.clone();
        async move { pods.patch_subresource("resize", "web", &PatchParams::default(), &Patch::Strategic(change)).await }
    };
    let said = soon("resizes to be refused", || async { refusal(resize("200m".to_owned()).await) }).await;
    assert!(said.contains("its Mesos task cannot grow") && said.contains(DOCUMENTED), "{said}");
    let before = pods.get("web").await.unwrap();
    let said = refusal(resize("300m".to_owned()).await).unwrap();
    assert!(said.contains("no-pod-resize.kmctl.io"), "{said}");
    assert_eq!(pods.get("web").await.unwrap().spec, before.spec);

    let claims = json!({
        "resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}],
        "containers": [{"name": "c", "image": "busybox", "resources": {"claims": [{"name": "gpu"}]}}]});
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let said =
        soon("claims to be refused", || async { refusal(pods.create(&dry, &pod("claims", &claims)).await) }).await;
    assert!(said.contains("nothing grants them yet") && said.contains(DOCUMENTED), "{said}");

    // Everything else passes: other pods, other changes, and other subresources.
    let mut others = plain.clone();
    others["containers"][0]["resources"]["limits"] = json!({"nvidia.com/gpu": "1"});
    pods.create(&PostParams::default(), &pod("device", &others)).await.unwrap();
    others = plain.clone();
    others["resourceClaims"] = json!([]);
    others["initContainers"] = json!([{"name": "side", "image": "busybox", "restartPolicy": "Always"}]);
    pods.create(&PostParams::default(), &pod("sidecar", &others)).await.unwrap();
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    pods.patch("web", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let status = json!({"status": {"phase": "Running"}});
    pods.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}});
    let debugger = Patch::Strategic(debugger);
    pods.patch_subresource("ephemeralcontainers", "web", &PatchParams::default(), &debugger).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn a_candidate_keeps_what_its_kubelet_will_declare() {
    let server = Server::start().await;
    let client = server.client();
    let features = MINORS[0].declared_features;
    let spec = NodeSpec {
        name: "agent1".to_owned(),
        agent: "S-1".to_owned(),
        labels: [("kubernetes.io/hostname".to_owned(), "agent1".to_owned())].into(),
        address: None,
        capacity: Amount::new(4000, 4096),
        disk: 10_240_000,
        pod_cidr: Some("172.30.0.0/16".to_owned()),
        declared_features: features,
    };
    km::scheduler::api::Api::new(client.clone()).create_node(spec).await.unwrap();
    let node = Api::<Node>::all(client).get("agent1").await.unwrap();
    let status = node.status.unwrap();
    assert_eq!(status.declared_features.unwrap_or_default(), features);
    let allocatable = status.allocatable.unwrap();
    assert_eq!((allocatable["cpu"].0.as_str(), allocatable["ephemeral-storage"].0.as_str()), ("4", "10Gi"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn what_the_api_server_fills_in_changes_nothing_about_a_pods_size() {
    let server = Server::start().await;
    let client = server.client();
    let class = json!({"metadata": {"name": "sizes-overhead"}, "handler": "runc",
        "overhead": {"podFixed": {"cpu": "50m", "memory": "16Mi"}}});
    let classes = Api::<RuntimeClass>::all(client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let all = manifests("sizes.yaml", include_str!("../lab/sizes.yaml")).unwrap();
    assert_eq!(all.len(), 12);
    for mut given in all {
        for list in ["containers", "initContainers"] {
            for container in given["spec"][list].as_array_mut().into_iter().flatten() {
                container["image"] = json!("busybox");
            }
        }
        let given: Pod = serde_json::from_value(given).unwrap();
        // The class is known to admission a moment after it was made.
        let made =
            soon("the pod to be taken", || async { pods.create(&PostParams::default(), &given).await.ok() }).await;
        let taken = requests::effective(&made.spec.unwrap(), Amount::new(250, 64)).unwrap();
        assert_eq!(taken.to_string(), made.metadata.annotations.unwrap()["task"], "{:?}", made.metadata.name);
    }
}
