//! Judgements on a running cluster, derived from what was observed: no I/O, no clock, no randomness. [`why`] explains what blocks
//! a pod, a node or an offer, [`scaling`] what a change of the node limits would do and what delays it, and [`status`] puts a
//! report together.
#[cfg(test)]
mod fixtures;
mod reason;
pub(crate) mod scaling;
pub(crate) mod scaling_report;
pub(crate) mod status;
mod status_text;
pub(crate) mod why;

pub(crate) use reason::{Answer, Kind, Reason};
