//! What the scheduler wants done. The executor of effects takes no decision of its own.
use kmctl_core::model::candidate::NodeSpec;
use std::collections::BTreeMap;

use super::event::RequestId;
use super::refused::Refused;
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::pods::Uid;
use kmctl_core::model::resources::Amount;
use mesos::types::{ExecutorInfo, OfferId, TaskInfo};

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Launch tasks of one agent and role; what the offers hold beyond them goes back without a filter.
    Accept {
        /// All offers held from the agent.
        offers: Vec<OfferId>,
        /// The tasks.
        tasks: Vec<TaskInfo>,
    },
    /// Give offers back.
    Decline {
        /// Which.
        offers: Vec<OfferId>,
        /// How long the same resources are not to be offered again.
        seconds: u32,
    },
    /// Want no offers.
    Suppress,
    /// Want offers, also those declined before.
    Revive,
    /// End a task.
    Kill {
        /// The task.
        task: String,
        /// Its agent, where known.
        agent: Option<String>,
    },
    /// Tell Mesos that an update was heard.
    Acknowledge {
        /// The agent that sent it.
        agent: String,
        /// The task.
        task: String,
        /// The update.
        uuid: Vec<u8>,
    },
    /// Ask for the states of tasks, with their agents where known; none means all.
    Reconcile(Vec<(String, Option<String>)>),
    /// Ask the operator API for all agents.
    ListAgents,
    /// Create a Node object that stands for an agent.
    CreateNode(NodeSpec),
    /// Make a bootstrap token, record it with the executor on the Node, and the agent in the framework's ConfigMap.
    PrepareNode {
        /// The node.
        node: String,
        /// Its agent.
        agent: String,
        /// Saved verbatim.
        executor: Box<ExecutorInfo>,
        /// The node task's id.
        task: String,
    },
    /// Write a node's state, and the taint that belongs to it.
    MarkNode {
        /// The node.
        node: String,
        /// Its state.
        phase: NodePhase,
        /// Why it is in it, where that is worth telling; else empty.
        why: String,
    },
    /// Publish what Mesos has granted to a node.
    PublishGrant {
        /// The node.
        node: String,
        /// Sum of its tasks and its executor.
        grant: Amount,
    },
    /// Renew the Lease of a node that has no kubelet yet.
    RenewLease {
        /// The node.
        node: String,
    },
    /// Delete a Node object, and its unused token.
    DeleteNode {
        /// The node.
        node: String,
        /// Id of the token.
        token_id: Option<String>,
    },
    /// Bind a pod to its node.
    Bind(Binding),
    /// Record again what a pod's Binding recorded.
    Record {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: Uid,
        /// The annotations.
        annotations: BTreeMap<String, String>,
    },
    /// Make kube-scheduler look at a pod again.
    Nudge {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: Uid,
    },
    /// Tell a pod's owner why it waits.
    Explain {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: Uid,
        /// The text of a FailedScheduling event.
        message: String,
    },
    /// Evict a pod, unless its disruption budgets forbid it for now.
    EvictPod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: Uid,
    },
    /// Delete a pod, so that its controller makes another.
    DeletePod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its UID.
        uid: Uid,
        /// Without waiting for a kubelet, because there is none any more.
        force: bool,
    },
    /// Answer a filter request.
    AnswerFilter {
        /// Which.
        request: RequestId,
        /// Nodes that will do.
        kept: Vec<String>,
        /// The others, with reasons.
        failed: BTreeMap<String, Refused>,
    },
    /// Answer a prioritize request: 0 to 10, more is better.
    AnswerPrioritize {
        /// Which.
        request: RequestId,
        /// By node.
        scores: Vec<(String, i64)>,
    },
    /// Answer a bind request.
    AnswerBind {
        /// Which.
        request: RequestId,
        /// None where the pod is bound.
        error: Option<String>,
    },
    /// Everything is removed from the agents: say so in the live settings.
    PurgeDone,
    /// Worth a line in the log.
    Report(String),
}

/// A Binding to post.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: Uid,
    /// The node.
    pub node: String,
    /// Merged into the pod by the API server.
    pub annotations: BTreeMap<String, String>,
}

impl Effect {
    /// A word for each kind, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Effect::Accept { .. } => "accept",
            Effect::Decline { .. } => "decline",
            Effect::Suppress => "suppress",
            Effect::Revive => "revive",
            Effect::Kill { .. } => "kill",
            Effect::Acknowledge { .. } => "acknowledge",
            Effect::Reconcile(_) => "reconcile",
            Effect::ListAgents => "list_agents",
            Effect::CreateNode(_) => "create_node",
            Effect::PrepareNode { .. } => "prepare_node",
            Effect::MarkNode { .. } => "mark_node",
            Effect::PublishGrant { .. } => "publish_grant",
            Effect::RenewLease { .. } => "renew_lease",
            Effect::DeleteNode { .. } => "delete_node",
            Effect::Bind(_) => "bind",
            Effect::Record { .. } => "record",
            Effect::Nudge { .. } => "nudge",
            Effect::Explain { .. } => "explain",
            Effect::EvictPod { .. } => "evict_pod",
            Effect::DeletePod { .. } => "delete_pod",
            Effect::AnswerFilter { .. } => "answer_filter",
            Effect::AnswerPrioritize { .. } => "answer_prioritize",
            Effect::AnswerBind { .. } => "answer_bind",
            Effect::PurgeDone => "purge_done",
            Effect::Report(_) => "report",
        }
    }
}
