//! Why an agent's resources are not used.
use super::places::{Place, Rejection, figures, place};
use super::{Facts, free, total};
use crate::diagnose::{Answer, Kind, Reason};
use crate::inventory::mesos::Agent;
use crate::plan::preflight::{Ineligible, reason_against};
use kmctl_core::model::nodes::NodePhase;

/// How many waiting pods are listed individually.
const SHOWN: usize = 5;

/// What prevents an agent's offers from being used.
pub(crate) fn offer(agent: &Agent, facts: &Facts<'_>) -> Answer {
    let node = facts.seen.nodes.iter().find(|node| node.facts.agent == agent.id);
    let used = node.map_or("no node of this cluster there".to_owned(), |node| {
        format!("node {} is {}", node.facts.name, node.facts.phase)
    });
    let state = format!("{} of {} free; {used}", figures(free(agent)), figures(total(agent)));
    let mut reasons: Vec<Reason> = facts.scheduler_trouble().into_iter().collect();
    reasons.extend(against_agent(agent, facts));
    if reasons.is_empty() {
        reasons.extend(demand(agent, facts));
    }
    Answer { about: format!("offer of agent {}", agent.hostname), state, reasons, said: Vec::new() }
}

/// What rules out the agent regardless of which pods wait.
fn against_agent(agent: &Agent, facts: &Facts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !agent.active {
        let cure = "see whether its mesos-agent runs, and whether it was deactivated for maintenance";
        reasons.push(Reason::new(Kind::Agent, "the agent takes no part in Mesos: it is not active", cure));
    } else if let Some(why) = reason_against(facts.cluster, agent) {
        let kind = if matches!(why, Ineligible::Constraint(_)) { Kind::Constraint } else { Kind::TooLarge };
        let cure = match kind {
            Kind::Constraint => "change nodes.constraints in cluster.yaml, or the agent's --attributes",
            _ => "give the agent more in --resources, or lower nodes.overhead and nodes.podDefaults",
        };
        reasons.push(Reason::new(kind, why.to_string(), cure));
    }
    let node = facts.seen.nodes.iter().find(|node| node.facts.agent == agent.id);
    if let Some(node) = node.filter(|node| node.facts.phase == NodePhase::Leaving) {
        let text = format!("its node {} is about to go and takes no pods", node.facts.name);
        reasons.push(Reason::new(Kind::Node, text, format!("`kmctl why node {}`", node.facts.name)));
    }
    reasons
}

fn demand(agent: &Agent, facts: &Facts<'_>) -> Vec<Reason> {
    let waiting: Vec<_> = facts.seen.pods.iter().filter(|pod| pod.facts.pending() && !pod.facts.daemon).collect();
    if waiting.is_empty() {
        let text = "no pod waits, so km scheduler wants no offers; others are offered the agent";
        return vec![Reason::passing(Kind::NoDemand, text)];
    }
    let mut reasons = Vec::new();
    for pod in waiting.iter().take(SHOWN) {
        let name = pod.facts.full_name();
        let Place { need, against, .. } = place(pod, agent, facts);
        let reason = |kind, text: String, cure: &str| Reason::new(kind, format!("pod {name} waits, but {text}"), cure);
        let need = figures(need);
        reasons.push(match against {
            Rejection::Unfit(why) => reason(Kind::Constraint, why, "`kmctl check`"),
            Rejection::Attribute => {
                let text = format!("it wants {}", pod.facts.demand.describe());
                reason(Kind::Attribute, text, "change its selectors, or the agent's --attributes")
            }
            Rejection::TooLarge => {
                let text = format!("with its node it needs {need}, and the agent has {}", figures(total(agent)));
                reason(Kind::TooLarge, text, "request less, or give the agent more in --resources")
            }
            Rejection::Ungranted(names) => {
                let text = format!("it asks for {names}, which nothing grants yet");
                reason(Kind::Ungranted, text, "ask for cpu, memory and ephemeral-storage only")
            }
            Rejection::Ports(why) => reason(Kind::Ports, why, "choose a host port in the granted range"),
            Rejection::Role(left) => {
                let text = format!("other roles hold reservations: {} left, {need} needed", figures(left));
                reason(Kind::Role, text, "unreserve something in Mesos")
            }
            Rejection::Taken(left) => {
                let text = format!("others use the agent: {} free, {need} needed", figures(left));
                reason(Kind::Taken, text, "wait, or raise the role's weight or quota in Mesos")
            }
            Rejection::Leaving => reason(Kind::Node, "the node is about to go".to_owned(), "`kmctl scale`"),
            Rejection::NodesMax => {
                let max = facts.bounds.max.unwrap_or_default();
                reason(
                    Kind::NodesMax,
                    format!("nodes.max is {max}, and as many nodes are there"),
                    "`kmctl scale --max N`",
                )
            }
            Rejection::Nothing => Reason::passing(
                Kind::Time,
                format!("pod {name} waits and fits ({need} needed); `kmctl why pod` tells what kube-scheduler says"),
            ),
        });
    }
    if waiting.len() > SHOWN {
        reasons.push(Reason::passing(Kind::NoDemand, format!("{} more pods wait", waiting.len() - SHOWN)));
    }
    reasons
}
