//! Kubernetes: client, server-side apply, leases, watches, and what differs between versions, in one place.
pub mod client;
mod components;
pub mod lease;
pub mod names;
#[cfg(feature = "cli")]
mod over_host;
pub mod seat;
mod version;

pub use components::{Components, UnknownMinor, known_minors};
#[cfg(feature = "cli")]
pub use over_host::{OverHostError, client_over};
pub use version::{Version, VersionError};
