//! The key that encrypts Secrets in etcd.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// The API server's encryption configuration with a key that is created once and never replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKeySpec {
    /// Path of the configuration.
    pub path: String,
}

impl Kind for EncryptionKeySpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        Writes::file(&self.path, Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Shared
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }
}
