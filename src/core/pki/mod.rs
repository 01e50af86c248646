//! Certificate authorities, leaf certificates and keys: ECDSA P-256 throughout.
//!
//! Input and output are PEM texts: the caller decides where keys are stored. Keys are created on the host that uses
//! them.
mod examine;
mod issue;

pub use examine::{Certificate, problems_of_authority, problems_of_leaf};
pub use issue::{authority, leaf, new_key, public_key};

use serde::{Deserialize, Serialize};

/// Validity of a certificate authority, in days.
pub const AUTHORITY_DAYS: i64 = 3650;

/// Validity of a leaf certificate, in days.
pub const LEAF_DAYS: i64 = 365;

/// A leaf with fewer days left is issued again.
pub const RENEW_DAYS: i64 = 90;

/// The content of a leaf certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeafSpec {
    /// Subject CN; of a client, the user's name.
    pub common_name: String,
    /// Subject O; of a client, a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Subject alternative names: DNS names and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whether it may be used by a TLS server.
    #[serde(default)]
    pub server: bool,
    /// Whether it may be used by a TLS client.
    #[serde(default)]
    pub client: bool,
}

/// Why a key or certificate could not be created or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The signing library returned an error.
    #[error("{what}")]
    Issue {
        /// The operation that failed.
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    /// The text could not be parsed.
    #[error("{0}")]
    Unreadable(String),
}
