//! A bundle's table of contents: `manifest.json`, the archive's first entry.
use serde::{Deserialize, Serialize};

/// The contents of a bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub format: u32,
    /// Kubernetes version, e.g. `v1.37.2`.
    pub kubernetes: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The components that the files belong to, sorted by name; empty if the bundle was created from a directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// Every file, sorted by path.
    pub files: Vec<BundleFile>,
}

/// A component that upstream releases under its own version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// E.g. `etcd`.
    pub name: String,
    /// As upstream writes it, e.g. `v3.6.16`.
    pub version: String,
    /// Download URLs of the files: upstream's own, even if a mirror was used.
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
    /// sha256 of the unpacked bytes, lower-case hexadecimal.
    pub sha256: String,
    /// Unpacked size in bytes.
    pub size: u64,
    /// sha256 of the packed bytes as stored in the archive; older bundles have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed_sha256: Option<String>,
    /// Which hosts need it; empty for licences.
    pub purposes: Vec<Purpose>,
    /// Image names in an image archive; empty for binaries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

/// Which hosts need a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// Control-plane hosts.
    ControlPlane,
    /// Nodes; they fetch it from the artifact server.
    Node,
}
