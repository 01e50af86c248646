//! The executor API, `/api/v1/executor` of the agent.
mod driver;
mod environment;
mod messages;
mod outbox;

pub use driver::{DriverEvent, ExecutorDriver, ShutdownReason};
pub use environment::{EnvironmentError, ExecutorEnvironment};
pub use messages::*;
