//! Executes one write and reports its outcome.
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, Preconditions};
use kube::core::ApiResource;
use kube::{Client, Resource};
use serde_json::{Value, json};

use super::decide::{Action, Object, Outcome};
use super::model::Seen;
use super::read;
use super::watch::endpoints_resource;

/// Limit for one write. The API server's own limit is one minute.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Writer {
    client: Client,
    endpoints: ApiResource,
    slices: ApiResource,
}

impl Writer {
    /// A writer that uses `slices` as the resource type of EndpointSlices.
    pub fn new(client: Client, slices: ApiResource) -> Self {
        Writer { client, endpoints: endpoints_resource(), slices }
    }

    /// Executes a write. Every failure becomes an outcome.
    pub async fn write(&self, object: &Object, action: &Action) -> Outcome {
        match tokio::time::timeout(TIMEOUT, self.attempt(object, action)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(object = %object.key(), error, "write rejected");
                Outcome::Failed
            }
            Err(_) => {
                tracing::warn!(object = %object.key(), "no response from the API server in time");
                Outcome::Failed
            }
        }
    }

    async fn attempt(&self, object: &Object, action: &Action) -> Result<Outcome, kube::Error> {
        let (resource, seen): (_, fn(&DynamicObject) -> Seen) = match object {
            Object::Endpoints(_) => (&self.endpoints, |object| read::endpoints(&object.metadata, &object.data)),
            Object::Slice(_) => (&self.slices, |object| read::slice(&object.metadata, &object.data)),
        };
        let key = object.key();
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &key.namespace, resource);
        let collection = DynamicObject::url_path(resource, Some(&key.namespace));
        let written = match action {
            Action::Create(body) => {
                let body = creation(body, resource, &key.namespace, &key.name);
                self.send("POST", &collection, "application/json", &body).await
            }
            Action::Replace(body, seen) => {
                let operations = replacement(body, seen);
                self.send("PATCH", &format!("{collection}/{}", key.name), "application/json-patch+json", &operations)
                    .await
            }
            Action::Delete(seen) => {
                let preconditions = Preconditions {
                    uid: Some(seen.uid.clone()),
                    resource_version: Some(seen.resource_version.clone()),
                };
                let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(&key.name, &parameters).await {
                    Ok(_) => return Ok(Outcome::Deleted),
                    Err(error) => Err(error),
                }
            }
        };
        match written {
            Ok(object) => Ok(Outcome::Stored(seen(&object))),
            Err(kube::Error::Api(status)) if status.code == 404 && matches!(action, Action::Delete(_)) => {
                Ok(Outcome::Deleted)
            }
            Err(kube::Error::Api(status)) if status.code == 404 && matches!(action, Action::Replace(..)) => {
                Ok(Outcome::Outdated(None))
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Outcome::Outdated(api.get_opt(&key.name).await?.as_ref().map(seen)))
            }
            Err(error) => Err(error),
        }
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: &Value) -> Result<DynamicObject, kube::Error> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{path}?fieldManager=km-endpoints"))
            .header(http::header::CONTENT_TYPE, content)
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

fn creation(body: &Value, resource: &ApiResource, namespace: &str, name: &str) -> Value {
    let mut body = body.clone();
    body["apiVersion"] = json!(resource.api_version);
    body["kind"] = json!(resource.kind);
    body["metadata"]["namespace"] = json!(namespace);
    body["metadata"]["name"] = json!(name);
    body
}

/// Uses a JSON patch, not a PUT: it replaces the fields we own as a whole, keeps the others (annotations), and fails
/// when the object is no longer the one that was seen.
fn replacement(body: &Value, seen: &Seen) -> Value {
    let mut operations =
        vec![set("/metadata/uid", json!(seen.uid)), set("/metadata/resourceVersion", json!(seen.resource_version))];
    for (field, value) in body.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(metadata) if field == "metadata" => {
                operations
                    .extend(metadata.iter().map(|(field, value)| set(&format!("/metadata/{field}"), value.clone())));
            }
            _ => operations.push(set(&format!("/{field}"), value.clone())),
        }
    }
    if body.get("addressType").is_none() && body.get("subsets").is_none() {
        operations.push(set("/subsets", json!([])));
    }
    Value::Array(operations)
}

/// `add` replaces an existing value.
fn set(path: &str, value: Value) -> Value {
    json!({ "op": "add", "path": path, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_names_the_version_it_was_decided_on_and_empties_subsets() {
        let seen = Seen { uid: "u".to_owned(), resource_version: "7".to_owned(), digest: 0, ours: true };
        let body = json!({ "metadata": { "labels": { "a": "b" } } });
        assert_eq!(
            replacement(&body, &seen),
            json!([
                { "op": "add", "path": "/metadata/uid", "value": "u" },
                { "op": "add", "path": "/metadata/resourceVersion", "value": "7" },
                { "op": "add", "path": "/metadata/labels", "value": { "a": "b" } },
                { "op": "add", "path": "/subsets", "value": [] },
            ])
        );
    }

    #[test]
    fn a_replacement_of_a_slice_sets_all_its_lists() {
        let seen = Seen { uid: "u".to_owned(), resource_version: "7".to_owned(), digest: 0, ours: true };
        let body = json!({ "metadata": {}, "addressType": "IPv4", "endpoints": [], "ports": [] });
        let operations = replacement(&body, &seen);
        let paths: Vec<_> = operations.as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
        assert_eq!(paths, ["/metadata/uid", "/metadata/resourceVersion", "/addressType", "/endpoints", "/ports"]);
    }
}
