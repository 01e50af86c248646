//! Key pairs without a certificate, such as the one that signs tokens of service accounts.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A pair `<path>.key` and `<path>.pub`, created once and never replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyPairSpec {
    /// Path without `.key` and `.pub`.
    pub path: String,
}

impl Kind for KeyPairSpec {
    fn name(&self) -> String {
        format!("{}.key", self.path)
    }

    fn writes(&self) -> Writes {
        Writes::Files(vec![format!("{}.key", self.path), format!("{}.pub", self.path)], Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Shared
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }
}
