//! Carries out a plan. What is done on a host was decided in [`crate::plan`]; `decide` says which host may go on when,
//! `run` lets it, one stream to the host's `km host apply` for each of its stages.
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
    /// The host was not reached.
    #[error("reach {host} over SSH")]
    Unreachable {
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: HostError,
    },
    /// Nothing can be planned for a host that came late.
    #[error("plan for {host}")]
    Plan {
        /// The host.
        host: String,
        /// The cause.
        #[source]
        source: PlanError,
    },
    /// The host came after the question was asked, and what is to be done there interrupts something.
    #[error("{host} answered after the plan was shown, and its part interrupts {what}")]
    Unasked {
        /// The host.
        host: String,
        /// What would be interrupted.
        what: String,
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
