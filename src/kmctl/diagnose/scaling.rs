//! What a change of the bounds will do, its progress, and what blocks it. No I/O, no clock, no randomness.
use k8s_openapi::jiff::Timestamp;

use crate::diagnose::why::{empty_node, figures, free, keeping, pods, span, total};
use crate::diagnose::{Kind, Reason};
use crate::inventory::bounds::Bounds;
use crate::inventory::mesos::{Agent, Master};
use crate::inventory::workloads::{NodeView, Workloads};
use crate::plan::preflight::eligible;
use kmctl_core::cluster::Cluster;
use kmctl_core::model::drain_cost::{DrainCost, Stage, surplus};
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::resources::decimal;
use kmctl_core::protocol::Summary;
use kmctl_core::text;

/// The collected facts.
#[derive(Clone, Copy)]
pub(crate) struct Situation<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) seen: &'a Workloads,
    /// `None` if it could not be queried.
    pub(crate) master: Option<&'a Master>,
    /// The km scheduler's summary, likewise.
    pub(crate) scheduler: Option<&'a Summary>,
    pub(crate) now: Timestamp,
}

/// How far the change has progressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) done: bool,
    pub(crate) text: String,
}

/// How many nodes there are, and how many are ready.
pub(crate) struct Count {
    pub(crate) all: usize,
    pub(crate) ready: usize,
}

pub(crate) fn count(seen: &Workloads) -> Count {
    let ready = seen.nodes.iter().filter(|node| node.facts.phase == NodePhase::Ready && node.facts.ready).count();
    Count { all: seen.nodes.len(), ready }
}

/// Whether the bounds hold.
pub(crate) fn progress(bounds: Bounds, seen: &Workloads) -> Progress {
    let Count { all, ready } = count(seen);
    let (enough, few) = (ready >= bounds.min as usize, bounds.max.is_none_or(|max| all <= max as usize));
    let mut parts = Vec::new();
    if !enough {
        parts.push(format!("{ready} of {} ready", text::count(bounds.min, "node")));
    }
    if !few {
        parts.push(format!("{}, maximum is {}", text::count(all, "node"), bounds.shown_max()));
    }
    let on_the_way = seen.nodes.iter().filter_map(|node| {
        let name = &node.facts.name;
        match node.facts.phase {
            NodePhase::Starting => Some(format!("{name} is starting")),
            NodePhase::Leaving => Some(format!("{name} is draining ({} left)", pods(seen.keeping(name).count()))),
            NodePhase::Candidate | NodePhase::Ready => None,
        }
    });
    if !(enough && few) {
        parts.extend(on_the_way);
    }
    Progress { done: enough && few, text: parts.join("; ") }
}

/// What blocks the change.
pub(crate) fn obstacles(bounds: Bounds, situation: &Situation<'_>) -> Vec<Reason> {
    let Situation { seen, scheduler, now, .. } = situation;
    let mut reasons = Vec::new();
    match scheduler {
        None => reasons.push(Reason::new(Kind::Scheduler, "km-scheduler is not responding", "kmctl status")),
        Some(summary) if !summary.acting => reasons.push(Reason::new(
            Kind::Scheduler,
            "km-scheduler is not active: it is not connected to Mesos, or is waiting for the state of its tasks",
            "check Mesos: kmctl check",
        )),
        Some(_) => {}
    }
    let open = seen.nodes.iter().filter(|node| node.facts.phase != NodePhase::Leaving).count();
    let missing = (bounds.min as usize).saturating_sub(open);
    if missing > 0 {
        reasons.extend(too_few_agents(missing, situation));
    }
    for node in seen.nodes.iter().filter(|node| node.facts.phase == NodePhase::Starting) {
        let since = node.created.map_or(0, |created| now.as_second() - created.as_second());
        reasons.push(Reason::passing(
            Kind::Time,
            format!("node {} has been starting for {}", node.facts.name, span(since)),
        ));
    }
    let max = bounds.max.map_or(usize::MAX, |max| max as usize);
    if seen.nodes.len() > max {
        for node in seen.nodes.iter().filter(|node| node.facts.phase == NodePhase::Leaving) {
            let mut own = keeping(&node.facts.name, seen, *now);
            for reason in &mut own {
                reason.what = format!("node {}: {}", node.facts.name, reason.what);
            }
            reasons.extend(own);
        }
    }
    reasons
}

/// Whether intervention is needed because waiting alone does not help. A budget may allow evictions later, and others
/// may free the agents that they use.
pub(crate) fn needs_somebody(reasons: &[Reason]) -> bool {
    let for_good = |kind: Kind| matches!(kind, Kind::NoController | Kind::Agents | Kind::Scheduler | Kind::Mesos);
    reasons.iter().any(|reason| for_good(reason.kind))
}

/// Agents that could become nodes but are none yet.
fn able<'a>(situation: &Situation<'a>, master: &'a Master) -> Vec<&'a Agent> {
    let taken = |agent: &Agent| situation.seen.nodes.iter().any(|node| node.facts.agent == agent.id);
    eligible(situation.cluster, &master.agents).filter(|agent| !taken(agent)).collect()
}

