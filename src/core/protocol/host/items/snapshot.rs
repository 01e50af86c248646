//! Snapshots of etcd.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Writes};

/// Takes a snapshot of etcd, if it runs. Only sent before a running control plane is changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotSpec {
    /// Path of the etcdctl binary.
    pub program: String,
    /// Authority certificate, client certificate and key, in this order.
    pub credentials: [String; 3],
    /// Client URL of etcd.
    pub endpoint: String,
    /// Directory of the snapshots.
    pub folder: String,
}

impl Kind for SnapshotSpec {
    fn name(&self) -> String {
        self.folder.clone()
    }

    fn writes(&self) -> Writes {
        // The snapshots are content of a directory, which is an item of its own.
        Writes::Nothing
    }

    fn section(&self) -> Section {
        Section::Snapshot
    }

    fn planned(&self) -> Planned {
        Planned::OnceRunning
    }
}
