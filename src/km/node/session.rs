//! The Mesos side of `km node`: subscribes at once, answers the first launch before any slow step, builds the
//! [`NodeAgent`] that the launch describes, and passes orders and task states between it and the Mesos agent.
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::{Order, Report, TaskState};
use super::deps::Executor;
use super::run::NodeAgent;
use super::{once, real, sweep};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::node::spec::{DepsSpec, Place};
use kmctl_core::protocol::launch::{self, Grant, NodeLaunch, RunLaunch, SweepLaunch, TaskData};
use mesos::executor::{DriverEvent, ExecutorDriver, ExecutorEnvironment, Subscribed};
use mesos::transport::TransportError;
use mesos::types::{Bytes, TaskInfo, TaskState as MesosState, TaskStatus};

/// The part of the grace period that is reserved for Mesos to process the last states.
const REPORT_RESERVE: Duration = Duration::from_secs(3);
/// How long the last states may take to be acknowledged.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Why the executor could not serve.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The client of the Mesos agent's API could not be created.
    #[error("failed to communicate with the Mesos agent")]
    Driver(#[source] TransportError),
    /// The agent ended the session before it launched a task.
    #[error("the Mesos agent closed the session before a launch")]
    Nothing,
}

/// Serves as the executor that the environment describes, until its work is done.
pub async fn serve(environment: ExecutorEnvironment, stop: CancellationToken) -> Result<(), SessionError> {
    let grace = environment.shutdown_grace_period.saturating_sub(REPORT_RESERVE);
    let executor_id = environment.executor_id.value.clone();
    let sandbox = environment.directory.clone().unwrap_or_else(|| PathBuf::from("."));
    let (driver, events) = ExecutorDriver::start(environment).map_err(SessionError::Driver)?;
    let executor = Arc::new(MesosExecutor::new(driver, events, stop, grace));
    let container_id = match executor.container_id().await {
        Some(id) => id,
        // Mesos names the sandbox after the container.
        None => sandbox.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    match executor.first().await {
        None => Err(SessionError::Nothing),
        Some((task_id, Work::Node(launch))) => {
            let place = place(executor_id, task_id.clone(), container_id, sandbox);
            info!(node = launch.node_name, cluster = launch.cluster, "starting the node");
            let config = KubeletConfiguration::for_launch(&launch, &place);
            let spec = DepsSpec::for_launch(&launch, &place);
            match real::build(spec, launch.bootstrap_token.clone(), executor.clone()) {
                Ok(deps) => NodeAgent::new(config, deps).run().await,
                Err(error) => executor.end(&task_id, TaskState::Failed, &error.chain()).await,
            }
            Ok(())
        }
        Some((task_id, Work::Sweep(launch))) => {
            let (state, message) = match sweep::sweep(&launch).await {
                Ok(message) => (TaskState::Finished, message),
                Err(error) => (TaskState::Failed, error.chain()),
            };
            executor.end(&task_id, state, &message).await;
            Ok(())
        }
        Some((task_id, Work::Run(launch))) => {
            let place = place(executor_id, task_id.clone(), container_id, sandbox);
            if let Err(error) = once::session::serve(&launch, place, executor.clone()).await {
                executor.end(&task_id, TaskState::Failed, &error.chain()).await;
            }
            Ok(())
        }
    }
}

/// The place of a run on this machine.
pub(super) fn place(executor_id: String, node_task: String, container_id: String, sandbox: PathBuf) -> Place {
    Place {
        executor_id,
        node_task,
        container_id,
        sandbox,
        resolv_conf: resolv_conf(Path::new("/etc/resolv.conf")),
        may_lower_oom_score: may_lower_oom_score(),
        cgroup_v1: Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists(),
    }
}

/// What the first launch uses the executor for.
enum Work {
    Node(Box<NodeLaunch>),
    Sweep(SweepLaunch),
    Run(Box<RunLaunch>),
}

enum Outgoing {
    Status(Box<TaskStatus>),
    Message(Bytes),
    Flush(oneshot::Sender<()>),
}

/// [`Executor`] on a real Mesos agent.
pub(super) struct MesosExecutor {
    events: Mutex<mpsc::Receiver<DriverEvent>>,
    messages: mpsc::UnboundedSender<Bytes>,
    /// Taken by the first caller of `messages`.
    arrived: std::sync::Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    early: Mutex<VecDeque<Order>>,
    stop: CancellationToken,
    stopped: std::sync::atomic::AtomicBool,
    grace: Duration,
}

impl MesosExecutor {
    fn new(
        driver: ExecutorDriver,
        events: mpsc::Receiver<DriverEvent>,
        stop: CancellationToken,
        grace: Duration,
    ) -> Self {
        let (outgoing, mut queue) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(next) = queue.recv().await {
                match next {
                    Outgoing::Status(status) => driver.update(*status).await,
                    Outgoing::Message(data) => driver.message(data).await,
                    Outgoing::Flush(done) => {
                        if !driver.flush(FLUSH_LIMIT).await {
                            warn!("Mesos has not acknowledged all states");
                        }
                        let _ = done.send(());
                    }
                }
            }
        });
        let (messages, arrived) = mpsc::unbounded_channel();
        MesosExecutor {
            events: Mutex::new(events),
            messages,
            arrived: std::sync::Mutex::new(Some(arrived)),
            outgoing,
            early: Mutex::default(),
            stop,
            stopped: Default::default(),
            grace,
        }
    }

    /// The framework's messages; only the first caller gets them.
    pub(super) fn messages(&self) -> Option<mpsc::UnboundedReceiver<Bytes>> {
        self.arrived.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// Sends a message to the framework; it may get lost.
    pub(super) fn message(&self, data: Bytes) {
        let _ = self.outgoing.send(Outgoing::Message(data));
    }

    /// Reports a complete Mesos status, which may include data.
    pub(super) fn update(&self, status: TaskStatus) {
        let _ = self.outgoing.send(Outgoing::Status(Box::new(status)));
    }

    /// Waits for the subscription and returns the Mesos container's id.
    async fn container_id(&self) -> Option<String> {
        let mut events = self.events.lock().await;
        loop {
            match events.recv().await? {
                DriverEvent::Connected(subscribed) => {
                    let Subscribed { container_id, .. } = *subscribed;
                    return container_id.map(|id| id.value);
                }
                other => {
                    if let Some(order) = self.order(other) {
                        self.early.lock().await.push_back(order);
                    }
                }
            }
        }
    }

    /// The launch that determines the executor's purpose, answered at once. Pods that are launched before it are
    /// queued.
    async fn first(&self) -> Option<(String, Work)> {
        let mut events = self.events.lock().await;
        loop {
            let event = tokio::select! {
                event = events.recv() => event?,
                () = self.stop.cancelled() => return None,
            };
            let DriverEvent::Launch(task) = event else {
                match self.order(event) {
                    Some(Order::Shutdown { .. }) => return None,
                    Some(Order::Kill { task_id, .. }) => {
                        let is_it =
                            |order: &Order| matches!(order, Order::LaunchPod { task_id: pod, .. } if *pod == task_id);
                        self.early.lock().await.retain(|order| !is_it(order));
                        self.send(&task_id, TaskState::Killed, "never started");
                    }
                    Some(order) => self.early.lock().await.push_back(order),
                    None => {}
                }
                continue;
            };
            let task_id = task.task_id.value.clone();
            let work = match decode(&task) {
                Ok(TaskData::Node(launch)) => Work::Node(launch),
                Ok(TaskData::Sweep(launch)) => Work::Sweep(launch),
                Ok(TaskData::Run(launch)) => Work::Run(launch),
                Ok(TaskData::Pod(pod)) => {
                    let grant = granted(&task);
                    self.early.lock().await.push_back(Order::LaunchPod { task_id, pod, grant });
                    continue;
                }
                Err(why) => {
                    self.send(&task_id, TaskState::Failed, &why);
                    continue;
                }
            };
            self.send(&task_id, TaskState::Starting, "");
            return Some((task_id, work));
        }
    }

    /// The order in an event, once the executor has its purpose.
    fn order(&self, event: DriverEvent) -> Option<Order> {
        match event {
            DriverEvent::Launch(task) => {
                let task_id = task.task_id.value.clone();
                match decode(&task) {
                    Ok(TaskData::Pod(pod)) => Some(Order::LaunchPod { task_id, pod, grant: granted(&task) }),
                    Ok(_) => {
                        self.send(&task_id, TaskState::Failed, "the executor already has its node task");
                        None
                    }
                    Err(why) => {
                        self.send(&task_id, TaskState::Failed, &why);
                        None
                    }
                }
            }
            DriverEvent::Kill { task_id, kill_policy } => {
                let grace = kill_policy.and_then(|policy| policy.grace_period).map(|period| period.duration());
                Some(Order::Kill { task_id: task_id.value, grace })
            }
            DriverEvent::Shutdown(reason) => {
                info!(?reason, "stop requested");
                Some(Order::Shutdown { grace: Some(self.grace) })
            }
            DriverEvent::Connected(_) | DriverEvent::Disconnected => None,
            DriverEvent::Message(data) => {
                let _ = self.messages.send(data);
                None
            }
            DriverEvent::Error(why) => {
                warn!("rejected by the Mesos agent: {why}");
                None
            }
        }
    }

    fn send(&self, task_id: &str, state: TaskState, message: &str) {
        self.report(Report { task_id: task_id.to_owned(), state, message: message.to_owned() });
    }

    async fn end(&self, task_id: &str, state: TaskState, message: &str) {
        info!(task_id, ?state, message, "done");
        self.send(task_id, state, message);
        self.flush().await;
    }
}

