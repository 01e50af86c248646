//! Directories.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A directory. Its content is not checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectorySpec {
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Whether it holds data that only a purge removes.
    #[serde(default)]
    pub data: bool,
}

impl Kind for DirectorySpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        Writes::Directory(self.path.clone(), if self.data { Until::Purge } else { Until::Down })
    }

    fn section(&self) -> Section {
        Section::Directories
    }

    fn planned(&self) -> Planned {
        Planned::Existing
    }
}
