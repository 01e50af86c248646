//! Reads Mesos' operator endpoints through a host.
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use serde::de::DeserializeOwned;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceExt as _};

use crate::host::{Dialer, Host};

/// Limit for one question.
const ANSWER: Duration = Duration::from_secs(15);

/// A redirect names the leader; one more covers an election in between.
const REDIRECTS: usize = 2;

/// Principal and secret. Not `Debug`, so that no message can carry the secret.
#[derive(Clone)]
pub struct Credentials {
    /// Who asks.
    pub principal: String,
    /// Its secret.
    pub secret: String,
}

/// Why Mesos could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum MesosReadError {
    /// The address makes no sense.
    #[error("`{0}` is not the address of a master or agent")]
    Address(String),
    /// The CA cannot be used.
    #[error("set up TLS for Mesos")]
    Tls(#[source] kube::Error),
    /// The CA file is no PEM.
    #[error("read the certificates of {0}")]
    Ca(String),
    /// No connection, or it broke.
    #[error("ask {url}")]
    Ask {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing in time.
    #[error("ask {0}: no answer within {ANSWER:?}")]
    Silent(String),
    /// It said no.
    #[error("{url} answered {status}{}", detail(*.status, .text))]
    Refused {
        /// What was asked.
        url: String,
        /// Its status.
        status: StatusCode,
        /// Its body, shortened.
        text: String,
    },
    /// Its answer makes no sense.
    #[error("understand the answer of {url}")]
    Answer {
        /// What was asked.
        url: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl MesosReadError {
    /// What the operator can do, where it is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            MesosReadError::Refused { status: StatusCode::UNAUTHORIZED, .. } => Some(
                "look whether mesos.principal, and the secret in the file that mesos.secretFile names, are among \
                 Mesos' credentials",
            ),
            MesosReadError::Refused { status: StatusCode::FORBIDDEN, .. } => {
                Some("allow it to the principal in Mesos' ACLs")
            }
            MesosReadError::Ask { .. } | MesosReadError::Silent(_) => Some(
                "look whether the address in spec.mesos.master is right and reachable from the control-plane hosts",
            ),
            _ => None,
        }
    }
}

/// The first line of an answer, unless it only says the status again, as Mesos' `401 Unauthorized.` does.
fn detail(status: StatusCode, text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || line.trim_end_matches('.') == status.to_string() {
        return String::new();
    }
    format!(": {}", line.chars().take(200).collect::<String>())
}

type Http =
    BoxCloneSyncService<Request<Body>, http::Response<hyper::body::Incoming>, hyper_util::client::legacy::Error>;

/// Asks masters and agents.
#[derive(Clone)]
pub struct MesosClient {
    http: Http,
    authorization: Option<String>,
}