#[async_trait]
impl Executor for MesosExecutor {
    async fn next(&self) -> Option<Order> {
        if let Some(order) = self.early.lock().await.pop_front() {
            return Some(order);
        }
        let mut events = self.events.lock().await;
        loop {
            let told = self.stopped.load(std::sync::atomic::Ordering::SeqCst);
            let event = tokio::select! {
                event = events.recv() => event?,
                // A signal to this process is handled as an order.
                () = self.stop.cancelled(), if !told => {
                    self.stopped.store(true, std::sync::atomic::Ordering::SeqCst);
                    return Some(Order::Shutdown { grace: Some(self.grace) });
                }
            };
            if let Some(order) = self.order(event) {
                return Some(order);
            }
        }
    }

    fn report(&self, report: Report) {
        self.update(status(report));
    }

    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.outgoing.send(Outgoing::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
    }
}

/// Converts a report to a Mesos status.
pub(super) fn status(report: Report) -> TaskStatus {
    let Report { task_id, state, message } = report;
    let state = match state {
        TaskState::Starting => MesosState::Starting,
        TaskState::Running => MesosState::Running,
        TaskState::Killing => MesosState::Killing,
        TaskState::Finished => MesosState::Finished,
        TaskState::Failed => MesosState::Failed,
        TaskState::Killed => MesosState::Killed,
    };
    let status = TaskStatus::new(task_id, state);
    if message.is_empty() { status } else { status.with_message(message) }
}

