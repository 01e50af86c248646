//! Kubernetes: client, leases, names in the API, YAML documents, and everything that differs between versions.
pub mod client;
mod components;
pub mod events;
pub mod host_lock;
pub mod lease;
mod manifests;
pub mod names;
pub mod relist;
mod version;

pub use components::Components;
pub use manifests::{ManifestsError, manifests};
pub use version::{MINORS, Minor, Pairs, UnsupportedVersion, Version, VersionError, supported};
