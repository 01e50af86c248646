//! Observed state: what the hosts, Mesos and the API server say is there.
mod hosts;
pub mod machine;
pub mod mesos;
pub mod objects;
pub mod units;

pub use hosts::{HostInventoryError, look};
