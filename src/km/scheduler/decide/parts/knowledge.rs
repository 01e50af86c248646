//! What has been learned since the start, and whether that is enough to decide.
use std::time::Duration;

use kmctl_core::model::time::Time;

/// How long to wait for the master's answers before requesting them again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A master that still waits for agents to reregister does not answer for tasks that it does not know. Decisions start
/// after this time nevertheless: a task without an answer counts as alive, so nothing is lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// Interval of requests for recorded tasks without any status, all in one call.
const ASK_FOR_RECORDED: Duration = Duration::from_secs(30);

/// What has been learned so far.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// The first lists are complete, and the live settings were read.
    pods: bool,
    nodes: bool,
    bounds: bool,
    /// The framework is subscribed at a master.
    subscribed: bool,
    recorded_asked: Option<Time>,
    tasks: Tasks,
}

#[derive(Clone, Debug, Default)]
enum Tasks {
    #[default]
    NotAsked,
    Asked {
        sentinel: String,
        first: Time,
        last: Time,
    },
    Known,
}

/// Next step to learn about Mesos' tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do, or it is too early.
    Nothing,
    /// The master had enough time: a task without an answer counts as alive.
    GiveUp,
    /// Request all of them, and after that one that never existed ([`Knowledge::asked`]).
    Ask,
}

impl Knowledge {
    /// The first list of pods is complete.
    pub fn learn_pods(&mut self) {
        self.pods = true;
    }

    /// The first list of nodes is complete.
    pub fn learn_nodes(&mut self) {
        self.nodes = true;
    }

    /// The live settings have been read.
    pub fn learn_bounds(&mut self) {
        self.bounds = true;
    }

    /// The framework is subscribed. The master has to be queried about our tasks.
    pub fn subscribe(&mut self) {
        (self.subscribed, self.tasks) = (true, Tasks::NotAsked);
    }

    /// The framework is no longer subscribed.
    pub fn disconnect(&mut self) {
        (self.subscribed, self.tasks) = (false, Tasks::NotAsked);
    }

    /// The master answers in order, so an answer about a task that never existed marks the end of all answers before
    /// it.
    pub fn reconcile_marker_received(&mut self, task: &str) {
        if matches!(&self.tasks, Tasks::Asked { sentinel, .. } if sentinel == task) {
            self.tasks = Tasks::Known;
        }
    }

    /// Whether everything but tasks is known.
    fn has_lists(&self) -> bool {
        self.pods && self.nodes && self.bounds && self.subscribed
    }

    /// Whether enough is known to decide.
    pub fn is_complete(&self) -> bool {
        self.has_lists() && matches!(self.tasks, Tasks::Known)
    }

    /// What to do next to learn about tasks.
    pub fn next(&mut self, now: Time) -> Next {
        if !self.has_lists() {
            return Next::Nothing;
        }
        match &self.tasks {
            Tasks::Known => Next::Nothing,
            Tasks::NotAsked => Next::Ask,
            Tasks::Asked { first, .. } if now.since(*first) >= PATIENCE => {
                self.tasks = Tasks::Known;
                Next::GiveUp
            }
            Tasks::Asked { last, .. } if now.since(*last) < ASK_AGAIN => Next::Nothing,
            Tasks::Asked { .. } => Next::Ask,
        }
    }

    /// All tasks have been requested, and `sentinel` after them.
    pub fn asked(&mut self, sentinel: String, now: Time) {
        let first = match &self.tasks {
            Tasks::Asked { first, .. } => *first,
            Tasks::NotAsked | Tasks::Known => now,
        };
        self.tasks = Tasks::Asked { sentinel, first, last: now };
    }

    /// True if tasks that pods and nodes name, but without any status, are to be requested now.
    pub fn ask_for_recorded(&mut self, now: Time) -> bool {
        let due = self.recorded_asked.is_none_or(|asked| now.since(asked) > ASK_FOR_RECORDED);
        if due {
            self.recorded_asked = Some(now);
        }
        due
    }
}
