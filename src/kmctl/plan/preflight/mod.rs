//! Whether hosts and Mesos meet the requirements of a cluster: facts in, findings out, each with its cure.
mod agents;
mod finding;
mod machines;
mod mesos;

pub use agents::{AgentGroup, Ineligible, eligible, group, reachable, reason_against};
pub use finding::{Finding, Level};
pub use machines::{judge_clocks, judge_machine, judge_ownership, judge_routes, ownership_hint};
pub use mesos::{judge_master, judge_mesos};
