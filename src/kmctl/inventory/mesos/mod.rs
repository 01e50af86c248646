//! What Mesos reports about itself, its agents and one framework, queried from a control-plane host.
mod facts;
pub mod sandbox;
mod wire;

pub use facts::{
    Agent, AgentFlags, EndedTask, Flags, Framework, Master, Pressure, RoleUse, RunningTask, agents, ended, read,
};
