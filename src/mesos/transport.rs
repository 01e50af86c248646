//! One request and its reply, independent of the connection. The clients encode calls and decode replies. A transport
//! carries them: [`HttpTransport`] over TCP or a Unix socket, or any other implementation of [`Transport`] (the
//! operator's tool connects through SSH).
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};

/// Name of the header that ties calls to a subscription.
pub const STREAM_ID: &str = "mesos-stream-id";

/// Limit for opening a connection: a server that does not answer is reported within three seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Limit for the head of a reply to arrive. A busy master answers GET_STATE late, but not this late.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest body that is read as a whole; a master's state with ten thousand tasks is about 50 MB.
const BODY_LIMIT: usize = 256 << 20;

/// A secret that is never shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// How a client authenticates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authentication {
    /// No authentication.
    #[default]
    None,
    /// For frameworks and operators.
    Basic {
        /// Name that the secret belongs to.
        principal: String,
        /// Secret of the principal.
        secret: Secret,
    },
    /// For executors, with the token from their agent.
    Bearer(Secret),
}

impl Authentication {
    /// The name to show in messages.
    pub fn principal(&self) -> Option<&str> {
        match self {
            Self::Basic { principal, .. } => Some(principal),
            Self::None | Self::Bearer(_) => None,
        }
    }

    /// Value of the `Authorization` header.
    pub fn header(&self) -> Result<Option<HeaderValue>, TransportError> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { principal, secret } => {
                format!("Basic {}", STANDARD.encode(format!("{principal}:{}", secret.0)))
            }
            Self::Bearer(token) => format!("Bearer {}", token.0),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|source| TransportError::new("encode the secret for the Authorization header", source))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A request: GET without a body, POST of JSON with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Path, starting with `/`.
    pub path: String,
    /// JSON to post.
    pub body: Option<Vec<u8>>,
    /// Identifier of the subscription that the call belongs to.
    pub stream_id: Option<String>,
}

impl Request {
    /// A POST of JSON.
    pub fn post(path: impl Into<String>, body: Vec<u8>) -> Self {
        Self { path: path.into(), body: Some(body), stream_id: None }
    }

    /// A GET without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), body: None, stream_id: None }
    }
}

/// A body, read as it arrives.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// A reply whose body may be endless.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Target of a redirect.
    pub location: Option<String>,
    /// Identifier of the subscription.
    pub stream_id: Option<String>,
    /// Body of the reply.
    pub body: Body,
}

impl Reply {
    /// Reads the whole body.
    pub async fn read(self) -> Result<Vec<u8>, TransportError> {
        let mut body = self.body;
        let mut bytes = Vec::new();
        loop {
            let chunk = tokio::time::timeout(REPLY_TIMEOUT, body.try_next())
                .await
                .map_err(|elapsed| TransportError::new("read the response", elapsed))?
                .map_err(|source| TransportError::new("read the response", source))?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if bytes.len() + chunk.len() > BODY_LIMIT {
                let source = io::Error::other(format!("it exceeds {BODY_LIMIT} bytes"));
                return Err(TransportError::new("read the response", source));
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    /// Reads the start of the body as a message for people.
    pub async fn message(self) -> String {
        let text = match self.read().await {
            Ok(bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).trim().to_owned(),
            Err(_) => String::new(),
        };
        if text.is_empty() { "no reason given".to_owned() } else { text }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reply with status {}", self.status)
    }
}

/// A request that got no reply.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what}")]
pub struct TransportError {
    what: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl TransportError {
    /// What was attempted, and why it failed.
    pub fn new(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: source.into() }
    }
}

/// Carries requests to one server.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends a request and waits for the head of its reply.
    async fn send(&self, request: Request) -> Result<Reply, TransportError>;

    /// The server, for messages: a URL without secrets.
    fn target(&self) -> &str;

    /// A transport to another server of the same Mesos cluster, of the same kind and with the same credentials.
    fn other(&self, base: &str) -> Arc<dyn Transport>;
}

/// Settings of [`HttpTransport`] besides the address.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// Credentials of the requests.
    pub authentication: Authentication,
    /// PEM of the CA to trust instead of the system's CAs.
    pub ca_pem: Option<Vec<u8>>,
    /// Unix socket to connect to instead of the URL's host.
    pub unix_socket: Option<PathBuf>,
}

/// HTTP over TCP, TLS or a Unix socket.
#[derive(Clone)]
pub struct HttpTransport {
    base: String,
    client: reqwest::Client,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP to {}", self.base)
    }
}

