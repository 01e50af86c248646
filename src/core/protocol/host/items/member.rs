//! A host's membership in etcd.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Until, Writes};

/// A host as a member of etcd: registers it, and configures how etcd starts for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberSpec {
    /// Name of the host and of its member.
    pub name: String,
    /// URL for other members, `https://address:2380`.
    pub peer: String,
    /// Client URL on the host itself.
    pub local: String,
    /// Client URLs of the members on other hosts.
    pub others: Vec<String>,
    /// The environment file that configures how etcd starts for the first time.
    pub environment: String,
    /// Path of the authority, without `.crt` and `.key`.
    pub authority: String,
    /// Path of the client certificate, without `.crt` and `.key`.
    pub client: String,
}

impl Kind for MemberSpec {
    fn name(&self) -> String {
        format!("etcd member {}", self.name)
    }

    fn writes(&self) -> Writes {
        // Later starts of etcd do not read it.
        Writes::file(&self.environment, Until::Down)
    }

    fn section(&self) -> Section {
        Section::Etcd
    }

    fn planned(&self) -> Planned {
        Planned::Membership
    }
}
