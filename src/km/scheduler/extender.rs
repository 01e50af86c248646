//! The scheduler extender for kube-scheduler: an HTTP server with client certificates. It parses the requests, sends
//! them to the core and returns the core's answers. It has no knowledge of its own. If another host leads, it forwards
//! them to that host.
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use super::decide::{Answer, Event, RequestId};
use super::metrics::Metrics;
use super::standby::{self, Forwarder, Leadership, StandbyError, is_named};
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::Summary;
use kmctl_core::protocol::scheduler::{EXTENDER_CLIENT, ExtenderServer};

/// kube-scheduler's timeout of filter and prioritize is 2 s. A later answer is useless.
const QUICK: Duration = Duration::from_millis(1900);

/// kube-scheduler's timeout of bind is 120 s.
const SLOW: Duration = Duration::from_secs(118);

/// A client that has not finished its TLS handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The largest request: a pod is at most 1.5 MB, and node names are short.
const BODY_LIMIT: usize = 16 << 20;

/// A request to the core, and where to send its answer.
#[derive(Debug)]
pub struct Question {
    /// The event for the core.
    pub event: Event,
    pub request: RequestId,
    /// Receives the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ExtenderError {
    /// A certificate or key file cannot be read.
    #[error("failed to read {path}")]
    Pem {
        path: String,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not match, or a CA certificate is invalid.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
    /// The CA of the clients is unusable.
    #[error("failed to set up the verification of client certificates")]
    Clients(#[source] rustls::server::VerifierBuilderError),
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The client for the other hosts cannot be set up.
    #[error(transparent)]
    Standby(#[from] StandbyError),
}

#[derive(Clone)]
struct Shared {
    standing: watch::Receiver<Leadership>,
    forwarder: Option<Forwarder>,
    next: Arc<AtomicU64>,
    pod_defaults: Amount,
    summary: watch::Receiver<Summary>,
    metrics: Arc<Metrics>,
}

/// Extender arguments (`extender/v1`), only the used ones. That version gives its Go fields no JSON names, so they
/// arrive in Go's spelling. Go ignores the case when it parses the response.
#[derive(Deserialize)]
struct Arguments {
    #[serde(rename = "Pod", alias = "pod")]
    pod: Pod,
    #[serde(default, rename = "NodeNames", alias = "nodenames")]
    nodenames: Option<Vec<String>>,
    #[serde(default, rename = "Nodes", alias = "nodes")]
    nodes: Option<Value>,
}

impl Arguments {
    /// Node names, from either form of the arguments.
    fn names(&self) -> Vec<String> {
        match (&self.nodenames, &self.nodes) {
            (Some(names), _) => names.clone(),
            (None, Some(nodes)) => items(nodes).filter_map(|node| name_of(node).map(str::to_owned)).collect(),
            (None, None) => Vec::new(),
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

fn name_of(node: &Value) -> Option<&str> {
    node.pointer("/metadata/name").and_then(Value::as_str)
}

#[derive(Serialize)]
struct FilterResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodenames: Option<Vec<String>>,
    #[serde(rename = "failedNodes")]
    failed_nodes: BTreeMap<String, &'static str>,
    error: String,
}

#[derive(Serialize)]
struct HostPriority {
    host: String,
    score: i64,
}

#[derive(Deserialize)]
struct BindArguments {
    #[serde(rename = "PodUID", alias = "podUID")]
    pod_uid: String,
    #[serde(rename = "Node", alias = "node")]
    node: String,
}

#[derive(Serialize)]
struct BindResult {
    error: String,
}

/// The server. It listens already, so that a wrong address is detected at once.
pub struct Extender {
    listeners: Vec<TcpListener>,
    tls: TlsAcceptor,
    shared: Shared,
}

impl Extender {
    /// Reads the certificates and listens.
    pub async fn bind(
        settings: &ExtenderServer,
        pod_defaults: Amount,
        standing: watch::Receiver<Leadership>,
        summary: watch::Receiver<Summary>,
        metrics: Arc<Metrics>,
    ) -> Result<Extender, ExtenderError> {
        let tls = TlsAcceptor::from(Arc::new(tls(settings)?));
        let addresses = std::iter::once(settings.listen).chain(settings.peers.as_ref().map(|peers| peers.listen));
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.map_err(|source| ExtenderError::Listen(address, source))?);
        }
        let forwarder = settings.peers.as_ref().map(|peers| Forwarder::new(settings, peers)).transpose()?;
        let shared = Shared { standing, forwarder, next: Arc::default(), pod_defaults, summary, metrics };
        Ok(Extender { listeners, tls, shared })
    }

    /// Serves indefinitely.
    pub async fn serve(self) {
        let Extender { listeners, tls, shared } = self;
        futures::future::join_all(listeners.into_iter().map(|listener| accept(listener, &tls, &shared))).await;
    }
}

async fn accept(listener: TcpListener, tls: &TlsAcceptor, shared: &Shared) {
    // Every node has a certificate of the same authority. Only kube-scheduler and the other hosts may send requests to
    // the core.
    let (questions, figures) = (router(shared.clone()), figures(shared.clone()));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For example out of file descriptors: pause instead of a busy loop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, questions, figures) = (tls.clone(), questions.clone(), figures.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let may_ask = shown.is_some_and(|certificate| is_named(certificate, EXTENDER_CLIENT));
            let router = if may_ask { questions } else { figures };
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(router);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the extender ended");
            }
        });
    }
}

