//! Observed state: what the hosts, Mesos and the API server say is there.
mod hosts;

pub use hosts::{HostInventoryError, look};
