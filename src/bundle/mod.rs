//! The bundle: one verified archive of all binaries and images for one Kubernetes version.
mod manifest;

pub use manifest::{BundleFile, Manifest, Purpose};
