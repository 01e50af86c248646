//! The interface of the view and the DNS to the API server.
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::deps::DepError;
use super::translate::Resource;

/// One list, as a client requested it. The API server evaluates the selectors, so they are not parsed here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListOf {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version of the group: `v1`.
    pub version: String,
    /// Kind of its objects.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// `labelSelector`; empty for all.
    pub labels: String,
    /// `fieldSelector`; empty for all.
    pub fields: String,
}

impl ListOf {
    /// All Services.
    pub fn services() -> Self {
        ListOf { kind: "Service", plural: "services", ..ListOf::rewritten(Resource::Endpoints, "v1") }
    }

    /// All objects of a resource that the view rewrites.
    pub fn rewritten(resource: Resource, version: &str) -> Self {
        let (group, plural) = match resource {
            Resource::EndpointSlices => ("discovery.k8s.io", "endpointslices"),
            Resource::Endpoints => ("", "endpoints"),
        };
        let (labels, fields) = (String::new(), String::new());
        ListOf { group, version: version.to_owned(), kind: resource.kind(), plural, labels, fields }
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// An event of a list and its watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A list starts.
    Begin,
    /// This object exists or changed; it has `apiVersion` and `kind`.
    Object(Value),
    /// The list is complete.
    End,
    /// This object is gone.
    Gone(Value),
}

/// The API server, with this node's credentials.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends the list's objects and their changes, until the receiver is dropped. Reconnects on its own.
    async fn follow(&self, list: ListOf, told: mpsc::UnboundedSender<Told>);
    /// Passes a request on to the API server, and returns its answer.
    async fn pass(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, DepError>;
}
