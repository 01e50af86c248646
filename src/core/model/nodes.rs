//! Node objects, reduced to what the scheduler's decisions depend on, and the state of a node.
use std::fmt;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::resources::Amount;
use super::selectors::Labels;
use crate::cluster::quantity::{Bytes, Millicores};
use crate::k8s::names::{
    AGENT_ID_ANNOTATION, EXECUTOR_ANNOTATION, NODE_TASK_ANNOTATION, REASON_ANNOTATION, STATE_ANNOTATION,
    TOKEN_ID_ANNOTATION,
};
use mesos::types::ExecutorInfo;

/// Taint of a node that is about to be removed.
pub const LEAVING_TAINT: &str = "kmctl.io/leaving";

/// The value of the Node's state annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePhase {
    /// A Node object without an executor.
    Candidate,
    /// The executor is launched; the kubelet has not reported yet.
    Starting,
    /// The kubelet has reported.
    Ready,
    /// Accepts no new pods; the executor is stopped, then the Node object is removed.
    Leaving,
}

impl NodePhase {
    /// The annotation's value.
    pub fn as_str(self) -> &'static str {
        match self {
            NodePhase::Candidate => "candidate",
            NodePhase::Starting => "starting",
            NodePhase::Ready => "ready",
            NodePhase::Leaving => "leaving",
        }
    }

    fn read(text: Option<&str>) -> NodePhase {
        match text {
            Some("starting") => NodePhase::Starting,
            Some("ready") => NodePhase::Ready,
            Some("leaving") => NodePhase::Leaving,
            _ => NodePhase::Candidate,
        }
    }
}

/// A node's state as messages call it. The annotation keeps its value.
pub fn shown_state(state: &str) -> &str {
    if state == NodePhase::Leaving.as_str() { "draining" } else { state }
}

impl fmt::Display for NodePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of our Node objects, as read from the API.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    /// The agent that it represents.
    pub agent: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// From the state annotation.
    pub phase: NodePhase,
    /// Why it is in this state; empty if not given.
    pub why: String,
    /// The executor's ExecutorInfo, as saved in the annotation.
    pub executor: Option<ExecutorInfo>,
    /// Id of the node task.
    pub task: Option<String>,
    /// Id of the bootstrap token.
    pub token_id: Option<String>,
    /// Whether a kubelet has written its status.
    pub kubelet: bool,
    /// Whether that kubelet reports Ready.
    pub ready: bool,
    /// `status.allocatable`.
    pub allocatable: Amount,
    /// `status.allocatable.pods`.
    pub most_pods: usize,
    /// InternalIP.
    pub address: Option<String>,
}

impl NodeFacts {
    /// Reads a Node; `None` if it does not represent a Mesos agent.
    pub fn new(node: &Node) -> Option<NodeFacts> {
        let meta = &node.metadata;
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name));
        let status = node.status.clone().unwrap_or_default();
        let kubelet = status.node_info.as_ref().is_some_and(|info| !info.kubelet_version.is_empty());
        let allocatable = status.allocatable.unwrap_or_default();
        let text = |name: &str| allocatable.get(name).map(|quantity| quantity.0.as_str()).unwrap_or("0");
        let number = |parsed: u64| i64::try_from(parsed).unwrap_or(i64::MAX);
        let cpus = number(text("cpu").parse().map_or(0, |Millicores(number)| number));
        // Rounded down, so that available memory is not overstated.
        let megabytes = number(text("memory").parse().map_or(0, |Bytes(number)| number)) >> 20;
        let most_pods = text("pods").parse().unwrap_or(0);
        let addresses = status.addresses.unwrap_or_default();
        Some(NodeFacts {
            name: meta.name.clone()?,
            agent: annotation(AGENT_ID_ANNOTATION)?.clone(),
            labels: meta.labels.clone().unwrap_or_default(),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            phase: NodePhase::read(annotation(STATE_ANNOTATION).map(String::as_str)),
            why: annotation(REASON_ANNOTATION).cloned().unwrap_or_default(),
            executor: annotation(EXECUTOR_ANNOTATION).and_then(|text| serde_json::from_str(text).ok()),
            task: annotation(NODE_TASK_ANNOTATION).cloned(),
            token_id: annotation(TOKEN_ID_ANNOTATION).cloned(),
            kubelet,
            ready: kubelet
                && status.conditions.iter().flatten().any(|each| each.type_ == "Ready" && each.status == "True"),
            allocatable: Amount::new(cpus, megabytes),
            most_pods,
            address: addresses.into_iter().find(|each| each.type_ == "InternalIP").map(|each| each.address),
        })
    }
}
