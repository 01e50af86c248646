//! Leaf certificates.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};
use crate::pki::LeafSpec;

/// A leaf certificate `<path>.crt` and its key `<path>.key`, renewed once it has less than 90 days left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// Path without `.crt` and `.key`.
    pub path: String,
    /// Path of the authority, without `.crt` and `.key`.
    pub authority: String,
    /// Content of the certificate.
    pub leaf: LeafSpec,
}

impl Kind for CertificateSpec {
    fn name(&self) -> String {
        format!("{}.crt", self.path)
    }

    fn writes(&self) -> Writes {
        Writes::Files(vec![format!("{}.key", self.path), format!("{}.crt", self.path)], Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Files
    }

    fn planned(&self) -> Planned {
        Planned::Written
    }
}
