//! `km scheduler`: the Mesos framework, an extender of the stock kube-scheduler, and the owner of Node objects.
//!
//! `decide` is pure: an event and a time go in, effects come out. `run` feeds it and carries the effects out.
pub mod agents;
pub mod config;
pub mod decide;
pub mod ids;
pub mod nodes;
pub mod pods;
pub mod requests;
pub mod resources;
pub mod selectors;
pub mod time;
