//! What kmctl sends to `km host` on standard input.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::etcd::EtcdBootstrap;
use super::identity::MarkClaim;
use super::items::UnitSpec;
use super::lock_owner::LockOwner;
use super::manifest::HostManifest;

/// The start of the stream: one line with its length in bytes, then this header as JSON, then the packed files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// What the host should have, or a part of it.
    pub manifest: HostManifest,
    /// All units of the host, even if the manifest is only a part: a unit that reads a replaced file must be restarted.
    pub units: Vec<UnitSpec>,
    /// Whose the host is, or becomes. A host that belongs to another cluster refuses the stream.
    pub mark: MarkClaim,
    /// Files of the bundle that follow, gzipped, in the manifest's order.
    pub payload: Vec<Payload>,
    /// Base64 of secret files by path; written if their digest differs.
    pub secrets: BTreeMap<String, String>,
    /// Base64 of files that all control-plane hosts share; only written if they are missing.
    pub shared: BTreeMap<String, String>,
    /// How etcd starts.
    pub etcd: EtcdBootstrap,
    /// Recorded in the host's lock.
    pub holder: LockOwner,
}

/// One file in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Path on the host to write it to.
    pub path: String,
    /// Packed size in bytes, as in the stream.
    pub packed: u64,
}

impl Header {
    /// The header as the start of the stream.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = format!("{}\n", text.len()).into_bytes();
        bytes.extend(text);
        bytes
    }
}

/// What `km host remove` reads from standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveRequest {
    /// What was installed.
    pub manifest: HostManifest,
    /// How much to remove.
    pub removal: Removal,
    /// The framework could not be removed: its id is kept for the run that will remove it.
    #[serde(default)]
    pub keep_framework: bool,
    /// Recorded in the host's lock.
    pub holder: LockOwner,
}

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Removal {
    /// Binaries, units and credentials that can be recreated. Data and keys of etcd, and settings, are kept.
    Programs,
    Everything,
}
