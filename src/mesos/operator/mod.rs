//! The operator API, `/api/v1` of masters and agents: queries, and the teardown of a framework.
mod client;
mod endpoints;
mod messages;

pub use client::{Operator, decode, encode};
pub use endpoints::Endpoints;
pub use messages::*;
