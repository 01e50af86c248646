//! The fake master's HTTP server, and the test's handle on it.
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::BytesMut;
use futures::Stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::codec::Encoder;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cluster::{AgentSpec, Cluster, Refusal};
use super::pages;
use crate::recordio::{RECORD_LIMIT, RecordIo};
use crate::scheduler::{Call, Event, FrameworkCall, Message};
use crate::transport::{Authentication, STREAM_ID};
use crate::types::{self, AgentId, ExecutorId, FrameworkId, StatusReason, TaskId, TaskState};

/// How a fake master behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between two rounds of offers; one second in Mesos.
    pub allocation_interval: Duration,
    /// Time between two heartbeats; 15 seconds in Mesos.
    pub heartbeat_interval: Duration,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Credentials that clients must authenticate with.
    pub authentication: Authentication,
    /// Requires authentication for `/state` and similar pages as well (`--authenticate_http_readonly`).
    pub authenticate_readers: bool,
    /// Tasks remain staging until the test reports their states.
    pub manual: bool,
    /// `host:port` of the leader, if this master is not the leader: everything is redirected there.
    pub redirect_to: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allocation_interval: Duration::from_millis(20),
            heartbeat_interval: Duration::from_secs(15),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            authentication: Authentication::None,
            authenticate_readers: false,
            manual: false,
            redirect_to: None,
        }
    }
}

/// A master in this process. Dropping it closes its port and every stream.
pub struct FakeMaster {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    cluster: Mutex<Cluster>,
    options: Options,
    address: SocketAddr,
    heartbeats: std::sync::atomic::AtomicBool,
}

impl Shared {
    /// A poisoned lock must not hide a panicking test.
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeMaster {
    /// Starts a master, by default on a free port of 127.0.0.1.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let cluster = Cluster {
            address: Some(address),
            master_id: uuid::Uuid::new_v4().to_string(),
            heartbeat: options.heartbeat_interval,
            manual: options.manual,
            ..Cluster::default()
        };
        let shared = Arc::new(Shared {
            cluster: Mutex::new(cluster),
            options,
            address,
            heartbeats: std::sync::atomic::AtomicBool::new(true),
        });
        let router = Router::new()
            .route("/api/v1/scheduler", post(scheduler))
            .route("/api/v1", post(operator))
            .route("/state", get(state))
            .route("/weights", get(weights))
            .route("/quota", get(quota))
            .route("/{process}/flags", get(agent_flags))
            .route("/{process}/api/v1", post(agent_operator))
            .route("/metrics/snapshot", get(|| async { axum::Json(json!({})) }))
            .with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
        tokio::spawn(tick(Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// `host:port` of the master.
    pub fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// Adds an agent, which is offered from the next allocation on.
    pub fn add_agent(&self, spec: AgentSpec) -> AgentId {
        self.shared.cluster().add_agent(spec)
    }

    /// Removes an agent, as if it were lost.
    pub fn remove_agent(&self, agent: &AgentId) {
        self.shared.cluster().remove_agent(agent);
    }

    /// Reports a task's state as its executor would.
    pub fn report(&self, task: &TaskId, state: TaskState, message: Option<&str>) {
        let mut cluster = self.shared.cluster();
        if let Some(framework) = cluster.framework_of(task) {
            cluster.report(&framework, task, state, None, message.map(str::to_owned), None);
        }
    }

    /// The same, with data for the framework.
    pub fn report_with_data(&self, task: &TaskId, state: TaskState, data: Option<types::Bytes>) {
        let mut cluster = self.shared.cluster();
        if let Some(framework) = cluster.framework_of(task) {
            cluster.report(&framework, task, state, None, None, data);
        }
    }

    /// Sends a message to the framework as an executor would.
    pub fn message(&self, executor: &ExecutorId, data: types::Bytes) {
        let cluster = self.shared.cluster();
        if let Some((framework, agent_id)) = cluster.locate(executor)
            && let Some(framework) = cluster.frameworks.get(&framework)
        {
            framework.send(Event::Message { message: Message { agent_id, executor_id: executor.clone(), data } });
        }
    }

    /// Ends an executor as a crash does: its tasks are gone.
    pub fn crash_executor(&self, executor: &ExecutorId) {
        let mut cluster = self.shared.cluster();
        if let Some((framework, agent)) = cluster.locate(executor) {
            let reason = Some(StatusReason::ExecutorTerminated);
            cluster.end_executor(&framework, &agent, executor, TaskState::Gone, reason, 9);
        }
    }

    /// Breaks every stream; frameworks remain until their failover timeout.
    pub fn disconnect_all(&self) {
        let mut cluster = self.shared.cluster();
        let now = Instant::now();
        let streams: Vec<_> = cluster
            .frameworks
            .iter()
            .filter_map(|(id, framework)| Some((id.clone(), framework.stream.as_ref()?.0.clone())))
            .collect();
        for (id, stream) in streams {
            cluster.disconnect(&id, &stream, now);
        }
    }

    /// Rescinds all offers.
    pub fn rescind_all(&self) {
        let mut cluster = self.shared.cluster();
        let frameworks: Vec<FrameworkId> = cluster.frameworks.keys().cloned().collect();
        for framework in frameworks {
            cluster.rescind_all(&framework, true);
        }
    }

    /// Stops the heartbeats; streams remain open.
    pub fn stop_heartbeats(&self) {
        self.shared.heartbeats.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    /// Calls that were accepted so far, without subscriptions.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.cluster().calls.clone()
    }
}

async fn tick(shared: Arc<Shared>, stop: CancellationToken) {
    let mut allocation = tokio::time::interval(shared.options.allocation_interval);
    let mut heartbeat = tokio::time::interval(shared.options.heartbeat_interval);
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                shared.cluster().frameworks.clear();
                return;
            }
            _ = allocation.tick() => {
                let mut cluster = shared.cluster();
                cluster.expire(Instant::now());
                cluster.allocate(Instant::now());
            }
            _ = heartbeat.tick() => {
                if shared.heartbeats.load(std::sync::atomic::Ordering::Relaxed) {
                    for framework in shared.cluster().frameworks.values() {
                        framework.send(Event::Heartbeat);
                    }
                }
            }
        }
    }
}