impl HttpTransport {
    /// A transport to `scheme://host:port`, without a path.
    pub fn new(base: &str, settings: &HttpSettings) -> Result<Self, TransportError> {
        let client = client(base, settings.ca_pem.as_deref(), settings.unix_socket.as_deref())?;
        let authorization = settings.authentication.header()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client, authorization })
    }

    /// A transport with the same settings to another server.
    pub fn to(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// The transport as a trait object.
    pub fn shared(self) -> Arc<dyn Transport> {
        Arc::new(self)
    }
}

fn client(base: &str, ca_pem: Option<&[u8]>, socket: Option<&Path>) -> Result<reqwest::Client, TransportError> {
    // reqwest is built without a TLS provider and would panic. Both binaries install one, but tests may not have.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // No proxy from the environment: masters and agents have internal addresses. No redirects: the clients follow them,
    // because the leader's address must be kept for the calls.
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(15))
        .http1_only();
    if let Some(pem) = ca_pem {
        let certificates = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|source| TransportError::new(format!("read the CA for {base}"), source))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some(path) = socket {
        builder = builder.unix_socket(path);
    }
    builder.build().map_err(|source| TransportError::new(format!("set up HTTP to {base}"), source))
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Reply, TransportError> {
        let Request { path, body, stream_id } = request;
        let url = format!("{}{path}", self.base);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            TransportError::new(format!("connect to {}", self.base), source)
        };
        let mut builder = match body {
            Some(body) => self.client.post(url).header(CONTENT_TYPE, "application/json").body(body),
            None => self.client.get(url),
        };
        builder = builder.header(ACCEPT, "application/json");
        if let Some(value) = &self.authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        if let Some(id) = stream_id {
            builder = builder.header(STREAM_ID, id);
        }
        let reply = tokio::time::timeout(REPLY_TIMEOUT, builder.send())
            .await
            .map_err(|elapsed| failed(elapsed.into()))?
            .map_err(|source| failed(source.without_url().into()))?;
        let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Reply {
            status: reply.status().as_u16(),
            location: header(LOCATION.as_str()),
            stream_id: header(STREAM_ID),
            body: reply.bytes_stream().map_err(|source| io::Error::other(source.without_url())).boxed(),
        })
    }

    fn target(&self) -> &str {
        &self.base
    }

    fn other(&self, base: &str) -> Arc<dyn Transport> {
        self.to(base).shared()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_output_shows_a_secret() {
        let authentication = Authentication::Basic { principal: "p".into(), secret: Secret::new("hunter2") };
        let header = authentication.header().unwrap().unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic cDpodW50ZXIy");
        let settings = HttpSettings { authentication, ..HttpSettings::default() };
        let transport = HttpTransport::new("http://127.0.0.1:1", &settings).unwrap();
        for shown in [format!("{settings:?}"), format!("{transport:?}"), format!("{header:?}")] {
            assert!(!shown.contains("hunter2") && !shown.contains("cDpodW50ZXIy"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let transport = HttpTransport::new("http://127.0.0.1:1", &HttpSettings::default()).unwrap();
        let error = transport.send(Request::get("/x")).await.unwrap_err();
        assert_eq!(error.to_string(), "failed to connect to http://127.0.0.1:1");
    }
}
