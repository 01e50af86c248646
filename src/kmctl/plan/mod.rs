//! Pure planning: cluster + inventory → steps, and their description. No I/O, no clock, no randomness.
//!
//! [`desired`] returns what every host should have, as a manifest for `km host`. [`decide`] compares it with what was
//! found and returns the steps that are needed. [`describe`] formats them, and [`SavedPlan`] is the plan as a file.
//! Every choice is made here: applying the plan involves none.
mod decide;
mod describe;
mod desired;
mod error;
mod etcd;
mod identity;
mod interrupts;
pub mod preflight;
mod saved;

pub use decide::{Action, ExistingCluster, HostPlan, Plan, PlanContext, Step, decide};
pub use describe::{describe, summary};
pub use desired::{Inputs, MESOS_SECRET, desired, settings};
pub use error::PlanError;
pub use etcd::{EtcdRemoval, EtcdWork};
pub use identity::identify;
pub use saved::{FORMAT, SavedPlan, SavedPlanError};
