//! Everything that runs inside the cluster, as parts of one program, `km`:
//!
//! - [`scheduler`]: the Mesos framework; [`node`]: the node agent, a Mesos executor, with its plugin [`cni`];
//! - [`endpoints`]: Services in terms of granted host ports;
//! - [`host`]: what kmctl runs on a control-plane host; [`mesos`]: what people and scripts run by hand.
pub mod cni;
pub mod endpoints;
pub mod host;
pub mod mesos;
pub mod node;
mod program;
pub mod scheduler;

pub use program::main;
