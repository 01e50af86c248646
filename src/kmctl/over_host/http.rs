//! HTTP over connections that a host opens: TLS and credentials end here, the host only carries bytes.
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt as _};

use crate::host::{Dialer, Host};

/// Time limit for one request.
const ANSWER: Duration = Duration::from_secs(15);

/// An HTTP client that connects through a host.
pub(super) type Http =
    BoxCloneSyncService<http::Request<Body>, http::Response<hyper::body::Incoming>, hyper_util::client::legacy::Error>;

/// Why a request to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The certificates to trust cannot be used.
    #[error("failed to set up TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection could not be established, or it broke.
    #[error("failed to query {url}")]
    Ask {
        /// The requested URL.
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The status is no success.
    #[error("{url} returned {status}")]
    Refused {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: http::StatusCode,
    },
}

/// Connects from `host`. `authority` is the PEM of the authorities to trust in place of the operator's own store.
pub(super) fn client(host: Arc<dyn Host>, authority: Option<&str>) -> Result<Http, HttpError> {
    let mut config = kube::Config::new(http::Uri::from_static("https://localhost"));
    if let Some(pem) = authority {
        let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
        let certificates = certificates.map_err(|error| HttpError::Tls(error.into()))?;
        config.root_cert = Some(certificates.into_iter().map(|certificate| certificate.to_vec()).collect());
    }
    let connector = config.rustls_https_connector_with_connector(Dialer::new(host));
    let connector = connector.map_err(|error| HttpError::Tls(error.into()))?;
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build::<_, Body>(connector);
    Ok(BoxCloneSyncService::new(http))
}

/// Reads JSON at `url` from `host`, without credentials.
pub async fn get_json<T: DeserializeOwned>(host: Arc<dyn Host>, url: &str) -> Result<T, HttpError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::Ask { url: url.to_owned(), source };
    let request = http::Request::get(url).body(Body::empty()).map_err(|error| failed(error.into()))?;
    let mut http = client(host, None)?;
    let asked = async {
        let ready = http.ready().await.map_err(|error| failed(error.into()))?;
        let response = ready.call(request).await.map_err(|error| failed(error.into()))?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            return Err(HttpError::Refused { url: url.to_owned(), status: parts.status });
        }
        let bytes = body.collect().await.map_err(|error| failed(error.into()))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    };
    tokio::time::timeout(ANSWER, asked).await.map_err(|elapsed| failed(elapsed.into()))?
}
