//! `kmctl status`: the state of the hosts, the API server, the nodes and the Mesos tasks.
mod run;
mod text;

pub use run::{Args, run};
