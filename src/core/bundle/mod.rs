//! The bundle: one verified archive of all binaries and images for one Kubernetes version.
//!
//! A bundle is a plain tar whose first entry is `manifest.json`. Every other entry is one file, gzipped by itself and
//! named `<path>.gz`. `kmctl up` can therefore read the table of contents without reading the rest, and uploads exactly
//! the files that a host is missing, still packed.
//!
//! Every file is verified twice: by the sha256 of its packed bytes before it is uploaded, which takes a fifth of the
//! time that unpacking takes, and by the sha256 of its unpacked bytes on the host.
pub mod create;
mod manifest;
pub mod pack;
mod read;

pub use create::{create, required};
pub use manifest::{BundleFile, Component, Manifest, Purpose};
pub use read::{Bundle, hex_digest};

use std::path::PathBuf;

/// Why a bundle could not be created or used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be read or written.
    #[error("failed to {what} {path}")]
    File {
        /// The operation that failed, e.g. `read`.
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The archive is not a bundle.
    #[error("{path} is not a bundle: {why}")]
    NotABundle {
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Some files do not match the manifest.
    #[error("{path} does not match its manifest: {}", problems.join("; "))]
    Mismatch {
        path: PathBuf,
        /// One entry per file.
        problems: Vec<String>,
    },
    /// The directory lacks files that every cluster needs.
    #[error("{path} lacks {}", missing.join(", "))]
    Incomplete {
        path: PathBuf,
        /// Paths in the bundle.
        missing: Vec<String>,
    },
}
