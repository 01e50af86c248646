//! A node's state, and which state may follow which.
use kmctl_core::model::time::Time;

use super::super::event::Token;
use super::illegal::Illegal;

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

    /// Launched, and accepts pods.
    pub fn launched(&self) -> bool {
        matches!(self, NodeState::Starting | NodeState::Ready)
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

    /// Whether it leaves as one too many, and still runs.
    pub fn may_stay(&self) -> bool {
        matches!(self, NodeState::Leaving { killed: None, cause: RemovalCause::Surplus, .. })
    }

    /// The legal steps, except for those that end a node ([`NodeState::withdraw`], [`NodeState::end`]) or keep it
    /// ([`NodeState::stay`]): those are legal from states from which another step must not lead there.
    fn may_become(&self, next: &NodeState) -> bool {
        use NodeState::{Candidate, Leaving, Prepared, Preparing, Ready, Starting};
        match (self, next) {
            (Candidate, Preparing) => true,
            (Preparing, Prepared { .. }) => true,
            (Prepared { .. }, Starting) => true,
            (Starting, Ready) => true,
            // The preparation failed, or no offer came in time.
            (Preparing | Prepared { .. }, Candidate) => true,
            (Starting | Ready, Leaving { killed: None, .. }) => true,
            (Leaving { killed: None, cause, since }, Leaving { killed: Some(_), cause: same, since: started }) => {
                cause == same && since == started
            }
            _ => false,
        }
    }

    pub(super) fn enter(&mut self, next: NodeState) -> Result<(), Illegal> {
        if !self.may_become(&next) {
            return Err(self.refuse(next.name()));
        }
        *self = next;
        Ok(())
    }

    /// There is room again for a node that left for want of it.
    pub(super) fn stay(&mut self, ready: bool) -> Result<(), Illegal> {
        if !self.may_stay() {
            return Err(self.refuse("kept"));
        }
        *self = if ready { NodeState::Ready } else { NodeState::Starting };
        Ok(())
    }

    /// Gives up a node that was not launched. While its token is being written it cannot be: the token can be deleted
    /// with the object only once the object records it.
    pub(super) fn withdraw(&mut self) -> Result<(), Illegal> {
        if !matches!(self, NodeState::Candidate | NodeState::Prepared { .. }) {
            return Err(self.refuse("withdrawn"));
        }
        *self = NodeState::Gone;
        Ok(())
    }

    /// Nothing of the node runs any more. Legal once its task is determined: Mesos may not know the task of a node that
    /// is being prepared.
    pub(super) fn end(&mut self) -> Result<(), Illegal> {
        if matches!(self, NodeState::Candidate | NodeState::Gone) {
            return Err(self.refuse("ended"));
        }
        *self = NodeState::Gone;
        Ok(())
    }

    /// The refusal of a step.
    pub(super) fn refuse(&self, to: &'static str) -> Illegal {
        Illegal { from: self.name(), to }
    }

    fn name(&self) -> &'static str {
        match self {
            NodeState::Preparing => "preparing",
            NodeState::Prepared { .. } => "prepared",
            NodeState::Leaving { killed: Some(_), .. } => "killed",
            NodeState::Candidate
            | NodeState::Starting
            | NodeState::Ready
            | NodeState::Leaving { killed: None, .. }
            | NodeState::Gone => self.word(),
        }
    }
}
