//! Agents on which nodes failed.
use std::collections::BTreeMap;
use std::time::Duration;

use kmctl_core::backoff::Backoff;
use kmctl_core::model::time::Time;

/// Pause before another node on an agent where the last one could not be created or prepared, or did not start. Ends
/// when a node is ready there, or when no node is wanted there any more.
const NODE_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(300));

/// By agent: number of consecutive failures, and time of the last one.
#[derive(Clone, Debug, Default)]
pub struct Troubles(BTreeMap<String, (Time, u32)>);

impl Troubles {
    /// Records a failure: the next node there waits longer than this one did.
    pub fn note(&mut self, agent: &str, now: Time) {
        let (last, times) = self.0.entry(agent.to_owned()).or_insert((now, 0));
        (*last, *times) = (now, times.saturating_add(1));
    }

    /// A node there is ready.
    pub fn forget(&mut self, agent: &str) {
        self.0.remove(agent);
    }

    /// Whether it is too early for another node there.
    pub fn hold_off(&self, agent: &str, now: Time) -> bool {
        self.0.get(agent).is_some_and(|(last, times)| now.since(*last) < NODE_AGAIN.wait(times.saturating_sub(1)))
    }
}