fn too_few_agents(missing: usize, situation: &Situation<'_>) -> Option<Reason> {
    let Some(master) = situation.master else {
        return Some(Reason::new(Kind::Mesos, "Mesos is not responding", "kmctl check"));
    };
    let able = able(situation, master);
    if able.len() < missing {
        let all = master.agents.len();
        let fit = eligible(situation.cluster, &master.agents).count();
        return Some(Reason::new(
            Kind::Agents,
            format!(
                "{} required; {} left; {fit} of {all} Mesos agents are eligible",
                more_nodes(missing),
                text::count(able.len(), "eligible agent")
            ),
            "list ineligible agents with kmctl check, or lower the minimum: kmctl scale --min N",
        ));
    }
    let need = empty_node(situation.cluster);
    let lacking: Vec<&&Agent> = able.iter().filter(|agent| !free(agent).covers(need)).collect();
    if able.len() - lacking.len() >= missing {
        let text = format!("{} required; waiting for Mesos offers", more_nodes(missing));
        return Some(Reason::passing(Kind::Time, text));
    }
    let lacks: Vec<String> = lacking
        .iter()
        .map(|agent| {
            let (free, all) = (free(agent), total(agent));
            let of = |free: i64, all: i64| format!("{} of {}", decimal(free), decimal(all));
            format!("{} has {} CPU and {} MiB free", agent.hostname, of(free.cpus, all.cpus), of(free.mem, all.mem))
        })
        .collect();
    Some(Reason::new(
        Kind::Taken,
        format!(
            "{} required, but agents are used by other frameworks: {}; a node needs {}",
            more_nodes(missing),
            lacks.join("; "),
            figures(need)
        ),
        "raise the weight or quota of the role in Mesos, or lower the minimum: kmctl scale --min N",
    ))
}

fn more_nodes(missing: usize) -> String {
    text::count(missing, "more node")
}

/// The cost of removing a node.
fn burden(node: &NodeView, seen: &Workloads) -> DrainCost {
    let stage = match node.facts.phase {
        NodePhase::Candidate => Stage::Candidate,
        NodePhase::Starting => Stage::Starting,
        NodePhase::Ready | NodePhase::Leaving => Stage::Ready,
    };
    let mut burden = DrainCost::new(&node.facts.name, stage);
    for pod in seen.keeping(&node.facts.name) {
        burden.add(pod.facts.amount, pod.facts.controlled);
    }
    burden
}

/// What a change of the bounds would do, line by line.
pub(crate) fn preview(after: Bounds, situation: &Situation<'_>) -> Vec<String> {
    let Situation { seen, now, .. } = situation;
    let open: Vec<&NodeView> = seen.nodes.iter().filter(|node| node.facts.phase != NodePhase::Leaving).collect();
    let mut lines = Vec::new();
    let missing = (after.min as usize).saturating_sub(open.len());
    if missing > 0 {
        let agents = match situation.master {
            Some(master) => {
                let names: Vec<&str> = able(situation, master).iter().map(|agent| agent.hostname.as_str()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                format!(" on eligible agents: {names}")
            }
            None => String::new(),
        };
        lines.push(format!("+ {} will start{agents}", more_nodes(missing)));
        let reason = too_few_agents(missing, situation).filter(|reason| !reason.cure.is_empty());
        lines.extend(reason.map(|reason| format!("    ! {}", reason.what)));
    }
    let max = after.max.map_or(usize::MAX, |max| max as usize);
    let going = surplus(open.iter().map(|node| burden(node, seen)).collect(), max);
    for (burden, _) in &going {
        lines.push(format!("- {}: {}", burden.node(), burden.describe()));
        let blocked = keeping(burden.node(), seen, *now).into_iter().filter(|reason| !reason.cure.is_empty());
        lines.extend(blocked.map(|reason| format!("    ! {}", reason.what)));
    }
    if !going.is_empty() {
        let stays = |node: &&&NodeView| going.iter().all(|(burden, _)| burden.node() != node.facts.name);
        for node in open.iter().filter(stays) {
            lines.push(format!("= {}: {}", node.facts.name, burden(node, seen).describe()));
        }
    }
    if lines.is_empty() {
        lines.push("= no nodes will be added or removed".to_owned());
    }
    lines
}

/// Why a node exists.
pub(crate) fn node_reason(node: &NodeView, bounds: Bounds, situation: &Situation<'_>) -> String {
    let Situation { cluster, seen, .. } = situation;
    let count = seen.keeping(&node.facts.name).count();
    let others = self::count(seen).ready.saturating_sub(1);
    match node.facts.phase {
        NodePhase::Candidate if count == 0 => "candidate for pending pods".to_owned(),
        NodePhase::Candidate | NodePhase::Starting if count == 0 => "starting to reach min".to_owned(),
        NodePhase::Candidate | NodePhase::Starting => format!("starting for {}", pods(count)),
        NodePhase::Ready if count > 0 => format!("used by {}", pods(count)),
        NodePhase::Ready if others < bounds.min as usize => "idle, kept by min".to_owned(),
        NodePhase::Ready => format!("idle, removed after {}", cluster.spec.nodes.idle_timeout),
        NodePhase::Leaving => {
            let why = if node.facts.why.is_empty() { "no longer needed" } else { &node.facts.why };
            format!("{} left; {why}", pods(count))
        }
    }
}

#[cfg(test)]
#[path = "scaling_tests.rs"]
mod tests;
