//! The scheduler's input events.
use std::fmt;

use kmctl_core::model::nodes::NodeFacts;
use kmctl_core::model::pods::{PodFacts, Uid};
use mesos::types::{AgentInfo, Offer, OfferId, TaskStatus};

/// Matches an answer to the HTTP request that waits for it.
pub type RequestId = u64;

/// An input event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The framework is subscribed and its id is saved. Everything received on an earlier stream is void.
    Subscribed,
    /// The stream broke.
    Disconnected,
    /// Offers arrived.
    Offers(Vec<Offer>),
    /// An offer was rescinded.
    Rescinded(String),
    /// A task's status update.
    Update(Box<TaskStatus>),
    /// An executor ended.
    ExecutorEnded {
        /// Id of the agent that it ran on.
        agent: String,
        executor: String,
    },
    /// An agent was removed from Mesos, or is unreachable.
    AgentLost(String),
    /// All agents, from the operator API.
    Agents(Vec<AgentInfo>),
    /// A pod's current state.
    Pod(Box<PodFacts>),
    /// A pod was deleted from the API.
    PodGone(Uid),
    /// A node's current state.
    Node(Box<NodeFacts>),
    /// A node was deleted from the API.
    NodeGone(String),
    /// The first list of pods is complete.
    PodsSynced,
    /// The first list of nodes is complete.
    NodesSynced,
    /// Live settings, read from the API for the first time or changed.
    Bounds(Bounds),
    /// Agents that ever had a node, from the framework's ConfigMap.
    KnownAgents(Vec<String>),
    /// kube-scheduler requests the eligible nodes of a pod.
    Filter {
        /// Matches the answer to the request.
        request: RequestId,
        /// The pod, as kube-scheduler sees it.
        pod: Box<PodFacts>,
        /// Nodes that passed kube-scheduler's own filters.
        nodes: Vec<String>,
    },
    /// kube-scheduler requests scores of the nodes.
    Prioritize {
        /// Matches the answer to the request.
        request: RequestId,
        /// Nodes that passed the filters.
        nodes: Vec<String>,
    },
    /// kube-scheduler has chosen a node.
    Bind {
        /// Matches the answer to the request.
        request: RequestId,
        /// UID of the pod.
        uid: Uid,
        node: String,
    },
    /// A node's token and annotations are written, so the node can be launched.
    NodePrepared {
        node: String,
        /// Passed to the node agent in the node's first launch.
        token: Token,
    },
    /// An effect on a node failed.
    NodeFailed {
        node: String,
        /// The effect that failed.
        step: NodeStep,
        why: String,
    },
    /// The Binding was accepted or refused by the API server.
    BindingPosted {
        /// UID of the pod.
        uid: Uid,
        /// None if it was accepted.
        error: Option<String>,
    },
    /// A call that returns offers to Mesos failed although the framework is subscribed: Mesos may still count them as
    /// ours.
    OffersNotReturned {
        offers: Vec<OfferId>,
        /// Refuse seconds of the call.
        seconds: u32,
    },
    /// The end of a purge could not be recorded.
    PurgeNotRecorded,
    /// Only time has passed.
    Tick,
}

/// Effects on a node that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStep {
    /// Creating the object.
    Create,
    /// Writing token and annotations before the launch.
    Prepare,
    /// Publishing what Mesos has granted to it.
    Publish,
}

/// The live settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Minimum number of nodes, kept even when idle.
    pub min: u32,
    /// Maximum number of nodes. None means every eligible agent.
    pub max: Option<u32>,
    /// Remove everything from the agents.
    pub purge: bool,
    /// The purge is done, by this process or an earlier one.
    pub purged: bool,
}

/// A bootstrap token, `id.secret`. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
