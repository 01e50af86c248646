//! What `km host inspect` found on a host.
use serde::{Deserialize, Serialize};

use super::etcd::EtcdMember;
use super::lock_owner::LockOwner;

/// Everything that was found on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observations {
    /// [`FORMAT`](super::FORMAT).
    pub format: u32,
    /// The host's own name.
    pub hostname: String,
    /// sha256 of the installed `km`.
    pub km: Option<String>,
    /// The current holder of the host's lock.
    pub lock: Option<LockOwner>,
    /// Versions whose bundle is unpacked on the host.
    pub versions: Vec<String>,
    /// Members of etcd, if it runs and answers.
    #[serde(default)]
    pub members: Vec<EtcdMember>,
    /// The host that bootstraps the etcd cluster, as recorded on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// One for each item of the manifest, in the same order.
    pub items: Vec<Observation>,
}

/// One item of the manifest, as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    pub name: String,
    /// The comparison with the manifest.
    pub observed: Observed,
    /// Only for a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitState>,
}

/// How an item compares with the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Observed {
    /// As desired.
    Same,
    /// It does not exist.
    Missing,
    /// It exists, but differs from the manifest.
    Different {
        /// Each difference.
        why: Vec<String>,
        /// The current text of a file that contains no secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current: Option<String>,
    },
    /// As desired, except for live changes, which are kept.
    Kept {
        /// Each value that differs from the manifest's.
        what: Vec<String>,
    },
    /// It could not be determined.
    Unknown {
        /// Why it could not be determined.
        why: String,
    },
}

impl Observed {
    /// A single difference.
    pub fn different(why: impl Into<String>) -> Self {
        Observed::Different { why: vec![why.into()], current: None }
    }

    /// `Different` if there are problems, otherwise `Same`.
    pub fn from_problems(why: Vec<String>) -> Self {
        if why.is_empty() { Observed::Same } else { Observed::Different { why, current: None } }
    }

    /// Whether the repair changes what a process reads from the file. It does not if only permissions are repaired.
    pub fn changes_content(&self) -> bool {
        match self {
            Observed::Same | Observed::Kept { .. } => false,
            Observed::Different { why, .. } => why.iter().any(|why| !why.contains(" mode ")),
            Observed::Missing | Observed::Unknown { .. } => true,
        }
    }

    /// Whether there is nothing to change.
    pub fn is_same(&self) -> bool {
        matches!(self, Observed::Same | Observed::Kept { .. })
    }
}

/// State of a unit, as reported by systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// `active`, `activating`, `failed`, `inactive` …
    pub active: String,
    /// `enabled`, `disabled` …
    pub enabled: String,
    /// Changes with every start.
    pub invocation: String,
    /// Whether the unit file on the disk is newer than the one that systemd has loaded.
    pub stale_definition: bool,
    /// Whether a run has started it and has recorded that.
    pub recorded: bool,
}
