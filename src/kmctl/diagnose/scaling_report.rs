//! The bounds, the nodes, and why each node exists, as text and as JSON.
use kmctl_core::model::nodes::shown_state;
use serde::Serialize;

use super::scaling::{Situation, count, node_reason};
use crate::inventory::bounds::Bounds;

/// What `scale` shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    #[serde(flatten)]
    bounds: Bounds,
    /// The bounds in cluster.yaml.
    file: Bounds,
    /// Whether the number of nodes follows the demand.
    auto_scaling: bool,
    ready: usize,
    nodes: Vec<ShownNode>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownNode {
    name: String,
    state: String,
    why: String,
}

impl Shown {
    pub(crate) fn new(bounds: Bounds, situation: &Situation<'_>) -> Shown {
        let node = |node: &crate::inventory::workloads::NodeView| ShownNode {
            name: node.facts.name.clone(),
            state: node.facts.phase.to_string(),
            why: node_reason(node, bounds, situation),
        };
        Shown {
            bounds,
            file: Bounds::of(&situation.cluster.spec.nodes),
            auto_scaling: bounds.automatic(),
            ready: count(situation.seen).ready,
            nodes: situation.seen.nodes.iter().map(node).collect(),
        }
    }

    /// Formats it as text.
    pub(crate) fn text(&self) -> String {
        let Shown { bounds, file, auto_scaling, ready, nodes } = self;
        let mut text = format!("{}\n", bounds.shown());
        if bounds != file {
            text.push_str(&format!("set with `kmctl scale`, kept by `kmctl up` (cluster.yaml: {})\n", file.shown()));
        }
        if !auto_scaling {
            text.push_str("autoscaling is disabled: min equals max\n");
        }
        text.push_str(&format!("nodes {}, ready {ready}\n", nodes.len()));
        let width =
            |of: fn(&ShownNode) -> &String| nodes.iter().map(|node| of(node).chars().count()).max().unwrap_or(0);
        let (names, states) = (width(|node| &node.name), width(|node| &node.state));
        for ShownNode { name, state, why } in nodes {
            let state = shown_state(state);
            text.push_str(&format!("  {name:names$}  {state:states$}  {why}\n"));
        }
        text
    }
}
