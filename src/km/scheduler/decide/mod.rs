//! The scheduler's decisions: takes an [`Event`] and a time, returns [`Effect`]s. No I/O, no clock, no randomness.
//!
//! - `scheduler`: the processing of an event; `parts`: what is known, one type each. The rules below
//!   read the parts, and change what is known only through their methods;
//! - `updates`: what Mesos reports about tasks, executors and agents;
//! - `reconcile`: after a (re)start, nothing is decided before everything is known;
//! - `filter`, `bind`: kube-scheduler's requests; `launch`: tasks from offers;
//! - `place`: which pending pod could run where, and which agents to wake for the others; `explain`, `ports`: why not;
//!   `refused`: the texts that kube-scheduler gets;
//! - `lifecycle`: candidates, idle nodes, bounds, what happens when a node ends; `leave`: how nodes are drained, and
//!   which ones when there are too many; `sweep`: cleaning after a node;
//! - `offers`: hold, decline, suppress, revive.
mod bind;
mod effect;
mod event;
mod explain;
mod filter;
mod launch;
mod leave;
mod lifecycle;
mod offers;
mod parts;
mod place;
mod ports;
mod reconcile;
mod refused;
mod scheduler;
mod settings;
mod snapshot;
mod sweep;
mod updates;

#[cfg(test)]
mod tests;

pub use effect::{Answer, ApiRequest, Binding, Effect, MesosCall};
pub use event::{Bounds, Event, NodeStep, RequestId, Token};
pub use refused::Refused;
pub use scheduler::Scheduler;
pub use settings::{NodeTemplate, Settings};
