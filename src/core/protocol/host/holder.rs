//! Who changes a host.
use std::fmt;

use serde::{Deserialize, Serialize};

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct Holder {
    /// `user@machine` of the operator.
    pub operator: String,
    /// What they run.
    pub command: String,
    /// Process on the host.
    pub pid: u32,
    /// Since when.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { operator, command, pid, since } = self;
        write!(f, "`{command}` by {operator} since {since} (process {pid} on the host)")
    }
}
