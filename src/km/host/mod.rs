//! `km host`: the side that runs on a control-plane host. `kmctl` sends it a [`HostManifest`], everything that the
//! host should have; it compares, writes atomically, restarts what changed, checks health and reports events.
//!
//! - `inspect` reads a manifest from standard input and prints [`Observations`]; it changes nothing.
//! - `apply` reads one stream: a [`Header`], then the bytes of the files that were missing; it prints [`Event`]s.
//! - `remove` takes away what `apply` installed, keeping or purging the data.
//!
//! Keys and certificates are made here, from their specs, so that no key travels. Every write is a temporary file,
//! synced and renamed, and every decision is made from what lies on the disk, so a run that was killed anywhere is
//! finished by the next one.
mod apply;
mod command;
mod events;
mod files;
mod founder;
mod http;
mod lock;
mod material;
mod member;
mod objects;
mod observe;
mod remove;
mod units;

pub use command::{Action, Arguments, perform, run, status_of};
#[cfg(any(test, feature = "simulation"))]
pub use files::Killed;
pub use files::Root;

use kmctl_core::protocol::host::Holder;
use std::path::PathBuf;

/// Why a manifest could not be compared or applied.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or folder could not be read or changed.
    #[error("{what} {path}")]
    File {
        /// What was going on, e.g. `write`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be made.
    #[error("make {path}")]
    Material {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: kmctl_core::pki::PkiError,
    },
    /// What lies on the host contradicts the manifest in a way that must not be repaired by overwriting.
    #[error("{0}")]
    Refused(String),
    /// Another run is under way.
    #[error("another run is changing this host: {0}")]
    Locked(Holder),
    /// What came over standard input is not what it should be.
    #[error("{what}")]
    Input {
        /// What was being read.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// systemd refused.
    #[error("{what}: {output}")]
    Unit {
        /// What was asked of it.
        what: String,
        /// What it said.
        output: String,
    },
    /// Something did not become healthy in time.
    #[error("{what} did not become healthy within {seconds} s: {last}")]
    Unhealthy {
        /// The check's name.
        what: String,
        /// How long it was awaited.
        seconds: u64,
        /// The last answer.
        last: String,
    },
    /// The API server refused an object.
    #[error("apply {object}: {answer}")]
    Object {
        /// Kind and name.
        object: String,
        /// The answer.
        answer: String,
    },
    /// Nobody reads the events any more.
    #[error("the operator's connection is gone")]
    Deserted,
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> AgentError {
        let path = path.to_owned();
        move |source| AgentError::File { what, path, source }
    }
}
