//! Why an agent's resources are not used.
use super::places::{Place, Rejection, figures, place};
use super::{Facts, free, total};
use crate::diagnose::{Answer, Kind, Reason};
use crate::inventory::mesos::Agent;
use crate::plan::preflight::{Ineligible, reason_against};
use kmctl_core::model::nodes::{NodePhase, shown_state};
use kmctl_core::text::count;

/// How many waiting pods are listed individually.
const SHOWN: usize = 5;

/// What prevents an agent's offers from being used.
pub(crate) fn offer(agent: &Agent, facts: &Facts<'_>) -> Answer {
    let node = facts.seen.nodes.iter().find(|node| node.facts.agent == agent.id);
    let used = node.map_or("no node of this cluster".to_owned(), |node| {
        format!("node {} is {}", node.facts.name, shown_state(node.facts.phase.as_str()))
    });
    let state = format!("has {} free of {}; {used}", figures(free(agent)), figures(total(agent)));
    let mut reasons: Vec<Reason> = facts.scheduler_trouble().into_iter().collect();
    reasons.extend(against_agent(agent, facts));
    if reasons.is_empty() {
        reasons.extend(demand(agent, facts));
    }
    Answer { about: format!("agent {}", agent.hostname), state, reasons, said: Vec::new() }
}

/// What rules out the agent regardless of which pods wait.
fn against_agent(agent: &Agent, facts: &Facts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !agent.active {
        let cure = "check that mesos-agent is running and not deactivated for maintenance";
        reasons.push(Reason::new(Kind::Agent, "agent is not active in Mesos", cure));
    } else if let Some(why) = reason_against(facts.cluster, agent) {
        let kind = if matches!(why, Ineligible::Constraint(_)) { Kind::Constraint } else { Kind::TooLarge };
        let cure = match kind {
            Kind::Constraint => "change nodes.constraints in cluster.yaml, or the agent's --attributes",
            _ => "raise the agent's --resources, or lower nodes.overhead and nodes.podDefaults",
        };
        reasons.push(Reason::new(kind, why.to_string(), cure));
    }
    let node = facts.seen.nodes.iter().find(|node| node.facts.agent == agent.id);
    if let Some(node) = node.filter(|node| node.facts.phase == NodePhase::Leaving) {
        let text = format!("node {} is draining and accepts no pods", node.facts.name);
        reasons.push(Reason::new(Kind::Node, text, format!("kmctl why node {}", node.facts.name)));
    }
    reasons
}

fn demand(agent: &Agent, facts: &Facts<'_>) -> Vec<Reason> {
    let waiting: Vec<_> = facts.seen.pods.iter().filter(|pod| pod.facts.pending() && !pod.facts.daemon).collect();
    if waiting.is_empty() {
        let text = "no pods are pending, so offers are suppressed";
        return vec![Reason::passing(Kind::NoDemand, text)];
    }
    let mut reasons = Vec::new();
    for pod in waiting.iter().take(SHOWN) {
        let name = pod.facts.full_name();
        let Place { need, against, .. } = place(pod, agent, facts);
        let reason = |kind, text: String, cure: &str| Reason::new(kind, format!("pod {name} is Pending: {text}"), cure);
        let need = figures(need);
        reasons.push(match against {
            Rejection::Unfit(why) => reason(Kind::Constraint, why, "kmctl check"),
            Rejection::Attribute => {
                let text = format!("it requires {}", pod.facts.demand.describe());
                reason(Kind::Attribute, text, "change its selectors, or the agent's --attributes")
            }
            Rejection::TooLarge => {
                let text = format!("{need} needed with its node, the agent has {}", figures(total(agent)));
                reason(Kind::TooLarge, text, "request less, or raise the agent's --resources")
            }
            Rejection::Ungranted(names) => {
                let text = format!("it requests {names}, which are not supported yet");
                reason(Kind::Ungranted, text, "request only cpu, memory and ephemeral-storage")
            }
            Rejection::Ports(why) => reason(Kind::Ports, why, "use a host port in the allocated range"),
            Rejection::Role(left) => {
                let text = format!("reserved for other roles: {} left, {need} needed", figures(left));
                reason(Kind::Role, text, "unreserve resources in Mesos")
            }
            Rejection::Taken(left) => {
                let text = format!("used by other frameworks: {} free, {need} needed", figures(left));
                reason(Kind::Taken, text, "wait, or raise the weight or quota of the role in Mesos")
            }
            Rejection::Leaving => reason(Kind::Node, "its node is draining".to_owned(), "kmctl scale --max N"),
            Rejection::NodesMax => {
                let max = facts.bounds.max.unwrap_or_default();
                reason(Kind::NodesMax, format!("node limit reached: nodes.max is {max}"), "kmctl scale --max N")
            }
            Rejection::Nothing => Reason::passing(
                Kind::Time,
                format!("pod {name} is Pending and fits ({need}); for kube-scheduler see kmctl why pod {name}"),
            ),
        });
    }
    if waiting.len() > SHOWN {
        reasons.push(Reason::passing(Kind::NoDemand, format!("{} pending", count(waiting.len() - SHOWN, "more pod"))));
    }
    reasons
}
