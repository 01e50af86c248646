//! Clients of APIs that are reached through a host.
mod http;
mod k8s;
pub mod mesos;

pub use http::{HttpError, get_json};
pub use k8s::{OverHostError, client_over};
