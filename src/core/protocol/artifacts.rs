//! What nodes fetch, and where they learn of it.
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::launch::Artifact;
use crate::bundle::{BundleFile, hex_digest};

/// The program that executors run.
#[derive(Clone, Debug, PartialEq)]
pub struct KmProgram {
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Where agents fetch it.
    pub url: String,
}

/// What a server of artifacts has, as it says at `/artifacts`: whoever starts nodes elsewhere (`kmctl runonce`) learns
/// from it what they fetch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactIndex {
    /// Kubernetes version.
    pub kubernetes: String,
    /// sha256 of the program that executors run.
    pub km: String,
    /// What nodes fetch.
    pub files: Vec<Artifact>,
}

/// A file of a bundle, as a node fetches it from `urls`.
pub fn listed(file: &BundleFile, urls: Vec<String>) -> Artifact {
    let (path, sha256, images) = (file.path.clone(), file.sha256.clone(), file.images.clone());
    Artifact { path, sha256, size: file.size, urls, images }
}

/// The sha256 of a file, lower-case hexadecimal.
pub fn hash(path: &Path) -> std::io::Result<String> {
    Ok(hex_digest(&mut std::fs::File::open(path)?)?.0)
}
