//! An in-process Mesos for tests: a master that speaks the scheduler and operator APIs over HTTP, with agents and
//! executors that exist only as numbers, and an agent that speaks the executor API. `/state` and the agents' flags can
//! be read, as `kmctl` does. The cases in `tests/contract`
//! run against it and against a real Mesos, so that it cannot drift from what it stands for.
//!
//! Left out: reservations, volumes, quota, weights, maintenance, inverse offers, authorization by ACL.
mod agent;
mod allocation;
mod calls;
mod cluster;
mod operator;
mod pages;
mod pool;
mod server;
mod tasks;

pub use agent::{AgentCall, FakeAgent};
pub use cluster::AgentSpec;
pub use server::{FakeMaster, Options};
