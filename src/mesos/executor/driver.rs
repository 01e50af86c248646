//! Keeps an executor subscribed with its agent across the agent's restarts.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::environment::ExecutorEnvironment;
use super::outbox::Outbox;
use super::{Call, Event, ExecutorCall, Message, Subscribed, Update};
use crate::error::MesosError;
use crate::stream::Events;
use crate::transport::{Authentication, HttpSettings, HttpTransport, Request, Transport, TransportError};
use crate::types::{Bytes, KillPolicy, TaskId, TaskInfo, TaskStatus};

/// Pause between attempts to subscribe. By default a restarted agent destroys executors that do not reconnect within
/// two seconds, so the pause is short and does not grow.
const RETRY: Duration = Duration::from_millis(400);

/// Limit for SUBSCRIBED to arrive.
const SUBSCRIBED_TIMEOUT: Duration = Duration::from_secs(10);

/// Capacity of the queues of commands and events; enough for every task of a node at once.
const QUEUE: usize = 1024;

/// An event for the executor.
#[derive(Clone, Debug, PartialEq)]
pub enum DriverEvent {
    /// The executor is subscribed with the agent. Repeated after each restart of the agent.
    Connected(Box<Subscribed>),
    /// The agent is gone. With checkpointing the driver keeps trying; tasks must keep running too.
    Disconnected,
    /// A task to start. Sent once per task as long as none of its states was acknowledged.
    Launch(Box<TaskInfo>),
    /// A task to stop.
    Kill {
        /// Task to stop.
        task_id: TaskId,
        /// Replaces the task's own kill policy.
        kill_policy: Option<KillPolicy>,
    },
    /// A message from the framework.
    Message(Bytes),
    /// The agent refused something; for the log.
    Error(String),
    /// Stop all tasks, report them, then exit.
    Shutdown(ShutdownReason),
}

/// Why an executor has to exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// Requested by the agent or the framework; states are still delivered.
    Asked,
    /// The agent did not return within the recovery timeout, or the framework does not checkpoint. The driver has
    /// stopped, and nothing is delivered any more.
    AgentGone,
}

enum Command {
    Update(Box<TaskStatus>),
    Message(Bytes),
}

/// The executor's handle on the driver. Clones share it; when the last is dropped, the driver stops and closes the
/// stream.
#[derive(Clone, Debug)]
pub struct ExecutorDriver {
    commands: mpsc::Sender<Command>,
    /// Number of states that were reported and not acknowledged.
    waiting: Arc<watch::Sender<usize>>,
}

impl ExecutorDriver {
    /// Starts the driver.
    pub fn start(environment: ExecutorEnvironment) -> Result<(Self, mpsc::Receiver<DriverEvent>), TransportError> {
        let settings = HttpSettings {
            authentication: match &environment.authentication_token {
                Some(token) => Authentication::Bearer(token.clone()),
                None => Authentication::None,
            },
            ca_pem: None,
            unix_socket: environment.domain_socket.clone(),
        };
        let transport = HttpTransport::new(&format!("http://{}", environment.agent_endpoint), &settings)?;
        let (commands, command_receiver) = mpsc::channel(QUEUE);
        let (event_sender, events) = mpsc::channel(QUEUE);
        let waiting = Arc::new(watch::Sender::new(0));
        let driver = Loop {
            path: format!("{}/api/v1/executor", environment.agent_path),
            environment,
            transport,
            outbox: Outbox::default(),
            commands: command_receiver,
            events: event_sender,
            waiting: Arc::clone(&waiting),
        };
        tokio::spawn(driver.run());
        Ok((Self { commands, waiting }, events))
    }

    /// Reports a task's state. It is sent at once if the agent is connected, otherwise after the next subscription, and
    /// repeated until it is acknowledged. The driver sets source, executor id, uuid and time.
    pub async fn update(&self, status: TaskStatus) {
        // Counted here and not in the loop, so that `flush` sees states that are still queued.
        self.waiting.send_modify(|count| *count += 1);
        // Sending fails only after Shutdown(AgentGone), when there is no agent left to report to.
        let _ = self.commands.send(Command::Update(Box::new(status))).await;
    }

    /// Sends a message to the framework; it may be lost.
    pub async fn message(&self, data: Bytes) {
        let _ = self.commands.send(Command::Message(data)).await;
    }

