//! A Mesos task of ours, as its status updates describe it.
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
    /// What it was launched with, if this process launched it.
    pub granted: Option<Amount>,
    pub state: TaskState,
    /// The message of Mesos or the executor about the state.
    pub message: String,
    /// When it entered this state.
    pub since: Time,
    /// The last KILL, and the number of KILLs.
    pub killed: Option<Time>,
    pub kills: u32,
    /// When its state was last requested, and how often since it entered the state.
    pub asked: Option<Time>,
    pub asks: u32,
}

impl Task {
    /// Whether the task holds no resources any more.
    pub fn is_terminal(&self) -> bool {
        // A task unknown to the master has nothing to wait for either.
        self.state.is_terminal() || self.state == TaskState::TaskUnknown
    }
}
