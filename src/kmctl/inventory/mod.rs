//! Observed state: what the hosts, Mesos and the API server report.
pub(crate) mod bounds;
pub mod certificates;
mod hosts;
pub mod machine;
pub mod mesos;
pub mod objects;
pub mod units;
pub mod workloads;

pub use hosts::{Found, HostInventoryError, look};
