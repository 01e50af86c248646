//! A pod, and what is going on with it.
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::time::Time;
use kmctl_core::protocol::launch::PortMapping;

use super::super::event::RequestId;

/// A pod, and what is going on with it.
#[derive(Clone, Debug)]
pub struct PodEntry {
    pub facts: PodFacts,
    pub flight: Flight,
    /// Bind requests that wait for the outcome.
    pub answers: Vec<RequestId>,
    /// When it was first seen.
    pub since: Time,
    /// The last time kube-scheduler asked about it, and whether any node was left.
    pub asked: Option<(Time, bool)>,
    /// Since when there is a place for it on a node.
    pub placeable_since: Option<Time>,
    /// The last nudge, and how many since there is a place.
    pub nudged: Option<Time>,
    pub nudges: u32,
    /// The last explanation.
    pub explained: Option<Explained>,
    /// Since when its topology spread waits for domains to wake up.
    pub spread_wait: Option<Time>,
    /// The only node that kube-scheduler was last left with, and when: it will be bound there.
    pub let_onto: Option<(String, Time)>,
    /// Its object says something else than its Binding recorded, and when that was last put right.
    pub overwritten: Option<Option<Time>>,
    /// Since when its task is over though it is not.
    pub orphaned: Option<Time>,
}

impl PodEntry {
    /// A pod seen for the first time.
    pub fn new(facts: PodFacts, since: Time) -> PodEntry {
        PodEntry {
            facts,
            flight: Flight::None,
            answers: Vec::new(),
            since,
            asked: None,
            placeable_since: None,
            nudged: None,
            nudges: 0,
            explained: None,
            spread_wait: None,
            let_onto: None,
            overwritten: None,
            orphaned: None,
        }
    }
}

/// What a pod's owner was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub text: String,
    pub at: Time,
    /// When it was last worked out whether the text is still true.
    pub checked: Time,
    /// How often the text has changed.
    pub changes: u32,
}

/// A pod's way to its node.
#[derive(Clone, Debug, PartialEq)]
pub enum Flight {
    /// Not on its way, or arrived.
    None,
    /// Waits for resources of this node's agent.
    Waiting { node: String, since: Time },
    /// Its task is launched.
    Launched { node: String, task: String, ports: Vec<PortMapping> },
    /// Its task has started, and the Binding is being posted.
    Binding { node: String, task: String },
}

impl Flight {
    /// The node it is bound for.
    pub fn node(&self) -> Option<&str> {
        match self {
            Flight::None => None,
            Flight::Waiting { node, .. } | Flight::Launched { node, .. } | Flight::Binding { node, .. } => Some(node),
        }
    }

    /// Waits for resources.
    pub fn waits_for(&self, name: &str) -> bool {
        matches!(self, Flight::Waiting { node, .. } if node == name)
    }
}
