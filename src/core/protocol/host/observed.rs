//! What `km host inspect` found on a host.
use serde::{Deserialize, Serialize};

use super::etcd::EtcdMember;
use super::etcd_data::EtcdData;
use super::identity::Ownership;
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
    /// Whose the host is.
    #[serde(default)]
    pub ownership: Ownership,
    /// etcd's data.
    #[serde(default)]
    pub etcd_data: EtcdData,
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
        /// Whether more than permissions differ. `None` from a `km` of before this field.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<bool>,
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

/// Collects how an item differs from the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    why: Vec<String>,
    content: bool,
}

impl Differences {
    /// A difference in what the item consists of.
    pub fn content(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
        self.content = true;
    }

    /// A difference in permissions only. The text must contain ` mode `, by which a kmctl of before
    /// [`Observed::Different::content`] recognizes it.
    pub fn mode(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    pub fn is_empty(&self) -> bool {
        self.why.is_empty()
    }

    /// `Different` if there are differences, otherwise `Same`.
    pub fn observed(self) -> Observed {
        let Differences { why, content } = self;
        if why.is_empty() { Observed::Same } else { Observed::Different { why, current: None, content: Some(content) } }
    }

    /// As [`Differences::observed`], of a file with this text.
    pub fn observed_in(self, text: String) -> Observed {
        match self.observed() {
            Observed::Different { why, current: _, content } => {
                Observed::Different { why, current: Some(text), content }
            }
            observed => observed,
        }
    }
}

/// Differences in content.
impl From<Vec<String>> for Differences {
    fn from(why: Vec<String>) -> Self {
        Differences { content: !why.is_empty(), why }
    }
}

impl Observed {
    /// A single difference in content.
    pub fn different(why: impl Into<String>) -> Self {
        Observed::from_problems(vec![why.into()])
    }

    /// `Different` if there are problems with the content, otherwise `Same`.
    pub fn from_problems(why: Vec<String>) -> Self {
        Differences::from(why).observed()
    }

    /// Whether the repair changes what a process reads from the file. It does not if only permissions are repaired.
    pub fn changes_content(&self) -> bool {
        match self {
            Observed::Same | Observed::Kept { .. } => false,
            // A `km` of before the field says it in its texts only.
            Observed::Different { why, content, .. } => {
                content.unwrap_or_else(|| why.iter().any(|why| !why.contains(" mode ")))
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_alone_is_no_content_and_an_older_km_says_so_in_its_text() {
        let mut differences = Differences::default();
        differences.mode("its mode is 0666, wanted 0644");
        let mode = differences.clone().observed();
        assert!(!mode.changes_content());
        differences.content("its text differs");
        assert!(differences.observed().changes_content());
        // As a km of before the field reports them.
        let of = |why: &str| -> Observed {
            serde_json::from_str(&format!(r#"{{"is":"different","why":["{why}"]}}"#)).unwrap()
        };
        assert!(!of("its mode is 0666, wanted 0644").changes_content());
        assert!(of("its text differs").changes_content());
        // What such a kmctl reads of a newer km: it does not know the field.
        let text = serde_json::to_string(&mode).unwrap();
        assert_eq!(text, r#"{"is":"different","why":["its mode is 0666, wanted 0644"],"content":false}"#);
    }
}
