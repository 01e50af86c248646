//! What happens to the scheduler.
use std::fmt;

use kmctl_core::model::nodes::NodeFacts;
use kmctl_core::model::pods::{PodFacts, Uid};
use mesos::types::{AgentInfo, Offer, TaskStatus};

/// Ties an answer to the HTTP request that waits for it.
pub type RequestId = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The master knows us, and the framework id is saved. Everything said before on another stream is void.
    Subscribed,
    /// The stream broke.
    Disconnected,
    /// Offers came.
    Offers(Vec<Offer>),
    /// An offer is gone.
    Rescinded(String),
    /// A task's state.
    Update(Box<TaskStatus>),
    /// An executor ended.
    ExecutorEnded {
        /// On this agent.
        agent: String,
        /// Its id.
        executor: String,
    },
    /// An agent left Mesos, or cannot be reached.
    AgentLost(String),
    /// All agents, from the operator API.
    Agents(Vec<AgentInfo>),
    /// A pod as it is now.
    Pod(Box<PodFacts>),
    /// A pod is gone from the API.
    PodGone(Uid),
    /// A node as it is now.
    Node(Box<NodeFacts>),
    /// A node is gone from the API.
    NodeGone(String),
    /// The first list of pods is complete.
    PodsSynced,
    /// The first list of nodes is complete.
    NodesSynced,
    /// Live settings, as read from the API for the first time or changed.
    Bounds(Bounds),
    /// Agents that ever had a node, from the framework's ConfigMap.
    KnownAgents(Vec<String>),
    /// kube-scheduler asks which nodes would do.
    Filter {
        /// Names the answer.
        request: RequestId,
        /// The pod, as kube-scheduler sees it.
        pod: Box<PodFacts>,
        /// Nodes that passed its own filters.
        nodes: Vec<String>,
    },
    /// kube-scheduler asks which of the nodes are best.
    Prioritize {
        /// Names the answer.
        request: RequestId,
        /// Nodes that passed the filters.
        nodes: Vec<String>,
    },
    /// kube-scheduler has chosen.
    Bind {
        /// Names the answer.
        request: RequestId,
        /// The pod.
        uid: Uid,
        /// Its node.
        node: String,
    },
    /// Token and annotations of a node are written, so it may be launched.
    NodePrepared {
        /// The node.
        node: String,
        /// Its bootstrap token.
        token: Token,
    },
    /// An effect on a node failed.
    NodeFailed {
        /// The node.
        node: String,
        /// Which effect.
        step: NodeStep,
        /// Why.
        why: String,
    },
    /// The Binding was posted, or refused.
    BindingPosted {
        /// The pod.
        uid: Uid,
        /// None where it was accepted.
        error: Option<String>,
    },
    /// Nothing but time has passed.
    Tick,
}

/// Effects on a node that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Creating the object.
    Create,
    /// Token and annotations before the launch.
    Prepare,
}

/// The live settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Nodes kept even when idle.
    pub min: u32,
    /// Most nodes; none means every agent that fits.
    pub max: Option<u32>,
    /// Remove everything from the agents.
    pub purge: bool,
    /// That has been done, by this process or an earlier one.
    pub purged: bool,
}

/// A bootstrap token, `id.secret`. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
