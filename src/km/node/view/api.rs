//! [`Upstream`] on a real API server.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::debug;

use super::super::deps::DepError;
use super::upstream::{ListOf, Told, Upstream};
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::text::duration;

/// Timeout for the start of an answer; a watch ends later.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Backoff between relists. Retried until the receiver is gone: names and Services are learned in no other way.
const AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10));

/// Creates clients of the API.
#[async_trait]
pub trait Clients: Send + Sync {
    /// A client with the current certificate, for a server that answers.
    async fn client(&self) -> Result<Client, DepError>;
}

/// [`Upstream`] on the API server.
pub struct ApiUpstream {
    clients: Arc<dyn Clients>,
}

impl ApiUpstream {
    /// With a new client for each request, since certificates are renewed and servers fail.
    pub fn new(clients: Arc<dyn Clients>) -> Self {
        ApiUpstream { clients }
    }

    /// Lists and watches until the stream must be restarted.
    async fn follow_once(
        &self,
        list: &ListOf,
        told: &mpsc::UnboundedSender<Told>,
        retries: &mut Retries,
    ) -> Result<(), DepError> {
        let resource = api_resource(list);
        let (api_version, kind) = (resource.api_version.clone(), resource.kind.clone());
        // In the API's lists, items have no `apiVersion` and `kind`.
        let object = |object: DynamicObject| -> Value {
            let mut object = serde_json::to_value(object).unwrap_or_default();
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            object
        };
        let api: Api<DynamicObject> = Api::all_with(self.clients.client().await?, &resource);
        let selector = |text: &String| (!text.is_empty()).then(|| text.clone());
        let config = watcher::Config {
            label_selector: selector(&list.labels),
            field_selector: selector(&list.fields),
            ..watcher::Config::default()
        };
        let mut stream = watcher(api, config).boxed();
        while let Some(event) = stream.next().await {
            let what = || format!("watch {}", resource.plural);
            let said = match event.map_err(|error| DepError::other(what())(error))? {
                watcher::Event::Init => Told::Begin,
                watcher::Event::InitApply(one) | watcher::Event::Apply(one) => Told::Object(object(one)),
                watcher::Event::InitDone => {
                    retries.reset();
                    Told::End
                }
                watcher::Event::Delete(one) => Told::Gone(object(one)),
            };
            if told.send(said).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn api_resource(list: &ListOf) -> ApiResource {
    ApiResource {
        group: list.group.to_owned(),
        version: list.version.clone(),
        api_version: list.api_version(),
        kind: list.kind.to_owned(),
        plural: list.plural.to_owned(),
    }
}

#[async_trait]
impl Upstream for ApiUpstream {
    async fn follow(&self, list: ListOf, told: mpsc::UnboundedSender<Told>) {
        let mut retries = Retries::new(AGAIN);
        while !told.is_closed() {
            // Errors end it here too: the client may need another server or a new certificate.
            if let Err(error) = self.follow_once(&list, &told, &mut retries).await {
                debug!("watch failed, listing again: {}", error.chain());
                if matches!(error, DepError::NotNow(_)) {
                    // No request was sent: the node's certificate may be issued at any moment.
                    retries.reset();
                }
            }
            tokio::time::sleep(retries.wait()).await;
        }
    }

    async fn pass(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, DepError> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let client = self.clients.client().await?;
        let sent = client.send(request.map(kube::client::Body::from));
        let answer = tokio::time::timeout(ANSWER_LIMIT, sent)
            .await
            .map_err(|_| DepError::NotNow(format!("failed to {what}: no response within {}", duration(ANSWER_LIMIT))))?
            .map_err(DepError::other(what))?;
        Ok(answer.map(|body| Body::new(body.map_err(axum::Error::new))))
    }
}
