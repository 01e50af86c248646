//! Downloads what upstream releases and creates a bundle from it.
//!
//! [`parts`] defines where everything is published, [`checksums`] parses the checksums published beside it, [`lock`]
//! records what was downloaded, [`transfer`] downloads files, [`image`] queries registries, and [`run`] combines them.
//! A file is used only if its sha256 is the published one, and with a lock the published one must be that of the lock.
//! Downloads are kept in a cache, whole or in part, so that an interrupted run continues.
mod archive;
mod checksums;
mod error;
mod image;
mod lock;
mod mirror;
mod parts;
mod run;
mod transfer;

pub use error::FetchError;
pub use lock::Lock;
pub use mirror::{Mirror, MirrorError};
pub use run::{Download, Fetched, download};
