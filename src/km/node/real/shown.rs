//! Reports to the API how the node's kube-proxy writes its rules: annotations on its own Node, and an event if the mode
//! differs from the requested one. Uses the kubelet's credentials, which allow both.
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Node};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tracing::warn;

use super::super::deps::DepError;
use super::super::view::api::Clients;
use super::packet_filter::Choice;
use kmctl_core::k8s::events::PROXY_MODE_UNAVAILABLE;
use kmctl_core::k8s::names::{NAMESPACE_OF_NODE_EVENTS, PROXY_MODE_ANNOTATION, PROXY_REASON_ANNOTATION};

const RETRY: Duration = Duration::from_secs(2);
/// Number of attempts. Then it gives up, since nothing depends on it.
const ATTEMPTS: u32 = 30;

/// Retries until it is reported.
pub async fn tell(api: Arc<dyn Clients>, node: String, choice: Choice) {
    for attempt in 1..=ATTEMPTS {
        match once(api.as_ref(), &node, &choice).await {
            Ok(()) => return,
            Err(error) if attempt == ATTEMPTS => {
                warn!("failed to report the mode of kube-proxy on the Node: {}", error.chain())
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

async fn once(api: &dyn Clients, node: &str, choice: &Choice) -> Result<(), DepError> {
    let client = api.client().await?;
    let annotations = json!({ PROXY_MODE_ANNOTATION: choice.shown(), PROXY_REASON_ANNOTATION: choice.why });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let what = format!("annotate node {node}");
    Api::<Node>::all(client.clone())
        .patch(node, &PatchParams::default(), &patch)
        .await
        .map_err(DepError::other(what))?;
    let Some(why) = &choice.why else { return Ok(()) };
    let now = Timestamp::now();
    let event = json!({
        "metadata": { "name": format!("{node}.{:x}", now.as_nanosecond()), "namespace": NAMESPACE_OF_NODE_EVENTS },
        // As the kubelet does: in a Node's events the uid is the Node's name.
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
        "type": "Warning", "reason": PROXY_MODE_UNAVAILABLE.reason,
        "message": format!("kube-proxy uses {}, not nftables: {why}", choice.shown()),
        "source": { "component": PROXY_MODE_UNAVAILABLE.component, "host": node },
        "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(), "count": 1,
    });
    let event: Event = serde_json::from_value(event).map_err(DepError::other("create an event"))?;
    let events = Api::<Event>::namespaced(client, NAMESPACE_OF_NODE_EVENTS);
    events.create(&PostParams::default(), &event).await.map(drop).map_err(DepError::other("write an event"))
}
