//! Files of the bundle.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A file from the bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProgramSpec {
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// sha256 of the unpacked bytes.
    pub sha256: String,
    /// Unpacked size in bytes.
    pub size: u64,
}

impl Kind for ProgramSpec {
    fn name(&self) -> String {
        self.path.clone()
    }

    fn writes(&self) -> Writes {
        Writes::file(&self.path, Until::Down)
    }

    fn section(&self) -> Section {
        Section::Programs
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }
}
