//! `kmctl why`: what prevents a pod from running, a node from being removed or an offer from being used, and what to do
//! about it.
pub(crate) mod decide;
#[cfg(test)]
pub(crate) mod fixtures;
mod reason;
mod run;

pub(crate) use reason::{Kind, Reason};
pub use run::{Args, run};
