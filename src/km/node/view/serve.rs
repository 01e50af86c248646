//! The view's HTTP server: TLS on loopback, with a token that only this node's kube-proxy is given.
//!
//! A plain port would not be safe: the view acts with the node's credentials, and every process of the machine can
//! reach loopback, including pods on the host's network. For the same reason it passes on only the requests that a
//! proxy needs.
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::response::Response;
use futures::stream;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rand::Rng;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::deps::DepError;
use super::lists::{Lists, WatchOptions, status};
use super::translate::Resource;
use super::upstream::{ListOf, Upstream};

/// Timeout of the TLS handshake, after which the client is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Limit in bytes of a request that is passed on; the largest is an event.
const BODY_LIMIT: usize = 1 << 20;
/// Request headers that matter to the API server.
const HANDED_ON: [header::HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_ENCODING, header::CONTENT_TYPE, header::USER_AGENT];
/// Response headers that matter to the client.
const HANDED_BACK: [header::HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::RETRY_AFTER];

/// A server with a bound listener.
pub struct LocalApiServer {
    listener: TcpListener,
    tls: TlsAcceptor,
    /// `https://127.0.0.1:port`.
    pub url: String,
    /// The server's self-signed certificate, PEM.
    pub certificate: String,
    /// The client's credential. Must never be logged or passed as an argument.
    pub token: String,
}

impl LocalApiServer {
    /// Listens on a free loopback port, with a new certificate and token.
    pub fn open() -> Result<LocalApiServer, DepError> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        LocalApiServer::on(listener.map_err(DepError::io("listen on loopback for kube-proxy"))?)
    }

    /// The same with an existing loopback listener.
    pub fn on(listener: std::net::TcpListener) -> Result<LocalApiServer, DepError> {
        let what = "create the certificate of the local API";
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(DepError::other(what))?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|why| DepError::Refused(format!("{what}: {why}")))?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(DepError::other(what))?;
        let what = "listen on loopback for kube-proxy";
        listener.set_nonblocking(true).map_err(DepError::io(what))?;
        let listener = TcpListener::from_std(listener).map_err(DepError::io(what))?;
        let address: SocketAddr = listener.local_addr().map_err(DepError::io(what))?;
        let random: [u8; 24] = rand::rng().random();
        Ok(LocalApiServer {
            listener,
            tls: TlsAcceptor::from(Arc::new(tls)),
            url: format!("https://{address}"),
            certificate: made.cert.pem(),
            token: hex::encode(random),
        })
    }

    /// Serves until dropped.
    pub async fn serve(self, lists: Lists, upstream: Arc<dyn Upstream>) {
        let shared = Arc::new(Shared { lists, upstream, token: Sha256::digest(self.token.as_bytes()).to_vec() });
        let router = Router::new().fallback(answer).with_state(shared);
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // For example out of file descriptors: pause instead of looping.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (tls, router) = (self.tls.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = TowerToHyperService::new(router);
                if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "a connection to the local API ended");
                }
            });
        }
    }
}

struct Shared {
    lists: Lists,
    upstream: Arc<dyn Upstream>,
    /// Hash of the token: the duration of comparing hashes reveals nothing about the token.
    token: Vec<u8>,
}

/// How a request is handled.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    /// Answered from a list.
    List(Resource, String),
    /// Passed on to the API server.
    Pass,
    /// Refused, because a proxy does not need it.
    Refuse,
}

fn route(method: &Method, path: &str) -> Route {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, parts.as_slice()) {
        (&Method::GET, ["api", version, "endpoints"]) => Route::List(Resource::Endpoints, (*version).to_owned()),
        (&Method::GET, ["apis", "discovery.k8s.io", version, "endpointslices"]) => {
            Route::List(Resource::EndpointSlices, (*version).to_owned())
        }
        (&Method::GET, ["version" | "api" | "apis"] | ["api", _] | ["apis", _] | ["apis", _, _]) => Route::Pass,
        (&Method::GET, ["api", _, "services" | "nodes"] | ["api", _, "nodes", _]) => Route::Pass,
        (&Method::GET, ["apis", "networking.k8s.io", _, "servicecidrs"]) => Route::Pass,
        (&Method::POST, ["api", _, "namespaces", _, "events"]) => Route::Pass,
        (&Method::POST, ["apis", "events.k8s.io", _, "namespaces", _, "events"]) => Route::Pass,
        _ => Route::Refuse,
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if Sha256::digest(token.as_bytes()).as_slice() != shared.token {
        return refuse(401, "Unauthorized", "the local API is only for kube-proxy of this node");
    }
    match route(request.method(), request.uri().path()) {
        Route::List(resource, version) => list(&shared.lists, resource, version, request).await,
        Route::Pass => pass(shared.upstream.as_ref(), request).await,
        Route::Refuse => {
            let text = format!("the local API does not support {} {}", request.method(), request.uri().path());
            refuse(403, "Forbidden", &text)
        }
    }
}

