//! A Mesos task of ours, as far as its states tell.
use kmctl_core::model::ids::TaskKind;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::time::Time;
use mesos::types::TaskState;

/// A Mesos task of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub kind: TaskKind,
    pub agent: Option<String>,
    pub executor: Option<String>,
    /// What it was launched with, where this process launched it.
    pub granted: Option<Amount>,
    pub state: TaskState,
    /// What Mesos or the executor said about the state.
    pub message: String,
    /// When it came into this state.
    pub since: Time,
    /// The last KILL, and how many there were.
    pub killed: Option<Time>,
    pub kills: u32,
    /// When its state was last asked for, and how often since it is in it.
    pub asked: Option<Time>,
    pub asks: u32,
}

impl Task {
    /// Holds nothing any more.
    pub fn over(&self) -> bool {
        // For a task that the master never heard of there is nothing to wait for either.
        self.state.is_terminal() || self.state == TaskState::TaskUnknown
    }
}
