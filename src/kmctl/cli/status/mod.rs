//! `kmctl status`: how the hosts, the API server, the nodes and the Mesos tasks are doing.
mod report;
mod run;
mod text;

pub use run::{Args, run};
