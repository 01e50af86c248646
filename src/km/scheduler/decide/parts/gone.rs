//! Pods that are deleted, while requests about them may still be in progress.
use std::collections::BTreeMap;
use std::time::Duration;

use kmctl_core::model::pods::Uid;
use kmctl_core::model::time::Time;

/// How long a deleted pod is remembered: well above kube-scheduler's possible lag.
const KEPT: Duration = Duration::from_secs(300);

/// Deleted pods, and since when.
#[derive(Clone, Debug, Default)]
pub struct GonePods(BTreeMap<Uid, Time>);

impl GonePods {
    pub fn note(&mut self, uid: &str, now: Time) {
        self.0.retain(|_, since| now.since(*since) < KEPT);
        self.0.insert(uid.to_owned(), now);
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.0.contains_key(uid)
    }
}
