//! Carries out a plan. [`crate::plan`] has decided what is done on a host. `decide` says which host may continue when,
//! and `run` carries that out with one stream to the host's `km host apply` per stage.
mod decide;
mod host;
mod limits;
mod remove;
mod run;
mod stream;

pub use decide::{CriticalPath, HostState, NAMED, patience, shown};
pub(crate) use host::lacks_programs;
pub use host::{Counts, Verified, Work, install, km_beside_kmctl, verify_ahead};
pub use limits::Limits;
pub use remove::{Removing, forget_purge, purge_nodes, remove_hosts};
pub use run::{HostOutcome, Late, Member, Report, run};

use crate::host::HostError;
use crate::inventory::HostInventoryError;
use crate::plan::PlanError;
use kmctl_core::bundle::BundleError;
use kmctl_core::text;

/// Why a plan could not be carried out on a host.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The host could not be used.
    #[error("failed to {what} on {host}")]
    Host {
        /// The operation that failed.
        what: &'static str,
        host: String,
        #[source]
        source: HostError,
    },
    /// The host was not reached.
    #[error("failed to connect to {host} over SSH")]
    Unreachable {
        host: String,
        #[source]
        source: HostError,
    },
    /// No plan can be made for a host that answered late.
    #[error("no plan for {host}")]
    Plan {
        host: String,
        #[source]
        source: PlanError,
    },
    /// The host answered after the confirmation, and its steps interrupt something.
    #[error("{host} responded after confirmation and needs a restart ({what}); skipped")]
    Unasked {
        host: String,
        /// What would be interrupted.
        what: String,
    },
    /// The host could not be inspected.
    #[error(transparent)]
    Look(#[from] HostInventoryError),
    /// A command on the host failed.
    #[error("failed to {what} on {host}: {answer}")]
    Refused {
        /// The operation that failed.
        what: &'static str,
        host: String,
        /// What the command printed.
        answer: String,
    },
    /// An item failed on the host.
    #[error("failed to set up {item} on {host}: {}{}", causes.join(": "), journal_text(.journal))]
    Item {
        host: String,
        item: String,
        /// The error and its causes, as the host reported them.
        causes: Vec<String>,
        /// The last lines of the unit's journal.
        journal: Vec<String>,
    },
    /// Another run is changing the host.
    #[error("{host} is locked: {answer}")]
    Locked {
        host: String,
        /// Which run holds the lock, as the host reported it.
        answer: String,
    },
    /// The bundle cannot be sent.
    #[error("failed to read the bundle")]
    Bundle(#[source] BundleError),
    /// There is no bundle to send files from.
    #[error("{host} needs {} from the bundle, but the bundle was not found", text::count(*count, "file"))]
    NoBundle {
        host: String,
        /// How many files the host lacks.
        count: usize,
    },
    /// The `km` that belongs to this kmctl cannot be read.
    #[error("failed to read {path}")]
    Km {
        /// Where it should be.
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

fn journal_text(journal: &[String]) -> String {
    if journal.is_empty() {
        return String::new();
    }
    format!("\nlast lines of its journal:\n  {}", journal.join("\n  "))
}
