//! The operator API, `/api/v1` of masters and agents: what there is, and ending a framework.
mod client;
mod endpoints;
mod messages;

pub use client::{Operator, decode, encode};
pub use endpoints::Endpoints;
pub use messages::*;
