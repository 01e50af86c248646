//! `km scheduler`: the Mesos framework, an extender of the stock kube-scheduler, and the owner of Node objects.
//!
//! `decide` is pure: an event and a time go in, effects come out. `run` feeds it from `watches`, `framework` (Mesos)
//! and `extender` (kube-scheduler), and `effects` carries out what it decides, through `api` and `framework`.
//! `standby` passes questions on where another host's km scheduler leads; `artifacts` serves nodes what they fetch, `csr`
//! approves their certificates.
pub mod api;
pub(crate) mod artifacts;
mod csr;
pub mod decide;
mod effects;
mod extender;
mod framework;
pub mod metrics;
pub mod run;
pub mod standby;
mod watches;
