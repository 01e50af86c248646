//! Figures that km scheduler shows of itself.
use std::collections::BTreeMap;

/// Figures for /metrics and /state.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Nodes by state.
    pub nodes: BTreeMap<String, usize>,
    /// Pods without a node.
    pub pending_pods: usize,
    /// Pods between bind and Binding.
    pub pods_in_flight: usize,
    /// Mesos tasks that are not over.
    pub tasks: usize,
    /// Offers held.
    pub offers: usize,
    /// Agents known.
    pub agents: usize,
    /// Whether offers are unwanted.
    pub suppressed: bool,
    /// Whether everything is known, so that decisions are taken.
    pub acting: bool,
    /// Nodes kept even when idle, as read from the live settings.
    #[serde(default)]
    pub min: u32,
    /// Most nodes, as read from the live settings; none means every agent that fits.
    #[serde(default)]
    pub max: Option<u32>,
}