async fn list(lists: &Lists, resource: Resource, version: String, request: Request) -> Response {
    if !takes_json(request.headers()) {
        return refuse(406, "NotAcceptable", "objects are available only as application/json");
    }
    let (watch, labels, fields, options) = match asked(request.uri()) {
        Ok(asked) => asked,
        Err(why) => return refuse(400, "BadRequest", &why),
    };
    let Some(followed) = lists.get(resource, ListOf { labels, fields, ..ListOf::rewritten(resource, &version) }).await
    else {
        return refuse(503, "ServiceUnavailable", "list not received from the API server yet");
    };
    if !watch {
        return match followed.list(options.version) {
            Ok(text) => json(StatusCode::OK, Body::from(text)),
            Err(expired) => refuse(410, "Expired", &expired.to_string()),
        };
    }
    match followed.watch(&options) {
        Err(expired) => refuse(410, "Expired", &expired.to_string()),
        Ok(watching) => {
            let lines = stream::unfold(watching, async |mut watching| {
                let line: Bytes = watching.next().await?;
                Some((Ok::<_, std::convert::Infallible>(line), watching))
            });
            json(StatusCode::OK, Body::from_stream(lines))
        }
    }
}

/// Whether it is a watch, the label and field selectors, and the other options.
fn asked(uri: &Uri) -> Result<(bool, String, String, WatchOptions), String> {
    let Query(asked) = Query::<HashMap<String, String>>::try_from_uri(uri).map_err(|error| error.to_string())?;
    let text = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let flag = |key: &str| matches!(asked.get(key).map(String::as_str), Some("true" | "1"));
    let number = |key: &str| match asked.get(key).map(String::as_str) {
        None | Some("") => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("{key} {text:?} is not a number")),
    };
    let options = WatchOptions {
        version: number("resourceVersion")?.filter(|version| *version != 0),
        bookmarks: flag("allowWatchBookmarks"),
        initial: flag("sendInitialEvents"),
        limit: number("timeoutSeconds")?.map(Duration::from_secs),
    };
    Ok((flag("watch"), text("labelSelector"), text("fieldSelector"), options))
}

/// Clients that prefer protobuf list the other types that they accept; those that accept nothing else cannot be served.
fn takes_json(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if accepted.peek().is_none() {
        return true;
    }
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        // `as=Table` requests another representation.
        matches!(kind, "*/*" | "application/*" | "application/json") && !parts.any(|part| part.starts_with("as="))
    })
}

async fn pass(upstream: &dyn Upstream, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return refuse(413, "RequestEntityTooLarge", "request too large for the local API");
    };
    let mut handed_on = http::Request::new(body.to_vec());
    *handed_on.method_mut() = parts.method;
    // Without scheme and host, which are the view's own.
    let target = parts.uri.path_and_query().map(|target| target.as_str()).unwrap_or("/");
    *handed_on.uri_mut() = target.parse().unwrap_or_default();
    copy(&HANDED_ON, &parts.headers, handed_on.headers_mut());
    match upstream.pass(handed_on).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let mut response = Response::new(body);
            *response.status_mut() = parts.status;
            copy(&HANDED_BACK, &parts.headers, response.headers_mut());
            response
        }
        Err(error) => refuse(503, "ServiceUnavailable", &error.chain()),
    }
}

fn copy(names: &[header::HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

fn json(code: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn refuse(code: u16, reason: &str, message: &str) -> Response {
    let text = status(code, reason, message).to_string();
    json(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Body::from(text))
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