/// The principal, or a redirect to the leader, or a refusal of an unauthenticated request.
fn admit(shared: &Shared, headers: &HeaderMap, path: &str) -> Result<Option<String>, Box<Response>> {
    if let Some(leader) = &shared.options.redirect_to {
        let location = format!("//{leader}{path}");
        return Err(Box::new((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response()));
    }
    let wanted = shared.options.authentication.header().ok().flatten();
    if wanted.as_ref().is_some_and(|wanted| headers.get(header::AUTHORIZATION) != Some(wanted)) {
        return Err(Box::new((StatusCode::UNAUTHORIZED, "401 Unauthorized.").into_response()));
    }
    Ok(shared.options.authentication.principal().map(str::to_owned))
}

fn refuse(refusal: Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, refusal.message).into_response()
}

async fn scheduler(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let principal = match admit(&shared, &headers, "/api/v1/scheduler") {
        Ok(principal) => principal,
        Err(response) => return *response,
    };
    let FrameworkCall { framework_id, call } = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(error) => return refuse(Refusal::new(400, format!("Failed to parse body into JSON: {error}"))),
    };
    if let Call::Subscribe { subscribe } = call {
        if framework_id != subscribe.framework_info.id {
            let message =
                "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'";
            return refuse(Refusal::new(400, message));
        }
        let subscribed = shared.cluster().subscribe(subscribe, principal.as_deref());
        return match subscribed {
            Err(refusal) => refuse(refusal),
            Ok((id, stream_id, events)) => {
                let guard = StreamGuard { shared, id, stream_id: stream_id.clone() };
                let body = Body::from_stream(records(events, guard));
                ([(header::CONTENT_TYPE.as_str(), "application/json"), (STREAM_ID, &stream_id)], body).into_response()
            }
        };
    }
    let Some(id) = framework_id else {
        return refuse(Refusal::new(400, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"));
    };
    let stream_id = headers.get(STREAM_ID).and_then(|value| value.to_str().ok());
    let outcome = shared.cluster().call(&id, stream_id, call, Instant::now());
    match outcome {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn operator(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    // As the defaults of a real master: only frameworks must authenticate, but a master that is not the leader
    // redirects.
    if shared.options.redirect_to.is_some()
        && let Err(response) = admit(&shared, &headers, "/api/v1")
    {
        return *response;
    }
    let Ok(call) = serde_json::from_slice(&body) else {
        return refuse(Refusal::new(400, "Failed to parse body into JSON"));
    };
    let outcome = shared.cluster().operate(&call);
    match outcome {
        Ok(Some(reply)) => axum::Json(reply).into_response(),
        Ok(None) => StatusCode::OK.into_response(),
        Err(refusal) => refuse(refusal),
    }
}

async fn state(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let authenticates = shared.options.authentication.principal().is_some();
    let page = shared.cluster().state_page(authenticates);
    read(State(shared), headers, "/state", page)
}

async fn weights(shared: State<Arc<Shared>>, headers: HeaderMap) -> Response {
    read(shared, headers, "/weights", json!([]))
}

async fn quota(shared: State<Arc<Shared>>, headers: HeaderMap) -> Response {
    read(shared, headers, "/quota", json!({"infos": []}))
}

async fn agent_flags(State(shared): State<Arc<Shared>>, Path(process): Path<String>, headers: HeaderMap) -> Response {
    read(State(shared), headers, &format!("/{process}/flags"), pages::agent_flags(&process))
}

async fn agent_operator(State(shared): State<Arc<Shared>>, Path(process): Path<String>, body: Bytes) -> Response {
    let Ok(call) = serde_json::from_slice(&body) else {
        return refuse(Refusal::new(400, "Failed to parse body into JSON"));
    };
    match shared.cluster().operate_agent(&process, &call) {
        Ok(reply) => axum::Json(reply).into_response(),
        Err(refusal) => refuse(refusal),
    }
}

/// Returns `page` if the client may read it.
fn read(State(shared): State<Arc<Shared>>, headers: HeaderMap, path: &str, page: Value) -> Response {
    if (shared.options.authenticate_readers || shared.options.redirect_to.is_some())
        && let Err(response) = admit(&shared, &headers, path)
    {
        return *response;
    }
    axum::Json(page).into_response()
}

/// Disconnects the framework when the reader of its stream is gone.
struct StreamGuard {
    shared: Arc<Shared>,
    id: FrameworkId,
    stream_id: String,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.shared.cluster().disconnect(&self.id, &self.stream_id, Instant::now());
    }
}

/// Events as a stream of records; `guard` lives as long as the stream.
pub(super) fn records<E: Serialize + Send + 'static, G: Send + 'static>(
    events: UnboundedReceiver<E>,
    guard: G,
) -> impl Stream<Item = io::Result<bytes::Bytes>> + Send {
    futures::stream::unfold((events, guard), |(mut events, guard)| async move {
        let event = events.recv().await?;
        let record = serde_json::to_vec(&event).map_err(io::Error::other).and_then(|json| {
            let mut record = BytesMut::new();
            RecordIo::new(RECORD_LIMIT).encode(json.as_slice(), &mut record).map_err(io::Error::other)?;
            Ok(record.freeze())
        });
        Some((record, (events, guard)))
    })
}
