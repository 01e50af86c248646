//! The files that nodes fetch, and how they are listed.
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::launch::Artifact;
use crate::bundle::{BundleFile, hex_digest};

/// The `km` binary that executors run.
#[derive(Clone, Debug, PartialEq)]
pub struct KmProgram {
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Where agents fetch it.
    pub url: String,
}

/// The files of an artifact server, as served at `/artifacts`. A command that starts nodes elsewhere (`kmctl runonce`)
/// reads from it what they fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactIndex {
    /// Kubernetes version.
    pub kubernetes: String,
    /// sha256 of the `km` binary that executors run.
    pub km: String,
    /// Files that nodes fetch.
    pub files: Vec<Artifact>,
}

/// A file of a bundle, as an artifact that a node fetches from `urls`.
pub fn listed(file: &BundleFile, urls: Vec<String>) -> Artifact {
    let (path, sha256, images) = (file.path.clone(), file.sha256.clone(), file.images.clone());
    Artifact { path, sha256, size: file.size, urls, images }
}

/// The sha256 of a file, lower-case hexadecimal.
pub fn hash(path: &Path) -> std::io::Result<String> {
    Ok(hex_digest(&mut std::fs::File::open(path)?)?.0)
}
