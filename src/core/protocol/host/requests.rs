//! What kmctl sends to `km host` on standard input.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::etcd::Beginning;
use super::holder::Holder;
use super::manifest::{HostManifest, UnitSpec};

/// The beginning of the stream: one line with its length in bytes, then this as JSON, then the packed files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// What the host should have, or a part of it.
    pub manifest: HostManifest,
    /// All units of the host, whatever part this is: one that reads a file which is replaced has to be restarted.
    pub units: Vec<UnitSpec>,
    /// Files of the bundle that follow, gzipped, in the manifest's order.
    pub payload: Vec<Payload>,
    /// Base64 of secret files by path, written where their digest differs.
    pub secrets: BTreeMap<String, String>,
    /// Base64 of files that all control-plane hosts share, written only where they are missing.
    pub shared: BTreeMap<String, String>,
    /// How etcd begins.
    pub etcd: Beginning,
    /// Who runs this, for the lock.
    pub holder: Holder,
}

/// One file in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Where it goes.
    pub path: String,
    /// Bytes in the stream.
    pub packed: u64,
}

impl Header {
    /// The beginning of the stream.
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
    /// How much goes.
    pub removal: Removal,
    /// The framework could not be ended: its id stays, for the run that will.
    #[serde(default)]
    pub keep_framework: bool,
    /// Who runs this, for the lock.
    pub holder: Holder,
}

/// How much is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Removal {
    /// Programs, units and credentials that can be made again; etcd's data, keys and settings stay.
    Programs,
    /// Everything.
    Everything,
}
