//! A bundle's table of contents: `manifest.json`, the archive's first entry.
use serde::{Deserialize, Serialize};

/// What a bundle holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub format: u32,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// What the files are parts of, sorted by name; empty where the bundle was made out of a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// Every file, sorted by path.
    pub files: Vec<BundleFile>,
}

/// Something that upstream releases under a version of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// E.g. `etcd`.
    pub name: String,
    /// As upstream writes it, e.g. `v3.6.16`.
    pub version: String,
    /// Where the files are from, upstream's own addresses even if a mirror was asked.
    pub origins: Vec<String>,
    /// SPDX identifier of its licence.
    pub licence: String,
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BundleFile {
    /// Relative path: `bin/kube-apiserver`, `cni/ptp`, `images/pause.tar`.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Of the packed bytes as they lie in the archive; bundles of before have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_sha256: Option<String>,
    /// Who needs it; licences are needed by no program.
    pub purposes: Vec<Purpose>,
    /// Image names in an image archive; empty for programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// Who needs a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// Control-plane hosts.
    ControlPlane,
    /// Nodes, through the artifact server.
    Node,
}
