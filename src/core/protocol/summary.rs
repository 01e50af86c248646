//! Metrics of km scheduler.
use std::collections::BTreeMap;

/// How the answer of `/healthz` begins while the scheduler is held ([`Summary::held`]): waiting changes nothing.
pub const HELD_PREFIX: &str = "held: ";

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
    /// Why the scheduler does nothing at all, until an operator has decided. `None` while it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Number of nodes kept even when idle, as read from the live settings.
    #[serde(default)]
    pub min: u32,
    /// Maximum number of nodes, as read from the live settings; `None` means every eligible agent.
    #[serde(default)]
    pub max: Option<u32>,
}
