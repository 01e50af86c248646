//! Certificate authorities, leaf certificates and keys: ECDSA P-256 throughout.
//!
//! Everything is text in, text out: whoever calls decides where keys lie. Keys are made on the host that uses them.
mod examine;
mod issue;

pub use examine::{Certificate, problems_of_authority, problems_of_leaf};
pub use issue::{authority, leaf, new_key, public_key};

use serde::{Deserialize, Serialize};

/// How long a certificate authority is valid.
pub const AUTHORITY_DAYS: i64 = 3650;

/// How long a leaf is valid.
pub const LEAF_DAYS: i64 = 365;

/// A leaf with less than this left is made anew.
pub const RENEW_DAYS: i64 = 90;

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeafSpec {
    /// Subject CN: the user's name for a client.
    pub common_name: String,
    /// Subject O: a group for a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// DNS names and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// May serve TLS.
    #[serde(default)]
    pub server: bool,
    /// May be shown by a client.
    #[serde(default)]
    pub client: bool,
}

/// Why a key or certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The signing library refused.
    #[error("{what}")]
    Issue {
        /// What was being made.
        what: &'static str,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// The text is not what it should be.
    #[error("{0}")]
    Unreadable(String),
}
