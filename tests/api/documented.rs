//! The manifests of the documentation are what the server takes.
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::ApiResource;
use serde_json::Value;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs KMCTL_TEST_BIN"]
async fn coredns_is_made_at_the_address_that_pods_ask_and_may_read_what_it_watches() {
    let server = Server::start().await;
    let client = server.client();
    let mut kinds = Vec::new();
    for object in kmctl_core::k8s::manifests("docs/coredns.yaml", include_str!("../../docs/coredns.yaml")).unwrap() {
        let (kind, api_version) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
        };
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let sent = serde_json::from_value(object.clone()).unwrap();
        let made = api.create(&PostParams::default(), &sent).await.unwrap();
        // What the server does not know it drops.
        let made = serde_json::to_value(&made).unwrap();
        missing(&object, &made, kind);
        kinds.push(kind.to_owned());
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

/// Everything that was sent is there.
fn missing(sent: &Value, made: &Value, place: &str) {
    match (sent, made) {
        (Value::Object(sent), Value::Object(made)) => {
            for (key, value) in sent {
                missing(value, made.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"));
            }
        }
        (Value::Array(sent), Value::Array(made)) => {
            assert_eq!(sent.len(), made.len(), "{place}");
            sent.iter().zip(made).for_each(|(sent, made)| missing(sent, made, place));
        }
        _ => assert_eq!(sent, made, "{place}"),
    }
}
