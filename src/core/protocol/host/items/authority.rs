//! Certificate authorities.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A certificate authority, created once and never replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// Subject CN.
    pub common_name: String,
}

impl Kind for AuthoritySpec {
    fn name(&self) -> String {
        format!("{}.crt", self.path)
    }

    fn writes(&self) -> Writes {
        Writes::Files(vec![format!("{}.key", self.path), format!("{}.crt", self.path)], Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Shared
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }
}
