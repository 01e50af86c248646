//! The executor API, `/api/v1/executor` of the agent.
mod messages;

pub use messages::*;
