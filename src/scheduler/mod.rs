//! `km scheduler`: the Mesos framework, an extender of the stock kube-scheduler, and the owner of Node objects.
//!
//! `decide` is pure: an event and a time go in, effects come out. `run` feeds it from `watches`, `framework` (Mesos)
//! and `extender` (kube-scheduler), and `effects` carries out what it decides, through `api` and `framework`.
//! `standby` passes questions on where another host's km scheduler leads; `artifacts` serves nodes what they fetch, `csr`
//! approves their certificates.
pub(crate) mod agents;
pub mod api;
pub(crate) mod artifacts;
pub mod burden;
pub mod config;
mod csr;
pub mod decide;
mod effects;
mod extender;
mod framework;
pub(crate) mod ids;
mod metrics;
pub mod nodes;
pub mod pods;
pub mod requests;
pub mod resources;
pub mod run;
pub mod selectors;
pub mod standby;
pub(crate) mod tasks;
pub mod time;
mod watches;
