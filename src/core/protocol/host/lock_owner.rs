//! Identifies the run that changes a host.
use std::fmt;

use serde::{Deserialize, Serialize};

/// The holder of a host's lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct LockOwner {
    /// `user@machine` of the operator.
    pub operator: String,
    /// The command that the operator runs.
    pub command: String,
    /// Process id on the host.
    pub pid: u32,
    /// Time since when it holds the lock.
    pub since: String,
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LockOwner { operator, command, pid, since } = self;
        write!(f, "`{command}` by {operator} since {since} (process {pid} on the host)")
    }
}
