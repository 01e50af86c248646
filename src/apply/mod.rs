//! Carries out a plan: graph runner, lock, run log. Every decision was made in [`crate::plan`]; none is made here.
//!
//! Hosts are changed side by side, each with one stream to its `km host apply`. What etcd's quorum needs is met by
//! that: every member waits for the others while they start.
mod host;
mod remove;
mod stream;

pub use host::{Work, apply_hosts, install, km_beside_kmctl};
pub use remove::{purge_nodes, remove_hosts};

use crate::bundle::BundleError;
use crate::host::HostError;
use crate::inventory::HostInventoryError;

/// Why a plan could not be carried out on a host.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The host could not be used.
    #[error("{what} on {host}")]
    Host {
        /// What was going on.
        what: &'static str,
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: HostError,
    },
    /// The host could not be looked at.
    #[error(transparent)]
    Look(#[from] HostInventoryError),
    /// A command on the host failed.
    #[error("{what} on {host}: {answer}")]
    Refused {
        /// What was going on.
        what: &'static str,
        /// The host.
        host: String,
        /// What it said.
        answer: String,
    },
    /// An item failed on the host.
    #[error("set up {item} on {host}: {}{}", causes.join(": "), journal_text(.journal))]
    Item {
        /// The host.
        host: String,
        /// The item.
        item: String,
        /// The error and its causes, as the host told them.
        causes: Vec<String>,
        /// The last lines of the unit's journal.
        journal: Vec<String>,
    },
    /// Another run changes the host.
    #[error("{host} is locked: {answer}")]
    Locked {
        /// The host.
        host: String,
        /// By whom.
        answer: String,
    },
    /// The bundle cannot be sent.
    #[error("read the bundle")]
    Bundle(#[source] BundleError),
    /// There is no bundle to send files from.
    #[error("{host} misses {count} files of the bundle, and the bundle is not here")]
    NoBundle {
        /// The host.
        host: String,
        /// How many.
        count: usize,
    },
    /// The program that goes with this kmctl cannot be read.
    #[error("read {path}")]
    Km {
        /// Where it should be.
        path: std::path::PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

fn journal_text(journal: &[String]) -> String {
    if journal.is_empty() {
        return String::new();
    }
    format!("\nits journal ends with:\n  {}", journal.join("\n  "))
}
