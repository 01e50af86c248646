//! `km host`: the part that runs on a control-plane host. `kmctl` sends it a [`HostManifest`], everything that the host
//! should have. It compares, writes atomically, restarts what changed, checks health and reports events.
//!
//! - `inspect` reads a manifest from standard input and prints [`Observations`]; it changes nothing.
//! - `apply` reads one stream: a [`Header`], then the bytes of the files that were missing; it prints [`Event`]s.
//! - `remove` deletes what `apply` installed, keeping or purging the data.
//!
//! Keys and certificates are created here, from their specs, so that no key is transferred. Every write creates a
//! temporary file, syncs it and renames it, and every decision depends only on the files on disk. So a run that was
//! killed at any point is completed by the next one.
mod access;
mod api;
mod apply;
mod command;
mod digests;
mod etcd;
mod etcd_data;
mod events;
mod files;
mod http;
mod identity;
mod items;
mod keys;
mod lock;
mod observe;
mod purge;
mod remove;
mod run;
mod units;

pub use command::{Action, Arguments, perform, run, status_of};
#[cfg(any(test, feature = "simulation"))]
pub use files::Killed;
pub use files::Root;

use kmctl_core::protocol::host::LockOwner;
use std::path::PathBuf;

/// Why a manifest could not be compared or applied.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or directory could not be read or changed.
    #[error("{what} {path}")]
    File {
        /// The failed operation, e.g. `write`.
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be created.
    #[error("make {path}")]
    Material {
        path: PathBuf,
        #[source]
        source: kmctl_core::pki::PkiError,
    },
    /// The host's state contradicts the manifest in a way that must not be repaired by overwriting.
    #[error("{0}")]
    Refused(String),
    /// Another run holds the lock.
    #[error("another run is changing this host: {0}")]
    Locked(LockOwner),
    /// Standard input is invalid or could not be read, or a setup step failed.
    #[error("{what}")]
    Input {
        /// The failed operation.
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// A command of systemd or etcd failed.
    #[error("{what}: {output}")]
    Unit {
        /// The failed operation.
        what: String,
        /// The command's error output.
        output: String,
    },
    /// A check did not become healthy in time.
    #[error("{what} did not become healthy within {seconds} s: {last}")]
    Unhealthy {
        /// The check's name.
        what: String,
        /// How long kmctl waited, in seconds.
        seconds: u64,
        /// The last answer.
        last: String,
    },
    /// The API server refused an object.
    #[error("apply {object}: {answer}")]
    Object {
        /// Kind and name.
        object: String,
        /// The API server's message.
        answer: String,
    },
    /// The events have no reader any more.
    #[error("the operator's connection is gone")]
    Deserted,
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> AgentError {
        let path = path.to_owned();
        move |source| AgentError::File { what, path, source }
    }
}
