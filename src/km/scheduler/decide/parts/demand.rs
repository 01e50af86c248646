//! What is wanted of Mesos.
use std::time::Duration;

use kmctl_core::model::time::Time;

/// REVIVE makes Mesos allocate anew for everybody: not more often than it would do by itself.
const REVIVE_AT_MOST: Duration = Duration::from_secs(1);

/// And every so often while something is missing, since filters of ours may hide what has become useful.
const REVIVE_AT_LEAST: Duration = Duration::from_secs(10);

/// How often the operator API is asked while pods wait.
const LIST_AGENTS: Duration = Duration::from_secs(10);

/// Whether Mesos makes offers, and when it was last asked to.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    suppressed: bool,
    grown: bool,
    agents_known: bool,
    revived: Option<Time>,
    listed: Option<Time>,
}

impl Demand {
    /// As after SUBSCRIBE with all roles suppressed.
    pub fn start_suppressed(&mut self) {
        (self.suppressed, self.grown, self.revived) = (true, true, None);
    }

    /// Mesos was told to make no offers.
    pub fn is_suppressed(&self) -> bool {
        self.suppressed
    }

    /// Something new is wanted since the last REVIVE.
    pub fn grow(&mut self) {
        self.grown = true;
    }

    /// The operator API has told of all agents.
    pub fn learn_agents(&mut self) {
        self.agents_known = true;
    }

    /// Whether it has, so that what none of them has is nowhere.
    pub fn knows_agents(&self) -> bool {
        self.agents_known
    }

    /// Nothing is wanted. True where Mesos is to be told so.
    pub fn suppress(&mut self) -> bool {
        self.grown = false;
        !std::mem::replace(&mut self.suppressed, true)
    }

    /// Offers are wanted, though some may be there (`unmet`: what is there does not do). True where Mesos is to be asked for
    /// them now.
    pub fn revive(&mut self, unmet: bool, now: Time) -> bool {
        let since = self.revived.map_or(Duration::MAX, |revived| now.since(revived));
        let repeat = unmet && ((self.grown && since >= REVIVE_AT_MOST) || since >= REVIVE_AT_LEAST);
        let due = self.suppressed || repeat;
        if due {
            (self.suppressed, self.grown, self.revived) = (false, false, Some(now));
        }
        due
    }

    /// True where agents are to be listed now.
    pub fn list_agents(&mut self, now: Time) -> bool {
        let due = self.listed.is_none_or(|listed| now.since(listed) >= LIST_AGENTS);
        if due {
            self.listed = Some(now);
        }
        due
    }
}
