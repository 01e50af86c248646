//! Kubeconfigs.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};
use crate::pki::LeafSpec;

/// A kubeconfig that embeds a client certificate created on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubeconfigSpec {
    pub path: String,
    /// Name of the cluster in the file.
    pub cluster: String,
    /// `https://address:port`.
    pub server: String,
    /// Path of the authority, without `.crt` and `.key`. It signs the client certificate and is trusted for the server.
    pub authority: String,
    /// Content of the client certificate.
    pub leaf: LeafSpec,
}

impl Kind for KubeconfigSpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        Writes::file(&self.path, Until::Down)
    }

    fn section(&self) -> Section {
        Section::Files
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }
}
