//! What rules out each agent for a pod.
use super::{Facts, empty_node, free, total};
use crate::diagnose::{Kind, Reason};
use crate::inventory::mesos::Agent;
use crate::inventory::workloads::{NodeView, PodView};
use crate::plan::preflight::{reachable, reason_against};
use kmctl_core::model::agents;
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::resources::{Amount, Ports, decimal, to_thousandths};
use kmctl_core::text::count;

/// Why a pod cannot run on an agent: the first reason that applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// None of our nodes may start there.
    Unfit(String),
    /// The pod's selectors exclude it.
    Attribute,
    /// The machine has less than what is needed.
    TooLarge,
    /// Devices, hugepages or resource claims, which nothing grants. Holds their names.
    Ungranted(String),
    /// Ports that the agent does not grant.
    Ports(String),
    /// Too much is reserved for other roles. Holds what is left.
    Role(Amount),
    /// Too much is in use. Holds what is free.
    Taken(Amount),
    /// Its node is about to be removed.
    Leaving,
    /// A node could start there, but the maximum number of nodes is reached.
    NodesMax,
    /// Nothing: it has room.
    Nothing,
}

/// An agent, and what rules it out for the pod.
pub(super) struct Place<'a> {
    pub(super) agent: &'a Agent,
    /// What must be free, including the node's own share if there is no node yet.
    pub(super) need: Amount,
    pub(super) against: Rejection,
}

/// Inspects every agent.
pub(super) fn places<'a>(pod: &PodView, facts: &Facts<'a>) -> Vec<Place<'a>> {
    let Ok(master) = facts.master else { return Vec::new() };
    master.agents.iter().map(|agent| place(pod, agent, facts)).collect()
}

pub(super) fn place<'a>(pod: &PodView, agent: &'a Agent, facts: &Facts<'_>) -> Place<'a> {
    let node = facts.seen.nodes.iter().find(|node| node.facts.agent == agent.id);
    let launched = node.is_some_and(|node| node.facts.phase != NodePhase::Candidate);
    let need = if launched { pod.facts.amount } else { pod.facts.amount + empty_node(facts.cluster) };
    Place { agent, need, against: against(pod, agent, node, need, facts) }
}

fn against(pod: &PodView, agent: &Agent, node: Option<&NodeView>, need: Amount, facts: &Facts<'_>) -> Rejection {
    if let Some(why) = reason_against(facts.cluster, agent) {
        return Rejection::Unfit(why.to_string());
    }
    let (name, labels) = match node {
        Some(node) => (node.facts.name.clone(), node.facts.labels.clone()),
        None => labels(agent),
    };
    if !pod.facts.demand.accepts(&name, &labels) {
        return Rejection::Attribute;
    }
    if let Some(names) = ungranted(pod) {
        return Rejection::Ungranted(names);
    }
    if !total(agent).covers(need) {
        return Rejection::TooLarge;
    }
    let granted = ports(&agent.ports);
    if let Some(port) = pod.facts.host_ports().filter_map(|port| port.host_port).find(|port| !granted.contains(*port)) {
        return Rejection::Ports(format!("host port {port} is not in the ports of {}: {granted}", agent.hostname));
    }
    let most = reachable(facts.cluster, agent);
    let most = Amount { cpus: to_thousandths(most.cpus), mem: to_thousandths(most.mem) };
    if !most.covers(need) {
        return Rejection::Role(most);
    }
    let free = free(agent).min(most);
    if !free.covers(need) {
        return Rejection::Taken(free);
    }
    match node {
        Some(node) if node.facts.phase == NodePhase::Leaving => Rejection::Leaving,
        None if !facts.room_for_a_node() => Rejection::NodesMax,
        _ => Rejection::Nothing,
    }
}

