//! Whether and when offers are requested from Mesos.
use std::time::Duration;

use kmctl_core::model::time::Time;

/// REVIVE makes Mesos run an allocation for all frameworks. It is sent no more often than Mesos allocates by itself.
const REVIVE_AT_MOST: Duration = Duration::from_secs(1);

/// Interval of REVIVE while something is missing, because our own filters may hide offers that have become useful.
const REVIVE_AT_LEAST: Duration = Duration::from_secs(10);

/// Interval of requests to the operator API while pods wait.
const LIST_AGENTS: Duration = Duration::from_secs(10);

/// Whether Mesos makes offers, and when offers were last requested.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    suppressed: bool,
    grown: bool,
    agents_known: bool,
    revived: Option<Time>,
    listed: Option<Time>,
}

impl Demand {
    /// The state after SUBSCRIBE with all roles suppressed.
    pub fn start_suppressed(&mut self) {
        (self.suppressed, self.grown, self.revived) = (true, true, None);
    }

    /// Whether offers are suppressed.
    pub fn is_suppressed(&self) -> bool {
        self.suppressed
    }

    /// Something new is wanted since the last REVIVE.
    pub fn grow(&mut self) {
        self.grown = true;
    }

    /// The operator API has listed all agents.
    pub fn learn_agents(&mut self) {
        self.agents_known = true;
    }

    /// Whether all agents are known. If so, what none of them has does not exist.
    pub fn knows_agents(&self) -> bool {
        self.agents_known
    }

    /// Nothing is wanted. True if SUPPRESS has to be sent.
    pub fn suppress(&mut self) -> bool {
        self.grown = false;
        !std::mem::replace(&mut self.suppressed, true)
    }

    /// Offers are wanted, though some may be held (`unmet`: the held ones are insufficient). True if REVIVE has to be
    /// sent now.
    pub fn revive(&mut self, unmet: bool, now: Time) -> bool {
        let since = self.revived.map_or(Duration::MAX, |revived| now.since(revived));
        let repeat = unmet && ((self.grown && since >= REVIVE_AT_MOST) || since >= REVIVE_AT_LEAST);
        let due = self.suppressed || repeat;
        if due {
            (self.suppressed, self.grown, self.revived) = (false, false, Some(now));
        }
        due
    }

    /// True if agents are to be listed now.
    pub fn list_agents(&mut self, now: Time) -> bool {
        let due = self.listed.is_none_or(|listed| now.since(listed) >= LIST_AGENTS);
        if due {
            self.listed = Some(now);
        }
        due
    }
}
