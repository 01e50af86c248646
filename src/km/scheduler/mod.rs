//! `km scheduler`: the Mesos framework, an extender of the stock kube-scheduler, and the owner of Node objects.
//!
//! `decide` is pure: it takes an event and a time, and returns effects. `run` feeds it from `watches`, `framework`
//! (Mesos) and `extender` (kube-scheduler). `effects` executes its decisions, through `api` and `framework`. `standby`
//! forwards requests if another host's km scheduler leads. `artifacts` serves the files that nodes download, and `csr`
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
