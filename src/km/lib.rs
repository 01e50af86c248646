//! Everything that runs inside the cluster, as parts of one binary, `km`:
//!
//! - [`scheduler`]: the Mesos framework; [`node`]: the node agent, a Mesos executor, with its plugin [`cni`];
//! - [`endpoints`]: Endpoints and EndpointSlices of Services, with granted host ports;
//! - [`host`]: what kmctl runs on a control-plane host; [`mesos`]: what operators and scripts run by hand.
pub mod cni;
pub mod endpoints;
pub mod host;
pub mod mesos;
pub mod node;
mod program;
pub mod scheduler;

pub use program::main;
