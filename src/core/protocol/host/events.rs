//! The output of `km host apply` and `km host remove` while they work: one JSON object per line.
use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// Work on an item has started.
    Started {
        /// The item's name.
        item: String,
    },
    /// An item is in its desired state.
    Done {
        item: String,
        /// What was done to it.
        change: Change,
    },
    /// An item is in its desired state except for what remains. The run goes on.
    Incomplete {
        item: String,
        /// What remains, and why.
        remains: Vec<String>,
    },
    /// Still waiting; sent at least every two seconds.
    Waiting {
        item: String,
        /// Seconds since the start of the wait.
        seconds: u64,
        /// The last answer or error.
        last: String,
    },
    /// Everything is in its desired state.
    Finished {
        /// Number of changed items.
        changed: usize,
        /// Number of items that already were in their desired state.
        unchanged: usize,
    },
    /// The run failed and stopped here.
    Failed {
        /// The item that failed, if any.
        item: Option<String>,
        /// The error and its causes.
        causes: Vec<String>,
        /// The last lines of the unit's journal.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        journal: Vec<String>,
    },
}

/// What was done to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Nothing.
    Unchanged,
    /// It did not exist.
    Created,
    /// It differed from the desired state.
    Updated,
    /// The unit was not running.
    Started,
    /// The unit was running with older files.
    Restarted,
    /// The health check succeeded.
    Healthy,
    /// It was removed.
    Removed,
}

impl Change {
    /// Whether anything on the host was changed.
    pub fn is_change(self) -> bool {
        !matches!(self, Change::Unchanged | Change::Healthy)
    }
}
