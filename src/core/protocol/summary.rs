//! Metrics of km scheduler.
use std::collections::BTreeMap;

/// Values for /metrics and /state.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes by state.
    pub nodes: BTreeMap<String, usize>,
    /// Pods without a node.
    pub pending_pods: usize,
    /// Pods between kube-scheduler's bind call and the posted Binding.
    pub pods_in_flight: usize,
    /// Mesos tasks that have not finished.
    pub tasks: usize,
    /// Offers held.
    pub offers: usize,
    /// Agents known.
    pub agents: usize,
    /// Whether offers are suppressed.
    pub suppressed: bool,
    /// Whether the scheduler knows everything it needs, so that it makes decisions.
    pub acting: bool,
    /// Number of nodes kept even when idle, as read from the live settings.
    #[serde(default)]
    pub min: u32,
    /// Maximum number of nodes, as read from the live settings; `None` means every eligible agent.
    #[serde(default)]
    pub max: Option<u32>,
}
