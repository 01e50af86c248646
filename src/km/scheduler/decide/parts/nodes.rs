//! A node and its state in the scheduler.
use kmctl_core::model::nodes::{NodeFacts, NodePhase};
use kmctl_core::model::resources::Amount;
use kmctl_core::model::selectors::Labels;
use kmctl_core::model::time::Time;
use mesos::types::ExecutorInfo;

use super::super::event::Token;

/// A node and its state in the scheduler.
#[derive(Clone, Debug)]
pub struct NodeEntry {
    pub agent: String,
    pub state: NodeState,
    /// The API's view. None until the object exists, and after it is deleted.
    pub facts: Option<NodeFacts>,
    /// The labels that the object was created with.
    pub labels: Labels,
    pub capacity: Amount,
    pub executor: Option<ExecutorInfo>,
    pub task: Option<String>,
    pub created: Time,
    /// The last time that it passed a filter.
    pub filtered: Option<Time>,
    /// When the collected binds are launched together.
    pub flush_at: Option<Time>,
    pub idle_since: Option<Time>,
    pub leased: Option<Time>,
    pub published: Option<Amount>,
    /// The last state written to the object.
    pub marked: Option<(NodePhase, Time)>,
    pub deleted: Option<Time>,
    /// Why it leaves, in words for the operator.
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

    /// Labels as the API has them, or will have them.
    pub fn labels(&self) -> &Labels {
        self.facts.as_ref().map_or(&self.labels, |facts| &facts.labels)
    }

    pub fn executor_id(&self) -> Option<&str> {
        self.executor.as_ref().map(|executor| executor.executor_id.as_str())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum NodeState {
    /// A Node object without an executor.
    Candidate,
    /// Token and annotations are being written.
    Preparing,
    /// Token and annotations are written. The launch waits for an offer.
    Prepared { token: Token, since: Time },
    /// Launched, but the kubelet has not registered yet.
    Starting,
    /// The kubelet is ready.
    Ready,
    /// Accepts no new pods. The node task is killed once the node is drained.
    Leaving { since: Time, killed: Option<Time>, cause: RemovalCause },
    /// The executor is gone. The object is being deleted.
    Gone,
}

/// Why a node leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalCause {
    /// The node was idle, or the cluster is being purged.
    Unneeded,
    /// There are more nodes than `nodes.max`.
    Surplus,
    /// An earlier process decided it, or the node's object was deleted.
    Given,
}

impl NodeState {
    /// Not launched yet.
    pub fn unlaunched(&self) -> bool {
        matches!(self, NodeState::Candidate | NodeState::Preparing | NodeState::Prepared { .. })
    }

    /// Accepts pods.
    pub fn open(&self) -> bool {
        !matches!(self, NodeState::Leaving { .. } | NodeState::Gone)
    }

    /// The state in words, for the operator.
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
