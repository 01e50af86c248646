//! An agent with one executor, which implements the executor API.
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::server::records;
use crate::executor::{Acknowledged, Call, Event, ExecutorCall, ExecutorEnvironment, Kill, Launch, Subscribed};
use crate::types::{TaskId, TaskInfo, TaskStatus};

/// A call of the executor; [`FakeAgent::next_call`] returns them in order.
pub type AgentCall = Call;

/// An agent in this process. Dropping it closes its port.
pub struct FakeAgent {
    shared: Arc<Shared>,
    address: SocketAddr,
    calls: tokio::sync::Mutex<UnboundedReceiver<Call>>,
    _stop: DropGuard,
}

struct Shared {
    state: Mutex<Inner>,
    calls: UnboundedSender<Call>,
}

struct Inner {
    stream: Option<UnboundedSender<Event>>,
    down: bool,
    acknowledge: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.go_down();
    }
}

impl FakeAgent {
    /// Starts an agent on a free port of 127.0.0.1. It acknowledges states by itself.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, calls) = unbounded_channel();
        let state = Mutex::new(Inner { stream: None, down: false, acknowledge: true });
        let shared = Arc::new(Shared { state, calls: sender });
        let router = Router::new().route("/slave(1)/api/v1/executor", post(executor)).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
        Ok(Self { shared, address, calls: tokio::sync::Mutex::new(calls), _stop: stop.drop_guard() })
    }

    /// The environment of the agent's executor.
    pub fn environment(&self) -> ExecutorEnvironment {
        ExecutorEnvironment {
            agent_endpoint: self.address.to_string(),
            agent_path: "/slave(1)".into(),
            framework_id: "framework".into(),
            executor_id: "executor".into(),
            directory: None,
            sandbox: None,
            checkpoint: true,
            recovery_timeout: Duration::from_secs(60),
            subscription_backoff_max: Duration::from_millis(20),
            shutdown_grace_period: Duration::from_secs(5),
            authentication_token: None,
            domain_socket: None,
        }
    }

    /// Sends any event to the executor.
    pub fn send(&self, event: Event) {
        if let Some(stream) = &self.shared.state().stream {
            let _ = stream.send(event);
        }
    }

    /// Sends a task to launch.
    pub fn launch(&self, task: TaskInfo) {
        self.send(Event::Launch { launch: Box::new(Launch { task }) });
    }

    /// Kills a task.
    pub fn kill(&self, task_id: TaskId) {
        self.send(Event::Kill { kill: Kill { task_id, kill_policy: None } });
    }

    /// Acknowledges a state.
    pub fn acknowledge(&self, status: &TaskStatus) {
        let uuid = status.uuid.clone().unwrap_or_default();
        self.send(Event::Acknowledged { acknowledged: Acknowledged { task_id: status.task_id.clone(), uuid } });
    }

    /// Sets whether states are acknowledged as they arrive.
    pub fn set_acknowledging(&self, acknowledge: bool) {
        self.shared.state().acknowledge = acknowledge;
    }

    /// Breaks the stream and answers every call with 503, as a recovering agent does.
    pub fn go_down(&self) {
        let mut state = self.shared.state();
        state.stream = None;
        state.down = true;
    }

    /// Makes the agent available again.
    pub fn come_back(&self) {
        self.shared.state().down = false;
    }

    /// The executor's next call; none if there is no call within five seconds.
    pub async fn next_call(&self) -> Option<Call> {
        tokio::time::timeout(Duration::from_secs(5), self.calls.lock().await.recv()).await.ok().flatten()
    }
}

async fn executor(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let call: ExecutorCall = match serde_json::from_slice(&body) {
        Ok(call) => call,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    if shared.state().down {
        return (StatusCode::SERVICE_UNAVAILABLE, "Agent has not finished recovery").into_response();
    }
    let _ = shared.calls.send(call.call.clone());
    match call.call {
        Call::Subscribe { subscribe } => {
            let (sender, events) = unbounded_channel();
            let mut subscribed = Subscribed::default();
            subscribed.executor_info.executor_id = call.executor_id;
            subscribed.agent_info.hostname = "fake".into();
            let _ = sender.send(Event::Subscribed { subscribed: Box::new(subscribed) });
            let mut state = shared.state();
            if state.acknowledge {
                for update in &subscribe.unacknowledged_updates {
                    let _ = sender.send(acknowledged(&update.status));
                }
            }
            state.stream = Some(sender);
            let body = Body::from_stream(records(events, ()));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Call::Update { update } => {
            let state = shared.state();
            let Some(stream) = state.stream.as_ref() else {
                return (StatusCode::FORBIDDEN, "Executor is not subscribed").into_response();
            };
            if state.acknowledge {
                let _ = stream.send(acknowledged(&update.status));
            }
            StatusCode::ACCEPTED.into_response()
        }
        Call::Message { .. } | Call::Heartbeat | Call::Unknown => StatusCode::ACCEPTED.into_response(),
    }
}

fn acknowledged(status: &TaskStatus) -> Event {
    let uuid = status.uuid.clone().unwrap_or_default();
    Event::Acknowledged { acknowledged: Acknowledged { task_id: status.task_id.clone(), uuid } }
}
