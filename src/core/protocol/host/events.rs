//! What `km host apply` and `km host remove` say while they work: one JSON object per line.
use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// Work on an item begins.
    Started {
        /// The item's name.
        item: String,
    },
    /// An item is as it should be.
    Done {
        /// The item's name.
        item: String,
        /// What was done to it.
        change: Change,
    },
    /// Still at it; sent at least every two seconds.
    Waiting {
        /// What is awaited.
        item: String,
        /// Since when.
        seconds: u64,
        /// What it last answered.
        last: String,
    },
    /// Everything is as it should be.
    Finished {
        /// How many items were changed.
        changed: usize,
        /// How many were as they should be.
        unchanged: usize,
    },
    /// The run ended here.
    Failed {
        /// The item it was about, if any.
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
    /// It was not there.
    Created,
    /// It differed.
    Updated,
    /// A unit was not running.
    Started,
    /// A unit ran with older files.
    Restarted,
    /// It answered.
    Healthy,
    /// It was taken away.
    Removed,
}

impl Change {
    /// Whether anything on the host is different now.
    pub fn is_change(self) -> bool {
        !matches!(self, Change::Unchanged | Change::Healthy)
    }
}
