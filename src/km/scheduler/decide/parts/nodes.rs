//! A node, and what is going on with it.
use kmctl_core::model::nodes::{NodeFacts, NodePhase};
use kmctl_core::model::resources::Amount;
use kmctl_core::model::selectors::Labels;
use kmctl_core::model::time::Time;
use mesos::types::ExecutorInfo;

use super::super::event::Token;

/// A node, and what is going on with it.
#[derive(Clone, Debug)]
pub struct NodeEntry {
    pub agent: String,
    pub state: NodeState,
    /// The API's view; none until the object is there, and after it is gone.
    pub facts: Option<NodeFacts>,
    /// What the object was created with.
    pub labels: Labels,
    pub capacity: Amount,
    pub executor: Option<ExecutorInfo>,
    pub task: Option<String>,
    pub created: Time,
    /// The last time that it passed a filter.
    pub filtered: Option<Time>,
    /// When the binds that have come in go out together.
    pub flush_at: Option<Time>,
    pub idle_since: Option<Time>,
    pub leased: Option<Time>,
    pub published: Option<Amount>,
    /// The last state written to the object.
    pub marked: Option<(NodePhase, Time)>,
    pub deleted: Option<Time>,
    /// Why it leaves, for people.
    pub why: String,
}

impl NodeEntry {
    /// A node that has no object yet.
    pub fn new(agent: String, labels: Labels, capacity: Amount, now: Time) -> NodeEntry {
        NodeEntry {
            agent,
            state: NodeState::Candidate,
            facts: None,
            labels,
            capacity,
            executor: None,
            task: None,
            created: now,
            filtered: None,
            flush_at: None,
            idle_since: None,
            leased: None,
            published: None,
            marked: None,
            deleted: None,
            why: String::new(),
        }
    }

    /// Labels as the API has them, or will.
    pub fn labels(&self) -> &Labels {
        self.facts.as_ref().map_or(&self.labels, |facts| &facts.labels)
    }

    /// Its executor's id.
    pub fn executor_id(&self) -> Option<&str> {
        self.executor.as_ref().map(|executor| executor.executor_id.as_str())
    }
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeState {
    /// A Node object without an executor.
    Candidate,
    /// Token and annotations are being written.
    Preparing,
    /// They are; the launch waits for an offer.
    Prepared { token: Token, since: Time },
    /// Launched, the kubelet not heard of.
    Starting,
    /// The kubelet is there.
    Ready,
    /// No new pods; the node task is killed once it is drained.
    Leaving { since: Time, killed: Option<Time>, cause: Leave },
    /// The executor is gone; the object is being deleted.
    Gone,
}

/// Why a node leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It has been idle, or everything goes.
    Unneeded,
    /// There are more nodes than there may be.
    Surplus,
    /// An earlier process decided so, or somebody deleted its object.
    Given,
}

impl NodeState {
    /// Not launched yet.
    pub fn unlaunched(&self) -> bool {
        matches!(self, NodeState::Candidate | NodeState::Preparing | NodeState::Prepared { .. })
    }

    /// Takes pods.
    pub fn open(&self) -> bool {
        !matches!(self, NodeState::Leaving { .. } | NodeState::Gone)
    }

    /// For people.
    pub fn word(&self) -> &'static str {
        match self {
            NodeState::Candidate => "candidate",
            NodeState::Preparing | NodeState::Prepared { .. } | NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Leaving { .. } => "leaving",
            NodeState::Gone => "gone",
        }
    }
}