fn tls(settings: &ExtenderServer) -> Result<rustls::ServerConfig, ExtenderError> {
    let pem = |path: &std::path::Path, source| ExtenderError::Pem { path: path.display().to_string(), source };
    let certificates = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, ExtenderError> {
        CertificateDer::pem_file_iter(path).and_then(|all| all.collect()).map_err(|source| pem(path, source))
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&settings.client_ca_file)? {
        roots.add(certificate).map_err(ExtenderError::Tls)?;
    }
    let clients =
        rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(ExtenderError::Clients)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key_file).map_err(|source| pem(&settings.key_file, source))?;
    rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&settings.cert_file)?, key)
        .map_err(ExtenderError::Tls)
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/filter", post(filter))
        .route("/prioritize", post(prioritize))
        .route("/bind", post(bind))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), pass_on))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared.clone())
        .merge(figures(shared))
}

/// The routes that every client may read.
fn figures(shared: Shared) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/state", get(state)).with_state(shared)
}

/// Time limit for a request, including forwarding.
fn patience(path: &str) -> Duration {
    if path == "/bind" { SLOW } else { QUICK }
}

/// Lets this process answer a request if it leads, and forwards the request to the leader otherwise.
async fn pass_on(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let leader = match &*shared.standing.borrow() {
        Leadership::Leads(_) => None,
        Leadership::Follows(leader) => Some(*leader),
    };
    let Some(leader) = leader else { return next.run(request).await };
    if standby::left(request.headers()).is_some() {
        return standby::retry_later("this km-scheduler is no longer the leader");
    }
    let (Some(leader), Some(forwarder)) = (leader, &shared.forwarder) else {
        return standby::retry_later("no km-scheduler is the leader");
    };
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    match axum::body::to_bytes(body, BODY_LIMIT).await {
        Ok(body) => forwarder.forward(leader, &path, body, patience(&path)).await,
        Err(_) => (StatusCode::BAD_REQUEST, "failed to parse the request").into_response(),
    }
}

impl Shared {
    async fn ask(&self, patience: Duration, event: impl FnOnce(RequestId) -> Event) -> Option<Answer> {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let question = Question { event: event(request), request, answer };
        // The core continues with a bind even if the client has disconnected: the next bind request joins it.
        let Leadership::Leads(questions) = self.standing.borrow().clone() else { return None };
        let asked = tokio::time::timeout(patience, async move {
            questions.send(question).await.ok()?;
            answered.await.ok()
        });
        asked.await.ok().flatten()
    }
}

/// The time that is left for a forwarded request, otherwise all of it.
fn within(headers: &HeaderMap, all: Duration) -> Duration {
    standby::left(headers).map_or(all, |left| left.min(all))
}

async fn filter(State(shared): State<Shared>, headers: HeaderMap, Json(arguments): Json<Arguments>) -> Response {
    shared.metrics.question("filter");
    let names = arguments.names();
    let Some(pod) = PodFacts::new(&arguments.pod, shared.pod_defaults) else {
        return (StatusCode::BAD_REQUEST, "the pod has no UID").into_response();
    };
    let event = |request| Event::Filter { request, pod: Box::new(pod), nodes: names };
    let Some(Answer::Filter { kept, failed }) = shared.ask(within(&headers, QUICK), event).await else {
        return unavailable();
    };
    let nodes = arguments.nodes.filter(|_| arguments.nodenames.is_none()).map(|mut list| {
        let items: Vec<Value> = items(&list)
            .filter(|node| name_of(node).is_some_and(|name| kept.iter().any(|kept| kept == name)))
            .cloned()
            .collect();
        list["items"] = Value::Array(items);
        list
    });
    let nodenames = nodes.is_none().then_some(kept);
    let failed_nodes = failed.into_iter().map(|(name, reason)| (name, reason.text())).collect();
    Json(FilterResult { nodes, nodenames, failed_nodes, error: String::new() }).into_response()
}

