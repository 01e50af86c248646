//! Observed state: what the hosts, Mesos and the API server report.
pub(crate) mod bounds;
pub mod certificates;
mod etcd_data;
mod hosts;
pub mod machine;
pub mod mesos;
pub mod objects;
mod ownership;
pub mod units;
pub mod workloads;

pub use hosts::{Bare, Found, HostInventoryError, look};
