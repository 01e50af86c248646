//! A plan as a file: what `kmctl plan --out FILE` writes and `kmctl up --plan FILE` applies.
//!
//! It holds every step and no secret. It is applied only if inspecting the hosts again yields the same plan. The steps
//! represent what was found, and a digest per host represents what is wanted, so that a change on a host, in
//! cluster.yaml, in the bundle or of kmctl itself is noticed. An example:
//!
//! ```json
//! {
//!   "format": 3,
//!   "kmctl": "0.1.0",
//!   "cluster": "demo",
//!   "km": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
//!   "wanted": { "cp1": "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9" },
//!   "plan": {
//!     "hosts": [{
//!       "host": "cp1",
//!       "steps": [{
//!         "action": "update",
//!         "subject": "/etc/systemd/system/kube-scheduler.service",
//!         "why": ["content changed"],
//!         "diff": "--- on the host\n+++ wanted\n@@ -1,2 +1 @@\n-# by hand\n [Unit]\n"
//!       }, {
//!         "action": "restart",
//!         "subject": "kube-scheduler.service",
//!         "why": ["kube-scheduler.service changed"],
//!         "interrupts": "new pods are delayed for a few seconds"
//!       }],
//!       "unchanged": 58,
//!       "notes": []
//!     }]
//!   }
//! }
//! ```
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use similar::TextDiff;

use super::decide::{Action, Plan};
use super::describe;
use kmctl_core::protocol::host::HostManifest;

/// Version of the file's format. A new field or another meaning requires a new version, and so do other texts, because
/// plans are compared with them.
pub const FORMAT: u32 = 3;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedPlan {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the kmctl that wrote it.
    pub kmctl: String,
    /// The cluster's name.
    pub cluster: String,
    /// sha256 of the `km` for the hosts.
    pub km: String,
    /// By host: sha256 of everything that the host should have.
    pub wanted: BTreeMap<String, String>,
    /// What is done.
    pub plan: Plan,
}

/// Why a file is not a plan.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    /// It is not JSON of this form.
    #[error("not a plan")]
    Malformed(#[source] serde_json::Error),
    /// Another version wrote it.
    #[error("unsupported format {0}; this kmctl supports {FORMAT}")]
    Format(u64),
}

impl SavedPlan {
    /// Saves `plan` for the hosts with these manifests.
    pub fn new(cluster: &str, km: &str, manifests: &[HostManifest], plan: &Plan) -> Self {
        let wanted = |manifest: &HostManifest| (manifest.host.clone(), digest(manifest));
        SavedPlan {
            format: FORMAT,
            kmctl: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: cluster.to_owned(),
            km: km.to_owned(),
            wanted: manifests.iter().map(wanted).collect(),
            plan: plan.clone(),
        }
    }

    /// Parses a file's text. The format is checked first, because the rest can only be parsed if its format is known.
    pub fn parse(text: &str) -> Result<Self, SavedPlanError> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(SavedPlanError::Malformed)?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => Err(SavedPlanError::Format(format)),
            _ => serde_json::from_value(value).map_err(SavedPlanError::Malformed),
        }
    }

    /// How a plan made `now` differs from this one. `None` if they are the same.
    pub fn drift(&self, now: &SavedPlan) -> Option<String> {
        let mut text = String::new();
        if self.cluster != now.cluster {
            let _ = writeln!(text, "the plan is for cluster {}, not for {}", self.cluster, now.cluster);
        }
        if self.km != now.km {
            let _ = writeln!(text, "the plan was saved by kmctl {} with a different km", self.kmctl);
        }
        let (saved, found) = (settled(&self.plan), settled(&now.plan));
        for host in self.wanted.keys().chain(now.wanted.keys().filter(|host| !self.wanted.contains_key(*host))) {
            match (self.wanted.get(host), now.wanted.get(host)) {
                (Some(_), None) => _ = writeln!(text, "{host} was removed from cluster.yaml"),
                (None, Some(_)) => _ = writeln!(text, "{host} was added to cluster.yaml"),
                (before, after) if before != after => {
                    let _ = writeln!(text, "{host}: cluster.yaml, the bundle or kmctl has changed");
                }
                _ => {}
            }
        }
        if saved != found {
            let (before, after) = (describe(&saved), describe(&found));
            let diff = TextDiff::from_lines(&before, &after);
            let _ = write!(text, "{}", diff.unified_diff().context_radius(2).header("the plan", "now"));
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The plan without what changes by itself: what a component answers while it is not healthy.
fn settled(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for step in plan.hosts.iter_mut().flat_map(|host| &mut host.steps).filter(|step| step.action == Action::Await) {
        step.why.clear();
    }
    plan
}

fn digest(manifest: &HostManifest) -> String {
    hex::encode(Sha256::digest(serde_json::to_vec(manifest).unwrap_or_default()))
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
