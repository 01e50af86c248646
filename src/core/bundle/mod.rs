//! The bundle: one verified archive of all binaries and images for one Kubernetes version.
//!
//! A bundle is a plain tar whose first entry is `manifest.json`; every other entry is one file, gzipped by itself
//! and named `<path>.gz`. So `kmctl up` reads the table of contents without touching the rest, and sends exactly the
//! files that a host misses, still packed. Every file is verified twice: by the sha256 of its packed bytes before it
//! leaves the operator's machine, which takes a fifth of the time that unpacking takes, and by that of its unpacked bytes
//! on the host.
pub mod create;
mod manifest;
pub mod pack;
mod read;

pub use create::{create, required};
pub use manifest::{BundleFile, Component, Manifest, Purpose};
pub use read::hex;
pub use read::{Bundle, hex_digest};

use std::path::PathBuf;

/// Why a bundle could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read or written.
    #[error("{what} {path}")]
    File {
        /// What was going on, e.g. `read`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The archive is not one of ours.
    #[error("{path} is not a bundle: {why}")]
    NotABundle {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Some files are not what the manifest says.
    #[error("{path} does not match its manifest: {}", problems.join("; "))]
    Mismatch {
        /// The archive.
        path: PathBuf,
        /// One entry per file.
        problems: Vec<String>,
    },
    /// The folder lacks what a cluster cannot do without.
    #[error("{path} lacks {}", missing.join(", "))]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// Paths in the bundle.
        missing: Vec<String>,
    },
}
