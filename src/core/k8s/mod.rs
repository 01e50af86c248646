//! Kubernetes: client, leases, names in the API, YAML documents, and everything that differs between versions.
pub mod client;
mod components;
pub mod events;
pub mod lease;
mod manifests;
pub mod names;
pub mod host_lock;
mod version;

pub use components::Components;
pub use manifests::{ManifestsError, manifests};
pub use version::{MINORS, Minor, Pairs, UnsupportedVersion, Version, VersionError, supported};
