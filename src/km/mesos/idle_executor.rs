//! `km mesos idle-executor`: an executor whose tasks only hold their resources, and answer on their ports with the
//! task's id.
use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::CommandError;
use mesos::executor::{DriverEvent, ExecutorDriver, ExecutorEnvironment, ShutdownReason};
use mesos::types::{TaskInfo, TaskState, TaskStatus};

/// Longest wait for the acknowledgements of the last states.
const FLUSH: Duration = Duration::from_secs(3);

/// Runs until the agent requests the shutdown or is permanently lost.
pub(super) async fn run(stop: CancellationToken) -> Result<(), CommandError> {
    let environment = ExecutorEnvironment::from_env()?;
    let flush = FLUSH.min(environment.shutdown_grace_period);
    let (driver, mut events) = ExecutorDriver::start(environment)?;
    let mut tasks = BTreeMap::new();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => DriverEvent::Shutdown(ShutdownReason::Asked),
            event = events.recv() => match event {
                Some(event) => event,
                None => return Ok(()),
            },
        };
        match event {
            DriverEvent::Launch(task) => {
                let ports = listen(&task).await;
                for state in [TaskState::Starting, TaskState::Running] {
                    driver.update(TaskStatus::new(task.task_id.clone(), state)).await;
                }
                tasks.insert(task.task_id, ports);
            }
            DriverEvent::Kill { task_id, .. } => {
                tasks.remove(&task_id);
                driver.update(TaskStatus::new(task_id, TaskState::Killed)).await;
            }
            DriverEvent::Shutdown(ShutdownReason::AgentGone) => return Ok(()),
            DriverEvent::Shutdown(ShutdownReason::Asked) => {
                for (task_id, _) in std::mem::take(&mut tasks) {
                    driver.update(TaskStatus::new(task_id, TaskState::Killed)).await;
                }
                driver.flush(flush).await;
                return Ok(());
            }
            DriverEvent::Error(message) => tracing::warn!(message, "rejected by the agent"),
            DriverEvent::Connected(_) | DriverEvent::Disconnected | DriverEvent::Message(_) => {}
        }
    }
}

/// Answers on the task's ports until the result is dropped.
async fn listen(task: &TaskInfo) -> Vec<AbortOnDropHandle<()>> {
    let granted = task.resources.iter().filter(|resource| resource.name == "ports");
    let mut serving = Vec::new();
    for port in granted.flat_map(|resource| resource.intervals()).flat_map(|(begin, end)| begin..=end) {
        let Ok(port) = u16::try_from(port) else { continue };
        match TcpListener::bind(("0.0.0.0", port)).await {
            Ok(listener) => serving
                .push(AbortOnDropHandle::new(tokio::spawn(answer(listener, format!("{}\n", task.task_id.as_str()))))),
            Err(error) => tracing::warn!(port, %error, "an allocated port is in use by another process"),
        }
    }
    serving
}

async fn answer(listener: TcpListener, text: String) {
    loop {
        // A failed accept, e.g. of a caller that has disconnected, does not end the server.
        if let Ok((mut caller, _)) = listener.accept().await {
            let _ = caller.write_all(text.as_bytes()).await;
        }
    }
}
