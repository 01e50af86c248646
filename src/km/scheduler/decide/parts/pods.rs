//! A pod and its state in the scheduler.
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::time::Time;
use kmctl_core::protocol::launch::PortMapping;

use super::super::event::RequestId;

/// A pod and its state in the scheduler.
#[derive(Clone, Debug)]
pub struct PodEntry {
    pub facts: PodFacts,
    pub bind_state: BindState,
    /// Bind requests that wait for the outcome.
    pub answers: Vec<RequestId>,
    /// When it was first seen.
    pub since: Time,
    /// The last filter request for it, and whether any node was left.
    pub asked: Option<(Time, bool)>,
    /// Since when a node has a place for it.
    pub placeable_since: Option<Time>,
    /// The last nudge, and the number of nudges since there is a place.
    pub nudged: Option<Time>,
    pub nudges: u32,
    /// The last explanation.
    pub explained: Option<Explained>,
    /// Since when its topology spread waits for domains to wake up.
    pub spread_wait: Option<Time>,
    /// The only node left by the last filter request, and when: kube-scheduler will bind the pod there.
    pub nominated_node: Option<(String, Time)>,
    /// Set while its object differs from what its Binding recorded, with the time of the last repair.
    pub overwritten: Option<Option<Time>>,
    /// Since when its task is over although the pod is not.
    pub orphaned: Option<Time>,
}

impl PodEntry {
    /// A pod seen for the first time.
    pub fn new(facts: PodFacts, since: Time) -> PodEntry {
        PodEntry {
            facts,
            bind_state: BindState::None,
            answers: Vec::new(),
            since,
            asked: None,
            placeable_since: None,
            nudged: None,
            nudges: 0,
            explained: None,
            spread_wait: None,
            nominated_node: None,
            overwritten: None,
            orphaned: None,
        }
    }
}

/// What was reported to a pod's owner.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub text: String,
    pub at: Time,
    /// When the text was last checked.
    pub checked: Time,
    /// How often the text has changed.
    pub changes: u32,
}

/// A pod's progress to its node.
#[derive(Clone, Debug, PartialEq)]
pub enum BindState {
    /// Not started, or bound.
    None,
    /// Waits for resources of this node's agent.
    Waiting { node: String, since: Time },
    /// Its task is launched.
    Launched { node: String, task: String, ports: Vec<PortMapping> },
    /// Its task has started, and the Binding is being posted.
    Binding { node: String, task: String },
}

impl BindState {
    /// The target node.
    pub fn node(&self) -> Option<&str> {
        match self {
            BindState::None => None,
            BindState::Waiting { node, .. } | BindState::Launched { node, .. } | BindState::Binding { node, .. } => {
                Some(node)
            }
        }
    }

    /// Whether it waits for resources of this node.
    pub fn waits_for(&self, name: &str) -> bool {
        matches!(self, BindState::Waiting { node, .. } if node == name)
    }
}
