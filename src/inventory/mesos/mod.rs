//! What Mesos says about itself, its agents and one framework, asked from a control-plane host.
mod client;
mod facts;

pub use client::{Credentials, MesosClient, MesosReadError};
pub use facts::{Agent, AgentFlags, Flags, Framework, Master, Pressure, RunningTask, read};