    /// Waits until the agent has acknowledged every state. Returns false if that did not happen in time.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let mut waiting = self.waiting.subscribe();
        tokio::time::timeout(timeout, waiting.wait_for(|count| *count == 0)).await.is_ok_and(|result| result.is_ok())
    }
}

/// Why the driver's loop ends.
enum End {
    /// The driver or the receiver of its events was dropped.
    Dropped,
    /// The agent did not return.
    AgentGone,
}

struct Loop {
    environment: ExecutorEnvironment,
    path: String,
    transport: HttpTransport,
    outbox: Outbox,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<DriverEvent>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Loop {
    async fn run(mut self) {
        let end = loop {
            let mut stream = match self.connect().await {
                Ok(stream) => stream,
                Err(end) => break end,
            };
            if let Err(end) = self.serve(&mut stream).await {
                break end;
            }
            drop(stream);
            if self.tell(DriverEvent::Disconnected).await.is_err() {
                break End::Dropped;
            }
            if !self.environment.checkpoint {
                warn!("the agent is gone, and the framework has no checkpointing");
                break End::AgentGone;
            }
            // An agent that accepts connections and closes them at once must not be contacted in a tight loop.
            if let Err(end) = self.pause(self.retry_pause()).await {
                break end;
            }
        };
        if let End::AgentGone = end {
            let _ = self.events.send(DriverEvent::Shutdown(ShutdownReason::AgentGone)).await;
        }
    }

    /// Subscribes, and retries until the recovery timeout.
    async fn connect(&mut self) -> Result<Events, End> {
        let deadline = Instant::now() + self.environment.recovery_timeout;
        let mut reported = None;
        loop {
            match self.subscribe().await {
                Ok((stream, subscribed)) => {
                    info!(agent = %subscribed.agent_info.hostname, "subscribed with the agent");
                    self.tell(DriverEvent::Connected(subscribed)).await?;
                    return Ok(stream);
                }
                Err(error) => {
                    debug!(error = &error as &dyn std::error::Error, "subscribe with the agent");
                    // A missing agent is not reported. A refusal is, once.
                    let message = error.to_string();
                    if !error.is_transient() && reported.as_ref() != Some(&message) {
                        self.tell(DriverEvent::Error(message.clone())).await?;
                        reported = Some(message);
                    }
                }
            }
            if Instant::now() >= deadline {
                warn!(timeout = ?self.environment.recovery_timeout, "the agent did not return in time");
                return Err(End::AgentGone);
            }
            self.pause(self.retry_pause()).await?;
        }
    }

    fn retry_pause(&self) -> Duration {
        RETRY.min(self.environment.subscription_backoff_max)
    }

    /// Waits, and accepts commands meanwhile, so that a missing agent does not block a caller that reports a state.
    async fn pause(&mut self, pause: Duration) -> Result<(), End> {
        let until = Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.commands.recv()).await {
                Err(_) => return Ok(()),
                Ok(None) => return Err(End::Dropped),
                Ok(Some(Command::Update(status))) => {
                    self.stamp(*status);
                }
                Ok(Some(Command::Message(_))) => debug!("message lost: the agent is not connected"),
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(Events, Box<Subscribed>), MesosError> {
        let request = self.request(Call::Subscribe { subscribe: self.outbox.subscribe() })?;
        let reply = self.transport.send(request).await?;
        if reply.status != 200 {
            return Err(MesosError::refusal(&self.transport, None, "SUBSCRIBE", reply).await);
        }
        let mut stream = Events::new(reply.body, self.transport.target());
        let first = tokio::time::timeout(SUBSCRIBED_TIMEOUT, stream.next::<Event>()).await;
        match first {
            Err(_) => {
                let target = self.transport.target().to_owned();
                Err(MesosError::Silent { target, silence: SUBSCRIBED_TIMEOUT })
            }
            Ok(Ok(Event::Subscribed { subscribed })) => Ok((stream, subscribed)),
            Ok(Ok(Event::Error { error })) => Err(MesosError::Subscription { message: error.message }),
            Ok(Ok(_)) => Err(MesosError::Subscription { message: "the first event was not SUBSCRIBED".into() }),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Serves one subscription until it fails.
    async fn serve(&mut self, stream: &mut Events) -> Result<(), End> {
        loop {
            // States first: an agent that sends events without pause must not delay the answers to its earlier
            // requests.
            let alive = tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return Err(End::Dropped),
                    Some(command) => self.send(command).await?,
                },
                event = stream.next::<Event>() => match event {
                    Ok(event) => self.receive(event).await?,
                    Err(error) => {
                        info!(error = &error as &dyn std::error::Error, "event stream of the agent ended");
                        false
                    }
                },
            };
            if !alive {
                return Ok(());
            }
        }
    }

    /// Sends a command. Returns false if a new subscription is needed, which also sends what is not acknowledged.
    async fn send(&mut self, command: Command) -> Result<bool, End> {
        let (call, uuid) = match command {
            Command::Update(status) => {
                let update = self.stamp(*status);
                let uuid = update.status.uuid.clone();
                (Call::Update { update }, uuid)
            }
            Command::Message(data) => (Call::Message { message: Message { data } }, None),
        };
        let Err(error) = self.call(call).await else { return Ok(true) };
        // Only a call that the agent rejects as invalid remains invalid. Any other error, including "not subscribed"
        // from a restarted agent, is fixed by a new subscription.
        if !matches!(error, MesosError::Refused { status: 400, .. }) {
            info!(error = &error as &dyn std::error::Error, "the agent rejected a call");
            return Ok(false);
        }
        if uuid.is_some() {
            let settled = self.outbox.refused(uuid.as_ref());
            self.settled(settled);
        }
        self.tell(DriverEvent::Error(error.to_string())).await?;
        Ok(true)
    }

    async fn receive(&mut self, event: Event) -> Result<bool, End> {
        match event {
            Event::Launch { launch } => {
                if self.outbox.launched(&launch.task) {
                    self.tell(DriverEvent::Launch(Box::new(launch.task))).await?;
                }
            }
            Event::Kill { kill } => {
                self.tell(DriverEvent::Kill { task_id: kill.task_id, kill_policy: kill.kill_policy }).await?;
            }
            Event::Acknowledged { acknowledged } => {
                let settled = self.outbox.acknowledged(&acknowledged);
                self.settled(settled);
            }
            Event::Message { message } => self.tell(DriverEvent::Message(message.data)).await?,
            Event::Shutdown => self.tell(DriverEvent::Shutdown(ShutdownReason::Asked)).await?,
            Event::Error { error } => {
                // Mesos requires a new subscription after an error.
                self.tell(DriverEvent::Error(error.message)).await?;
                return Ok(false);
            }
            Event::Subscribed { .. } | Event::Heartbeat => {}
            Event::Unknown => warn!("unknown event"),
        }
        Ok(true)
    }

    fn stamp(&mut self, status: TaskStatus) -> Update {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.outbox.stamped(status, &self.environment.executor_id, Bytes::random_uuid(), now)
    }

    /// Subtracts this many states from the ones that wait for an acknowledgement.
    fn settled(&self, states: usize) {
        self.waiting.send_modify(|count| *count = count.saturating_sub(states));
    }

    async fn call(&self, call: Call) -> Result<(), MesosError> {
        let name = match &call {
            Call::Update { .. } => "UPDATE",
            _ => "MESSAGE",
        };
        let reply = self.transport.send(self.request(call)?).await?;
        match reply.status {
            200 | 202 => Ok(()),
            _ => Err(MesosError::refusal(&self.transport, None, name, reply).await),
        }
    }

    fn request(&self, call: Call) -> Result<Request, MesosError> {
        let call = ExecutorCall {
            executor_id: self.environment.executor_id.clone(),
            framework_id: self.environment.framework_id.clone(),
            call,
        };
        let body = serde_json::to_vec(&call).map_err(|source| MesosError::Encode { what: "a call", source })?;
        Ok(Request::post(self.path.clone(), body))
    }

    async fn tell(&self, event: DriverEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeAgent;
    use crate::types::TaskState;

    async fn next(events: &mut mpsc::Receiver<DriverEvent>) -> DriverEvent {
        tokio::time::timeout(Duration::from_secs(5), events.recv()).await.expect("an event in time").expect("a driver")
    }

    fn task(id: &str) -> TaskInfo {
        TaskInfo { task_id: id.into(), ..TaskInfo::default() }
    }

    /// An agent, and a driver that is subscribed with it.
    async fn connected() -> (FakeAgent, ExecutorDriver, mpsc::Receiver<DriverEvent>) {
        let agent = FakeAgent::start().await.unwrap();
        let (driver, mut events) = ExecutorDriver::start(agent.environment()).unwrap();
        assert!(matches!(next(&mut events).await, DriverEvent::Connected(_)));
        assert!(matches!(agent.next_call().await, Some(Call::Subscribe { .. })));
        (agent, driver, events)
    }

    #[tokio::test]
    async fn what_an_agent_has_not_acknowledged_is_told_again_after_its_restart() {
        let (agent, driver, mut events) = connected().await;
        agent.set_acknowledging(false);
        for id in ["a", "b"] {
            agent.launch(task(id));
            assert_eq!(next(&mut events).await, DriverEvent::Launch(Box::new(task(id))));
        }
        for id in ["a", "b"] {
            driver.update(TaskStatus::new(id, TaskState::Running)).await;
        }
        let Some(Call::Update { update: first }) = agent.next_call().await else { panic!("no update") };
        let Some(Call::Update { update: second }) = agent.next_call().await else { panic!("no update") };
        agent.acknowledge(&first.status);
        // The acknowledgement has arrived once the event after it has.
        agent.send(Event::Message { message: Message { data: Bytes(vec![1]) } });
        assert_eq!(next(&mut events).await, DriverEvent::Message(Bytes(vec![1])));

        agent.go_down();
        assert_eq!(next(&mut events).await, DriverEvent::Disconnected);
        driver.update(TaskStatus::new("a", TaskState::Finished)).await;
        agent.come_back();
        assert!(matches!(next(&mut events).await, DriverEvent::Connected(_)));
        let mut told = Vec::new();
        while let Some(call) = agent.next_call().await {
            match call {
                Call::Subscribe { subscribe } => {
                    assert_eq!(subscribe.unacknowledged_tasks, [task("b")]);
                    assert_eq!(subscribe.unacknowledged_updates[0], second);
                    told.extend(subscribe.unacknowledged_updates.into_iter().map(|update| update.status.state));
                }
                Call::Update { update } => told.push(update.status.state),
                other => panic!("{other:?}"),
            }
            if told.len() == 2 {
                break;
            }
        }
        assert_eq!(told, [TaskState::Running, TaskState::Finished]);
    }

    #[tokio::test]
    async fn a_task_that_a_restarted_agent_sends_again_is_launched_once() {
        let (agent, _driver, mut events) = connected().await;
        agent.launch(task("a"));
        agent.launch(task("a"));
        agent.kill("a".into());
        assert!(matches!(next(&mut events).await, DriverEvent::Launch(_)));
        assert_eq!(next(&mut events).await, DriverEvent::Kill { task_id: "a".into(), kill_policy: None });
    }

    #[tokio::test]
    async fn flush_waits_for_the_last_acknowledgement() {
        let (agent, driver, _events) = connected().await;
        assert!(driver.flush(Duration::ZERO).await);
        agent.set_acknowledging(false);
        driver.update(TaskStatus::new("a", TaskState::Killed)).await;
        assert!(!driver.flush(Duration::from_millis(50)).await);
        let Some(Call::Update { update }) = agent.next_call().await else { panic!("no update") };
        agent.acknowledge(&update.status);
        assert!(driver.flush(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn an_agent_that_does_not_come_back_ends_the_executor() {
        let agent = FakeAgent::start().await.unwrap();
        let recovery_timeout = Duration::from_millis(100);
        let environment = ExecutorEnvironment { recovery_timeout, ..agent.environment() };
        let (_driver, mut events) = ExecutorDriver::start(environment).unwrap();
        assert!(matches!(next(&mut events).await, DriverEvent::Connected(_)));
        drop(agent);
        // The port is closed; connections that were open are closed by ending the stream.
        let mut seen = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(5), events.recv()).await {
            seen.push(event);
        }
        assert_eq!(seen, [DriverEvent::Disconnected, DriverEvent::Shutdown(ShutdownReason::AgentGone)]);
    }

    #[tokio::test]
    async fn without_checkpointing_the_first_disconnection_ends_the_executor() {
        let agent = FakeAgent::start().await.unwrap();
        let environment = ExecutorEnvironment { checkpoint: false, ..agent.environment() };
        let (_driver, mut events) = ExecutorDriver::start(environment).unwrap();
        assert!(matches!(next(&mut events).await, DriverEvent::Connected(_)));
        agent.go_down();
        assert_eq!(next(&mut events).await, DriverEvent::Disconnected);
        assert_eq!(next(&mut events).await, DriverEvent::Shutdown(ShutdownReason::AgentGone));
    }
}