/// What the pod requests that nothing grants.
pub(super) fn ungranted(pod: &PodView) -> Option<String> {
    let names: Vec<&str> = pod.facts.ungranted.iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Name and labels that the agent's node would have.
pub(super) fn labels(agent: &Agent) -> (String, kmctl_core::model::selectors::Labels) {
    let agent = agents::Agent {
        id: agent.id.clone(),
        hostname: agent.hostname.clone(),
        attributes: agent.attributes.clone(),
        domain: agent.domain.clone(),
        ..agents::Agent::default()
    };
    let name = agent.node_name();
    let labels = agent.labels(&name);
    (name, labels)
}

/// Parses ranges as Mesos writes them: `[31000-32000, 8080-8080]`.
fn ports(text: &str) -> Ports {
    let ranges = text.trim_matches(['[', ']']).split(',').filter_map(|range| {
        let (begin, end) = range.trim().split_once('-')?;
        Some((begin.parse().ok()?, end.parse().ok()?))
    });
    Ports::new(ranges)
}

/// One reason for every kind of obstacle, the easiest to resolve first.
pub(super) fn summarize(pod: &PodView, places: &[Place<'_>], facts: &Facts<'_>) -> Vec<Reason> {
    let of =
        |wanted: fn(&Rejection) -> bool| places.iter().filter(move |place| wanted(&place.against)).collect::<Vec<_>>();
    let mut reasons = Vec::new();
    let fits = of(|against| *against == Rejection::Nothing);
    if let Some(place) = fits.first() {
        let names: Vec<&str> = fits.iter().map(|place| place.agent.hostname.as_str()).collect();
        let need = figures(place.need);
        let text = format!("{} fits ({need}); waiting for a Mesos offer", names.join(", "));
        return vec![Reason::passing(Kind::Time, text)];
    }
    let limited = of(|against| *against == Rejection::NodesMax);
    if let (Some(place), Some(max)) = (limited.first(), facts.bounds.max) {
        reasons.push(Reason::new(
            Kind::NodesMax,
            format!(
                "node limit reached: nodes.max is {max}, and no node has room; {} could start",
                place.agent.hostname
            ),
            format!("kmctl scale --max {}", facts.seen.nodes.len() + 1),
        ));
    }
    let leaving = of(|against| *against == Rejection::Leaving);
    if !leaving.is_empty() {
        reasons.push(Reason::new(
            Kind::Node,
            format!("the node on {} is draining and accepts no pods", hostnames(&leaving)),
            "raise the maximum to keep it: kmctl scale --max N",
        ));
    }
    let role = of(|against| matches!(against, Rejection::Role(_)));
    if let Some(place) = role.first() {
        let told: Vec<String> = role
            .iter()
            .filter_map(|place| match place.against {
                Rejection::Role(left) => Some(format!(
                    "{0} has {2} left of {1}",
                    place.agent.hostname,
                    figures(total(place.agent)),
                    figures(left)
                )),
                _ => None,
            })
            .collect();
        let roles = facts.cluster.spec.mesos.roles.join(", ");
        reasons.push(Reason::new(
            Kind::Role,
            format!("reserved for other roles: {} for role {roles}; {} needed", told.join("; "), figures(place.need)),
            format!("unreserve resources in Mesos, or reserve them for {roles}"),
        ));
    }
    let taken = of(|against| matches!(against, Rejection::Taken(_)));
    if let Some(place) = taken.first() {
        let told: Vec<String> = taken
            .iter()
            .filter_map(|place| match place.against {
                Rejection::Taken(left) => Some(format!(
                    "{} has {} free of {}",
                    place.agent.hostname,
                    figures(left),
                    figures(total(place.agent))
                )),
                _ => None,
            })
            .collect();
        reasons.push(Reason::new(
            Kind::Taken,
            format!("used by other frameworks: {}; {} needed", told.join("; "), figures(place.need)),
            "request less, or raise the weight or quota of the role in Mesos",
        ));
    }
    let ports = of(|against| matches!(against, Rejection::Ports(_)));
    if let Some(Place { against: Rejection::Ports(why), .. }) = ports.first() {
        reasons.push(Reason::new(Kind::Ports, why.clone(), "use a host port in the allocated range, or none"));
    }
    let matching = places.iter().filter(|place| !matches!(place.against, Rejection::Unfit(_) | Rejection::Attribute));
    let too_large = of(|against| *against == Rejection::TooLarge);
    if !too_large.is_empty() && too_large.len() == matching.count() {
        reasons.push(too_large_reason(pod, &too_large));
    }
    let fit = places.iter().filter(|place| !matches!(place.against, Rejection::Unfit(_))).count();
    let picky = of(|against| *against == Rejection::Attribute);
    if !picky.is_empty() && picky.len() == fit {
        let told: Vec<String> = picky.iter().map(|place| attributes(place.agent)).collect();
        reasons.push(Reason::new(
            Kind::Attribute,
            format!("no agent has {}: {}", pod.facts.demand.describe(), told.join("; ")),
            "change the pod's nodeSelector or affinity, or start an agent with that attribute",
        ));
    }
    if fit == 0 {
        let first = places.iter().find_map(|place| match &place.against {
            Rejection::Unfit(why) => Some(format!("; {}: {why}", place.agent.hostname)),
            _ => None,
        });
        reasons.push(Reason::new(
            Kind::Constraint,
            format!("none of {} is eligible to run nodes{}", count(places.len(), "agent"), first.unwrap_or_default()),
            "relax nodes.constraints or nodes.overhead in cluster.yaml (list reasons with kmctl check)",
        ));
    }
    reasons
}

fn hostnames(places: &[&Place<'_>]) -> String {
    places.iter().map(|place| place.agent.hostname.as_str()).collect::<Vec<_>>().join(", ")
}

/// Formats an amount: `0.5 CPU, 64 MiB`.
pub(crate) fn figures(amount: Amount) -> String {
    amount.shown()
}

fn attributes(agent: &Agent) -> String {
    if agent.attributes.is_empty() {
        return format!("{} has no attributes", agent.hostname);
    }
    let told: Vec<String> = agent.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{} has {}", agent.hostname, told.join(", "))
}

/// By resource: what is requested, and what the largest agent has.
fn too_large_reason(pod: &PodView, places: &[&Place<'_>]) -> Reason {
    let largest = places.iter().fold(Amount::default(), |most, place| most.max(total(place.agent)));
    let need = places.first().map(|place| place.need).unwrap_or_default();
    let own = pod.facts.amount;
    let lack = |unit: &str, own: i64, need: i64, largest: i64| {
        (need > largest).then(|| {
            format!(
                "requests {} {unit}, its node needs {}, the largest agent has {}",
                decimal(own),
                decimal(need - own),
                decimal(largest)
            )
        })
    };
    let lacks: Vec<String> =
        [lack("CPU", own.cpus, need.cpus, largest.cpus), lack("MiB", own.mem, need.mem, largest.mem)]
            .into_iter()
            .flatten()
            .collect();
    let what = if lacks.is_empty() { format!("no single agent has {}", figures(need)) } else { lacks.join("; ") };
    Reason::new(Kind::TooLarge, what, "request less, or start a larger agent: no agent is large enough")
}
