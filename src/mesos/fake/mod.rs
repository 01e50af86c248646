//! An in-process Mesos for tests: a master with the scheduler and operator APIs over HTTP, whose agents and executors
//! exist only as numbers, and an agent with the executor API. `/state` and the agents' flags can be read, as `kmctl`
//! does. The cases in `tests/contract` run against this fake and against a real Mesos, so that the two cannot diverge.
//!
//! Not implemented: reservations, volumes, quota, weights, maintenance, inverse offers, authorization by ACL.
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