fn decode(task: &TaskInfo) -> Result<TaskData, String> {
    let data = task.data.as_ref().map(|data| data.0.as_slice()).unwrap_or_default();
    let data: TaskData = serde_json::from_slice(data).map_err(|error| format!("invalid task data: {error}"))?;
    let format = match &data {
        TaskData::Node(launch) => launch.format,
        TaskData::Pod(launch) => launch.format,
        TaskData::Sweep(launch) => launch.format,
        TaskData::Run(launch) => launch.format,
    };
    if format != launch::FORMAT {
        return Err(format!("unsupported format {format} of task data; supported: {}", launch::FORMAT));
    }
    Ok(data)
}

fn granted(task: &TaskInfo) -> Grant {
    let sum = |name: &str| task.resources.iter().filter(|one| one.name == name).map(|one| one.amount()).sum();
    Grant { cpus: sum("cpus"), mem: sum("mem") }
}

/// The host's resolver file. If it names a resolver on the host's loopback, which would be another one inside a pod,
/// the file that this resolver uses.
fn resolv_conf(usual: &Path) -> PathBuf {
    let behind = Path::new("/run/systemd/resolve/resolv.conf");
    let text = std::fs::read_to_string(usual).unwrap_or_default();
    let local = text.lines().any(|line| line.trim_start().starts_with("nameserver 127."));
    if local && behind.exists() { behind.to_owned() } else { usual.to_owned() }
}

/// Whether CAP_SYS_RESOURCE is effective.
fn may_lower_oom_score() -> bool {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(effective.trim(), 16).unwrap_or(0) & SYS_RESOURCE != 0
}
