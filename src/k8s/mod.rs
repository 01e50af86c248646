//! Kubernetes: client, server-side apply, leases, watches, and what differs between versions, in one place.
pub mod client;
pub mod lease;
pub mod names;
mod version;

pub use version::{Version, VersionError};