impl MesosClient {
    /// Asks from `host`. `ca` is PEM for https masters; without it the operator's own trust store is used.
    pub fn new(
        host: Arc<dyn Host>,
        credentials: Option<Credentials>,
        ca: Option<&str>,
    ) -> Result<Self, MesosReadError> {
        let mut config = kube::Config::new(Uri::from_static("https://localhost"));
        if let Some(pem) = ca {
            let certificates: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pem.as_bytes()).collect();
            let certificates = certificates.map_err(|error| MesosReadError::Ca(error.to_string()))?;
            config.root_cert = Some(certificates.into_iter().map(|certificate| certificate.to_vec()).collect());
        }
        let connector = config.rustls_https_connector_with_connector(Dialer::new(host)).map_err(MesosReadError::Tls)?;
        let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build::<_, Body>(connector);
        let authorization = credentials.map(|Credentials { principal, secret }| {
            format!("Basic {}", STANDARD.encode(format!("{principal}:{secret}")))
        });
        Ok(MesosClient { http: BoxCloneSyncService::new(http), authorization })
    }

    /// Reads `path` at `base`, e.g. `http://10.0.0.5:5050`.
    pub async fn get<T: DeserializeOwned>(&self, base: &str, path: &str) -> Result<T, MesosReadError> {
        self.ask(format!("{base}{path}"), None).await
    }

    /// Makes a call without arguments at `path` of `base`: calls of the v1 API are posted, also those that only ask.
    pub async fn call<T: DeserializeOwned>(&self, base: &str, path: &str, call: &str) -> Result<T, MesosReadError> {
        self.ask(format!("{base}{path}"), Some(serde_json::json!({ "type": call }).to_string())).await
    }

    async fn ask<T: DeserializeOwned>(&self, url: String, call: Option<String>) -> Result<T, MesosReadError> {
        match tokio::time::timeout(ANSWER, self.follow(url.clone(), call)).await {
            Ok(answer) => {
                // A file's piece may begin or end within a letter.
                let text = String::from_utf8_lossy(&answer?).into_owned();
                serde_json::from_str(&text).map_err(|source| MesosReadError::Answer { url, source })
            }
            Err(_) => Err(MesosReadError::Silent(url)),
        }
    }

    async fn follow(&self, mut url: String, call: Option<String>) -> Result<Vec<u8>, MesosReadError> {
        for _ in 0..=REDIRECTS {
            let mut request = match &call {
                Some(_) => Request::post(&url)
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::ACCEPT, "application/json"),
                None => Request::get(&url),
            };
            if let Some(authorization) = &self.authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let body = call.clone().map_or_else(Body::empty, |call| Body::from(call.into_bytes()));
            let request = request.body(body).map_err(|_| MesosReadError::Address(url.clone()))?;
            let failed =
                |source: Box<dyn std::error::Error + Send + Sync>| MesosReadError::Ask { url: url.clone(), source };
            let mut http = self.http.clone();
            let ready = http.ready().await.map_err(|error| failed(error.into()))?;
            let response = ready.call(request).await.map_err(|error| failed(error.into()))?;
            let (parts, body) = response.into_parts();
            let location = parts.headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
            if let (true, Some(location)) = (parts.status.is_redirection(), location) {
                // Mesos names the leader without a scheme.
                let scheme = url.split("//").next().unwrap_or("http:").to_owned();
                url = if location.starts_with("//") { format!("{scheme}{location}") } else { location.to_owned() };
                continue;
            }
            let bytes = body.collect().await.map_err(|error| failed(error.into()))?.to_bytes();
            if !parts.status.is_success() {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Err(MesosReadError::Refused { url, status: parts.status, text });
            }
            return Ok(bytes.to_vec());
        }
        let text = "it redirects in a circle".to_owned();
        Err(MesosReadError::Refused { url, status: StatusCode::TEMPORARY_REDIRECT, text })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::host::LocalHost;

    /// Answers every request with what `reply` makes of it, one connection at a time.
    async fn server(reply: impl Fn(&str) -> String + Send + 'static) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).await.is_err() {
                        break;
                    }
                    seen.push(byte[0]);
                }
                let _ = stream.write_all(reply(&String::from_utf8_lossy(&seen)).as_bytes()).await;
            }
        });
        address
    }

    fn answer(status: &str, more: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn client() -> MesosClient {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let credentials = Credentials { principal: "p".to_owned(), secret: "s".to_owned() };
        MesosClient::new(Arc::new(LocalHost), Some(credentials), None).unwrap()
    }

    #[tokio::test]
    async fn a_standby_master_is_left_for_the_leader_with_the_credentials() {
        let leader = server(|request| {
            // `p:s`.
            let allowed = request.to_lowercase().contains("authorization: basic cdpz");
            if allowed { answer("200 OK", "", r#"{"led":true}"#) } else { answer("401 Unauthorized", "", "") }
        })
        .await;
        let location = format!("location: //{leader}/state\r\n");
        let standby = server(move |_| answer("307 Temporary Redirect", &location, "")).await;
        let seen: serde_json::Value = client().get(&format!("http://{standby}"), "/state").await.unwrap();
        assert_eq!(seen, serde_json::json!({ "led": true }));
    }

    #[tokio::test]
    async fn a_refusal_tells_status_and_reason_and_a_circle_ends() {
        let refusing = server(|_| answer("403 Forbidden", "", "not you\nreally")).await;
        let error = client().get::<serde_json::Value>(&format!("http://{refusing}"), "/state").await.unwrap_err();
        assert_eq!(error.to_string(), format!("http://{refusing}/state answered 403 Forbidden: not you"));
        let circle = server(|request| {
            let host = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default().to_owned();
            answer("307 Temporary Redirect", &format!("location: //{host}/state\r\n"), "")
        })
        .await;
        let error = client().get::<serde_json::Value>(&format!("http://{circle}"), "/state").await.unwrap_err();
        assert!(error.to_string().ends_with("it redirects in a circle"), "{error}");
    }
}
