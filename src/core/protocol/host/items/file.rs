//! Files with known text.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A file with known text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// The whole text.
    pub text: String,
    /// Whether it is kept when the cluster is taken down, so that only a purge removes it.
    #[serde(default)]
    pub data: bool,
}

impl Kind for FileSpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        Writes::file(&self.path, if self.data { Until::Purge } else { Until::Down })
    }

    fn section(&self) -> Section {
        Section::Files
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }

    fn text(&self) -> Option<&str> {
        Some(&self.text)
    }
}
