//! Creates the Node object of a candidate: an agent that could become a node.
use serde_json::{Value, json};

use crate::k8s::names::{AGENT_ID_ANNOTATION, MANAGED_BY_LABEL, MANAGER, STATE_ANNOTATION};
use crate::model::nodes::NodePhase;
use crate::model::resources::Amount;
use crate::model::selectors::Labels;

/// A Node object to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    pub name: String,
    /// The agent that it represents.
    pub agent: String,
    pub labels: Labels,
    pub address: Option<std::net::IpAddr>,
    /// Capacity and allocatable until a kubelet reports its own.
    pub capacity: Amount,
    /// Thousandths of a megabyte of disk, for pods that request ephemeral storage; 0 if unknown.
    pub disk: i64,
    /// Subnet of its pods, if we assign it.
    pub pod_cidr: Option<String>,
    /// Features that its kubelet will declare.
    pub declared_features: &'static [&'static str],
}

/// The Node object of a candidate, created at the time `now` (RFC 3339).
pub fn candidate(spec: NodeSpec, now: &str) -> Value {
    let NodeSpec { name, agent, mut labels, address, capacity, disk, pod_cidr, declared_features } = spec;
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    let mut resources =
        json!({"cpu": format!("{}m", capacity.cpus), "memory": format!("{}Mi", capacity.mem / 1000), "pods": "110"});
    // Without it, a pod that requests ephemeral storage would never start a node.
    if disk > 0 {
        resources["ephemeral-storage"] = json!(format!("{}Mi", disk / 1000));
    }
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "Candidate",
            "message": "a Mesos agent that starts a kubelet when a pod is bound to it",
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let conditions: Vec<Value> =
        [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")]
            .into_iter()
            .map(|(kind, status)| condition(kind, status))
            .collect();
    let mut addresses = vec![json!({"type": "Hostname", "address": name})];
    addresses.extend(address.map(|address| json!({"type": "InternalIP", "address": address.to_string()})));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": labels,
            "annotations": {AGENT_ID_ANNOTATION: agent, STATE_ANNOTATION: NodePhase::Candidate.as_str()}},
        // All nodes have the same pod subnet, which is only meaningful on the node itself. It is set because of the
        // kubelet's first report: if its Node has a subnet, the kubelet reports as soon as its runtime is up, otherwise
        // only with its next period of ten seconds (fastStatusUpdateOnce, pkg/kubelet/kubelet.go).
        "spec": {"podCIDR": pod_cidr, "podCIDRs": Vec::from_iter(&pod_cidr)},
        "status": {"capacity": resources, "allocatable": resources, "conditions": conditions, "addresses": addresses,
            "declaredFeatures": declared_features},
    })
}
