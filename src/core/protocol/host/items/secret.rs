//! Secrets that the operator has.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A file whose bytes are sent separately from the manifest, readable by root only. Without a digest the host's own
/// file is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretSpec {
    pub path: String,
    /// sha256 of the desired bytes. `None` keeps the existing file, and fails if there is none.
    pub sha256: Option<String>,
}

impl Kind for SecretSpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        // The operator may not have the secret any more when the cluster is started again.
        Writes::file(&self.path, Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Files
    }

    fn planned(&self) -> Planned {
        if self.sha256.is_some() { Planned::Written } else { Planned::Kept }
    }
}
