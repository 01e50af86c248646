//! What the scheduler wants done. The executor of effects makes no decisions.
use kmctl_core::model::candidate::NodeSpec;
use std::collections::BTreeMap;

use super::event::RequestId;
use super::refused::Refused;
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::pods::{PodFacts, Uid};
use kmctl_core::model::resources::Amount;
use mesos::types::{ExecutorInfo, OfferId, TaskInfo};

/// Something to be done, by its destination.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A call of the framework, in order with the others.
    Mesos(MesosCall),
    /// List all agents through the operator API.
    ListAgents,
    /// A request to the API server, beside others.
    Api(ApiRequest),
    /// The answer to a request of kube-scheduler.
    Answer(RequestId, Answer),
    /// Write a line to the log.
    Report(String),
}

/// Calls of the framework.
#[derive(Clone, Debug, PartialEq)]
pub enum MesosCall {
    /// Launch tasks of one agent and role. Mesos recovers the rest of the offers, without a filter.
    Accept {
        /// All offers held from the agent.
        offers: Vec<OfferId>,
        tasks: Vec<TaskInfo>,
    },
    /// Decline offers.
    Decline {
        offers: Vec<OfferId>,
        /// Refuse seconds: how long the same resources are not offered again.
        seconds: u32,
    },
    /// Stop receiving offers.
    Suppress,
    /// Receive offers, including ones declined before.
    Revive,
    /// Kill a task.
    Kill {
        task: String,
        /// Its agent, where known.
        agent: Option<String>,
    },
    /// Acknowledge a status update to Mesos.
    Acknowledge {
        /// The agent that sent it.
        agent: String,
        task: String,
        /// Id of the update.
        uuid: Vec<u8>,
    },
    /// Request the states of tasks, with their agents where known. An empty list means all tasks.
    Reconcile(Vec<(String, Option<String>)>),
}

/// Requests to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiRequest {
    /// Create a Node object that represents an agent.
    CreateNode(NodeSpec),
    /// Create a bootstrap token, record it on the Node together with the executor, and add the agent to the framework's
    /// ConfigMap.
    PrepareNode {
        node: String,
        agent: String,
        /// Saved verbatim.
        executor: Box<ExecutorInfo>,
        /// The node task's id.
        task: String,
    },
    /// Write a node's state, and the taint that belongs to it.
    MarkNode {
        node: String,
        phase: NodePhase,
        /// Reason for the state, where worth reporting. Otherwise empty.
        why: String,
    },
    /// Publish what Mesos has granted to a node.
    PublishGrant {
        node: String,
        /// Sum of the node's tasks and its executor.
        grant: Amount,
    },
    /// Renew the Lease of a node that has no kubelet yet.
    RenewLease {
        /// Name of the Node, of its Lease and of the Lease's holder.
        node: String,
    },
    /// Delete a Node object, and its unused token.
    DeleteNode {
        node: String,
        /// Id of the bootstrap token, if the Node records one.
        token_id: Option<String>,
    },
    /// Bind a pod to its node.
    Bind(Binding),
    /// Write the annotations of a pod's Binding again.
    Record {
        namespace: String,
        name: String,
        uid: Uid,
        /// The recorded annotations: task, grant and ports.
        annotations: BTreeMap<String, String>,
    },
    /// Make kube-scheduler try a pod again.
    Nudge {
        namespace: String,
        name: String,
        /// The pod is nudged only if it still has this UID.
        uid: Uid,
    },
    /// Report to a pod's owner why the pod waits.
    Explain {
        namespace: String,
        name: String,
        uid: Uid,
        /// The text of a FailedScheduling event.
        message: String,
    },
    /// Evict a pod, unless its disruption budgets forbid it for now.
    EvictPod {
        namespace: String,
        name: String,
        /// The pod is evicted only if it still has this UID.
        uid: Uid,
    },
    /// Delete a pod, so that its controller creates another.
    DeletePod {
        namespace: String,
        name: String,
        uid: Uid,
        /// Without waiting for a kubelet, because none exists any more.
        force: bool,
    },
    /// The purge is over: record it in the live settings.
    PurgeDone {
        /// Agents that may still hold something, with the reason.
        uncleaned: BTreeMap<String, String>,
    },
}

/// Answers to kube-scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Answer to filter.
    Filter {
        /// Eligible nodes.
        kept: Vec<String>,
        /// The other nodes, with reasons.
        failed: BTreeMap<String, Refused>,
    },
    /// Answer to prioritize: scores by node, from 0 to 10. Higher is better.
    Prioritize(Vec<(String, i64)>),
    /// Answer to bind: why the pod is not bound; none if it is.
    Bind(Option<String>),
}

/// A Binding to post.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    pub namespace: String,
    pub name: String,
    pub uid: Uid,
    pub node: String,
    /// Merged into the pod by the API server.
    pub annotations: BTreeMap<String, String>,
}

impl Effect {
    /// Name of the kind, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Effect::Mesos(call) => call.kind(),
            Effect::ListAgents => "list_agents",
            Effect::Api(request) => request.kind(),
            Effect::Answer(_, Answer::Filter { .. }) => "answer_filter",
            Effect::Answer(_, Answer::Prioritize(_)) => "answer_prioritize",
            Effect::Answer(_, Answer::Bind(_)) => "answer_bind",
            Effect::Report(_) => "report",
        }
    }
}

impl MesosCall {
    /// Name of the kind, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            MesosCall::Accept { .. } => "accept",
            MesosCall::Decline { .. } => "decline",
            MesosCall::Suppress => "suppress",
            MesosCall::Revive => "revive",
            MesosCall::Kill { .. } => "kill",
            MesosCall::Acknowledge { .. } => "acknowledge",
            MesosCall::Reconcile(_) => "reconcile",
        }
    }
}

impl ApiRequest {
    /// Deletes a pod, with `force` if no kubelet exists any more.
    pub(super) fn delete_pod(pod: &PodFacts, force: bool) -> ApiRequest {
        let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
        ApiRequest::DeletePod { namespace, name, uid, force }
    }

    /// Name of the kind, for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            ApiRequest::CreateNode(_) => "create_node",
            ApiRequest::PrepareNode { .. } => "prepare_node",
            ApiRequest::MarkNode { .. } => "mark_node",
            ApiRequest::PublishGrant { .. } => "publish_grant",
            ApiRequest::RenewLease { .. } => "renew_lease",
            ApiRequest::DeleteNode { .. } => "delete_node",
            ApiRequest::Bind(_) => "bind",
            ApiRequest::Record { .. } => "record",
            ApiRequest::Nudge { .. } => "nudge",
            ApiRequest::Explain { .. } => "explain",
            ApiRequest::EvictPod { .. } => "evict_pod",
            ApiRequest::DeletePod { .. } => "delete_pod",
            ApiRequest::PurgeDone { .. } => "purge_done",
        }
    }
}
