//! Requests to the API server.
use reqwest::Method;
use serde_json::Value;

use super::AgentError;
use super::access::{self, Access};
use super::files::Root;
use super::http::Http;

/// Owner of the fields in server-side apply.
const FIELD_MANAGER: &str = "kmctl";

/// The API server, reached with a kubeconfig of the host.
pub(super) struct Api {
    http: Http,
    access: Access,
}

impl Api {
    /// None if there is no kubeconfig.
    pub(super) fn open(root: &Root, kubeconfig: &str) -> Result<Option<Self>, AgentError> {
        let Some(access) = access::read(root, kubeconfig)? else { return Ok(None) };
        Ok(Some(Api { http: Http::with_access(&access)?, access }))
    }

    pub(super) fn get(&self, path: &str) -> Result<Option<Value>, String> {
        match self.http.request(Method::GET, &format!("{}{path}", self.access.server), None)? {
            (200, body) => serde_json::from_str(&body).map(Some).map_err(|error| error.to_string()),
            (404, _) => Ok(None),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }

    pub(super) fn merge(&self, path: &str, patch: &Value) -> Result<(), String> {
        let body = serde_json::to_vec(patch).map_err(|error| error.to_string())?;
        let url = format!("{}{path}", self.access.server);
        match self.http.request(Method::PATCH, &url, Some(("application/merge-patch+json", body)))? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }

    pub(super) fn apply(&self, path: &str, object: &Value) -> Result<(), String> {
        let url = format!("{}{path}?fieldManager={FIELD_MANAGER}&force=true", self.access.server);
        let body = serde_json::to_vec(object).map_err(|error| error.to_string())?;
        match self.http.request(Method::PATCH, &url, Some(("application/apply-patch+yaml", body)))? {
            (200 | 201, _) => Ok(()),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }
}

/// The message in an API server's Status object.
fn message(body: &str) -> String {
    serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|status| status["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| body.trim().to_owned())
}
