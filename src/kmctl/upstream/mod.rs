//! Downloads what upstream releases and makes a bundle of it.
//!
//! [`parts`] says where everything is published, [`checksums`] reads what is published beside it, [`lock`] keeps what was
//! downloaded, [`transfer`] moves bytes, [`image`] speaks to registries, and [`run`] puts them together. A file is used
//! when its sha256 is the published one, and the published one is that of the lock where there is a lock. Downloads are
//! kept in a cache, whole or in part, so that a run that was cut short continues.
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
