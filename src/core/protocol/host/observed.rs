//! What `km host inspect` found on a host.
use serde::{Deserialize, Serialize};

use super::etcd::EtcdMember;
use super::holder::Holder;

/// What was found on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observations {
    /// [`FORMAT`].
    pub format: u32,
    /// The host's own name.
    pub hostname: String,
    /// sha256 of the installed `km`.
    pub km: Option<String>,
    /// Who changes the host right now.
    pub lock: Option<Holder>,
    /// Versions whose bundle is unpacked here.
    pub versions: Vec<String>,
    /// Members of etcd, where it runs and answers.
    #[serde(default)]
    pub members: Vec<EtcdMember>,
    /// Who begins etcd's cluster, as the host has written it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// One for each item of the manifest, in its order.
    pub items: Vec<Observation>,
}

/// One item of the manifest, as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// The item's name.
    pub name: String,
    /// Compared with the manifest.
    pub observed: Observed,
    /// For a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitState>,
}

/// How an item compares with the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Observed {
    /// As it should be.
    Same,
    /// Not there.
    Missing,
    /// There, but not as it should be.
    Different {
        /// Each difference.
        why: Vec<String>,
        /// The present text of a file that holds no secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current: Option<String>,
    },
    /// As it should be, beside what was set live and is kept.
    Kept {
        /// Each value that differs from the manifest's.
        what: Vec<String>,
    },
    /// Could not be found out.
    Unknown {
        /// The reason.
        why: String,
    },
}

impl Observed {
    /// Different in one way.
    pub fn different(why: impl Into<String>) -> Self {
        Observed::Different { why: vec![why.into()], current: None }
    }

    /// Different where there are problems.
    pub fn from_problems(why: Vec<String>) -> Self {
        if why.is_empty() { Observed::Same } else { Observed::Different { why, current: None } }
    }

    /// Whether a process that reads the file would read something else after the repair: not where only
    /// [permissions](wrong_mode) are repaired.
    pub fn changes_content(&self) -> bool {
        match self {
            Observed::Same | Observed::Kept { .. } => false,
            Observed::Different { why, .. } => why.iter().any(|why| !why.contains(" mode ")),
            Observed::Missing | Observed::Unknown { .. } => true,
        }
    }

    /// Whether nothing is to be done.
    pub fn is_same(&self) -> bool {
        matches!(self, Observed::Same | Observed::Kept { .. })
    }
}

/// What systemd says about a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitState {
    /// `active`, `activating`, `failed`, `inactive` …
    pub active: String,
    /// `enabled`, `disabled` …
    pub enabled: String,
    /// Changes at every start.
    pub invocation: String,
    /// The unit file on the disk is newer than what systemd has loaded.
    pub stale_definition: bool,
    /// A run has started it, and got as far as to record that.
    pub recorded: bool,
}