async fn prioritize(State(shared): State<Shared>, headers: HeaderMap, Json(arguments): Json<Arguments>) -> Response {
    shared.metrics.question("prioritize");
    let names = arguments.names();
    let event = |request| Event::Prioritize { request, nodes: names };
    let Some(Answer::Prioritize(scores)) = shared.ask(within(&headers, QUICK), event).await else {
        return unavailable();
    };
    Json(scores.into_iter().map(|(host, score)| HostPriority { host, score }).collect::<Vec<_>>()).into_response()
}

async fn bind(State(shared): State<Shared>, headers: HeaderMap, Json(arguments): Json<BindArguments>) -> Response {
    shared.metrics.question("bind");
    let BindArguments { pod_uid, node } = arguments;
    let event = |request| Event::Bind { request, uid: pod_uid, node };
    let error = match shared.ask(within(&headers, SLOW), event).await {
        Some(Answer::Bind(error)) => error.unwrap_or_default(),
        _ => "no response from km-scheduler in time".to_owned(),
    };
    Json(BindResult { error }).into_response()
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "no response from km-scheduler in time").into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.encode(&shared.summary.borrow().clone());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

async fn state(State(shared): State<Shared>) -> Response {
    Json(shared.summary.borrow().clone()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::json;
    use tokio::sync::mpsc;
    use tower::ServiceExt;

    use super::*;
    use crate::scheduler::decide::Refused;

    async fn asked(path: &str, body: Value, answer: Answer) -> (StatusCode, Value, Event) {
        let (questions, mut asked) = mpsc::channel(1);
        let (_, standing) = watch::channel(Leadership::Leads(questions));
        let (_, summary) = watch::channel(Summary::default());
        let shared = Shared {
            standing,
            forwarder: None,
            next: Arc::default(),
            pod_defaults: Amount::new(250, 64),
            summary,
            metrics: Arc::new(Metrics::new()),
        };
        let request = axum::http::Request::post(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let core = tokio::spawn(async move {
            let question: Question = asked.recv().await.unwrap();
            question.answer.send(answer).unwrap();
            question.event
        });
        let response = router(shared).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap(), core.await.unwrap())
    }

    #[tokio::test]
    async fn reasons_go_to_kube_scheduler_word_for_word() {
        let answer = Answer::Filter {
            kept: vec!["n1".into()],
            failed: BTreeMap::from([("n2".to_owned(), Refused::NotOffered)]),
        };
        let pod = json!({"metadata": {"uid": "u", "name": "p", "namespace": "d"}, "spec": {"containers": []}});
        let (status, body, event) =
            asked("/filter", json!({"Pod": pod, "Nodes": null, "NodeNames": ["n1", "n2"]}), answer).await;
        assert_eq!(status, StatusCode::OK);
        let expected = json!({"nodenames": ["n1"], "error": "",
            "failedNodes": {"n2": "Mesos: too little cpu or memory offered"}});
        assert_eq!(body, expected);
        let Event::Filter { pod, nodes, .. } = event else { panic!("{event:?}") };
        assert_eq!((pod.full_name(), nodes), ("d/p".to_owned(), vec!["n1".to_owned(), "n2".to_owned()]));
    }

    #[tokio::test]
    async fn a_scheduler_without_a_cache_gets_its_nodes_back() {
        let answer = Answer::Filter { kept: vec!["n1".into()], failed: BTreeMap::new() };
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": []}});
        let nodes = json!({"items": [{"metadata": {"name": "n1"}}, {"metadata": {"name": "n2"}}]});
        let (_, body, _) = asked("/filter", json!({"pod": pod, "nodes": nodes}), answer).await;
        assert_eq!(body["nodes"]["items"], json!([{"metadata": {"name": "n1"}}]));
    }

    #[tokio::test]
    async fn bind_says_what_went_wrong() {
        let arguments = json!({"PodName": "p", "PodNamespace": "d", "PodUID": "u", "Node": "n1"});
        let (_, body, event) = asked("/bind", arguments, Answer::Bind(Some("node is leaving".into()))).await;
        assert_eq!(body, json!({"error": "node is leaving"}));
        assert!(matches!(event, Event::Bind { uid, node, .. } if uid == "u" && node == "n1"));
    }

    /// The response of a km scheduler that does not lead.
    async fn refused(leader: Option<SocketAddr>, left: Option<&str>) -> (StatusCode, String) {
        let (_, standing) = watch::channel(Leadership::Follows(leader));
        let (_, summary) = watch::channel(Summary::default());
        let (pod_defaults, metrics) = (Amount::new(250, 64), Arc::new(Metrics::new()));
        let shared = Shared { standing, forwarder: None, next: Arc::default(), pod_defaults, summary, metrics };
        let mut request = axum::http::Request::post("/filter").header("content-type", "application/json");
        if let Some(left) = left {
            request = request.header("x-kmctl-milliseconds-left", left);
        }
        let response = router(shared).oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn without_a_leader_or_passed_on_twice_a_question_is_to_be_asked_again() {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(refused(None, None).await, (unavailable, "no km-scheduler is the leader".to_owned()));
        let leader = Some("192.0.2.11:10270".parse().unwrap());
        let twice = refused(leader, Some("1800")).await;
        assert_eq!(twice, (unavailable, "this km-scheduler is no longer the leader".to_owned()));
    }

    #[test]
    fn a_question_that_was_passed_on_has_only_the_time_that_is_left() {
        let mut headers = HeaderMap::new();
        assert_eq!(within(&headers, QUICK), QUICK);
        headers.insert("x-kmctl-milliseconds-left", "700".parse().unwrap());
        assert_eq!(within(&headers, QUICK), Duration::from_millis(700));
        headers.insert("x-kmctl-milliseconds-left", "70000".parse().unwrap());
        assert_eq!(within(&headers, QUICK), QUICK);
    }

    /// Creates the files of authority, server and clients in a directory, and the settings that name them.
    fn settings(folder: &std::path::Path, client: &str, port: u16) -> ExtenderServer {
        let now = jiff::Timestamp::now();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        if !folder.join("ca.crt").exists() {
            let key = kmctl_core::pki::new_key().unwrap();
            write("ca.key", &key);
            write("ca.crt", &kmctl_core::pki::authority("kubernetes", &key, now).unwrap());
        }
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        for (name, common_name, server) in [("server", "km-scheduler", true), (client, client, false)] {
            let key = kmctl_core::pki::new_key().unwrap();
            let names = if server { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
            let common_name = common_name.to_owned();
            let leaf = kmctl_core::pki::LeafSpec { common_name, organization: None, names, server, client: !server };
            let signed = kmctl_core::pki::leaf(&leaf, &key, &read("ca.crt"), &read("ca.key"), now).unwrap();
            write(&format!("{name}.key"), &key);
            write(&format!("{name}.crt"), &signed);
        }
        let at = |name: String| folder.join(name);
        ExtenderServer {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: Some(kmctl_core::protocol::scheduler::PeerServer {
                listen: SocketAddr::from(([127, 0, 0, 1], port)),
                cert_file: at(format!("{client}.crt")),
                key_file: at(format!("{client}.key")),
            }),
            cert_file: at("server.crt".to_owned()),
            key_file: at("server.key".to_owned()),
            client_ca_file: at("ca.crt".to_owned()),
        }
    }

    #[tokio::test]
    async fn the_one_that_leads_answers_the_other_hosts_and_nobody_else() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ours = settings(folder.path(), EXTENDER_CLIENT, free.port());
        let (questions, mut asked) = mpsc::channel::<Question>(1);
        let (_standing, standing) = watch::channel(Leadership::Leads(questions));
        let (_summaries, summary) = watch::channel(Summary::default());
        let leader = Extender::bind(&ours, Amount::new(250, 64), standing, summary, Arc::new(Metrics::new()));
        let serving = tokio::spawn(leader.await.unwrap().serve());
        let core = tokio::spawn(async move {
            let question = asked.recv().await.unwrap();
            question.answer.send(Answer::Prioritize(vec![("n1".into(), 7)])).unwrap();
        });
        let body = json!({"pod": {"metadata": {"uid": "u"}, "spec": {"containers": []}}, "nodenames": ["n1"]});
        let body = axum::body::Bytes::from(body.to_string());
        let second = Duration::from_secs(5);

        let standby = Forwarder::new(&ours, ours.peers.as_ref().unwrap()).unwrap();
        let answer = standby.forward(free, "/prioritize", body.clone(), second).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), json!([{"host": "n1", "score": 7}]));
        core.await.unwrap();

        // A node's certificate is signed by the same authority.
        let theirs = settings(folder.path(), "system:node:agent1", free.port());
        let node = Forwarder::new(&theirs, theirs.peers.as_ref().unwrap()).unwrap();
        let answer = node.forward(free, "/prioritize", body.clone(), second).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);

        serving.abort();
        let _ = serving.await;
        let renewed = Forwarder::new(&ours, ours.peers.as_ref().unwrap()).unwrap();
        let answer = renewed.forward(free, "/bind", body, second).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn prioritize_returns_a_score_per_host() {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": []}});
        let answer = Answer::Prioritize(vec![("n1".into(), 7)]);
        let (_, body, _) = asked("/prioritize", json!({"pod": pod, "nodenames": ["n1"]}), answer).await;
        assert_eq!(body, json!([{"host": "n1", "score": 7}]));
    }
}
