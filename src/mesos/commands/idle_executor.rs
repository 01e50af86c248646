//! `km mesos idle-executor`: an executor whose tasks do nothing but hold their resources.
use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::CommandError;
use crate::mesos::executor::{DriverEvent, ExecutorDriver, ExecutorEnvironment, ShutdownReason};
use crate::mesos::types::{TaskState, TaskStatus};

/// Longest wait for the acknowledgements of the last states.
const FLUSH: Duration = Duration::from_secs(3);

/// Runs until the agent says shutdown, or is gone for good.
pub(super) async fn run(stop: CancellationToken) -> Result<(), CommandError> {
    let environment = ExecutorEnvironment::from_env()?;
    let flush = FLUSH.min(environment.shutdown_grace_period);
    let (driver, mut events) = ExecutorDriver::start(environment)?;
    let mut tasks = BTreeSet::new();
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
                for state in [TaskState::Starting, TaskState::Running] {
                    driver.update(TaskStatus::new(task.task_id.clone(), state)).await;
                }
                tasks.insert(task.task_id);
            }
            DriverEvent::Kill { task_id, .. } => {
                tasks.remove(&task_id);
                driver.update(TaskStatus::new(task_id, TaskState::Killed)).await;
            }
            DriverEvent::Shutdown(ShutdownReason::AgentGone) => return Ok(()),
            DriverEvent::Shutdown(ShutdownReason::Asked) => {
                for task_id in std::mem::take(&mut tasks) {
                    driver.update(TaskStatus::new(task_id, TaskState::Killed)).await;
                }
                driver.flush(flush).await;
                return Ok(());
            }
            DriverEvent::Error(message) => tracing::warn!(message, "the agent refused something"),
            DriverEvent::Connected(_) | DriverEvent::Disconnected | DriverEvent::Message(_) => {}
        }
    }
}
