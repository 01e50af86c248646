//! Which agents may become nodes, and which agents are alike.
use serde::Serialize;

use crate::inventory::mesos::{Agent, Pressure};
use kmctl_core::cluster::Cluster;
use kmctl_core::cluster::quantity::{Bytes, Millicores};

/// The agents on which a node of the cluster could start, now or once others have freed resources.
pub fn eligible<'a>(cluster: &Cluster, agents: &'a [Agent]) -> impl Iterator<Item = &'a Agent> {
    agents.iter().filter(|agent| reason_against(cluster, agent).is_none())
}

/// Why no node of the cluster could ever start on an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ineligible {
    #[error("the agent is deactivated")]
    Inactive,
    /// By nodes.constraints.
    #[error("nodes.constraints: {0}")]
    Constraint(String),
    #[error("{0}")]
    TooSmall(String),
}

/// Why `agent` is not eligible, if so. Resources that others use at the moment do not count.
pub fn reason_against(cluster: &Cluster, agent: &Agent) -> Option<Ineligible> {
    if !agent.active {
        return Some(Ineligible::Inactive);
    }
    for constraint in &cluster.spec.nodes.constraints {
        match agent.attributes.get(&constraint.attribute) {
            Some(value) if constraint.values.contains(value) => {}
            Some(value) => {
                return Some(Ineligible::Constraint(format!("attribute {} is {value}", constraint.attribute)));
            }
            None => return Some(Ineligible::Constraint(format!("no attribute {}", constraint.attribute))),
        }
    }
    let least = least(cluster);
    let most = reachable(cluster, agent);
    if most.cpus < least.cpus || most.mem < least.mem {
        return Some(Ineligible::TooSmall(format!(
            "{} CPU, {:.0} MiB for role {}, but overhead and the smallest pod need {} CPU, {:.0} MiB",
            most.cpus,
            most.mem,
            cluster.spec.mesos.roles.join(", "),
            least.cpus,
            least.mem,
        )));
    }
    None
}

/// The least that a node with one pod takes.
fn least(cluster: &Cluster) -> Pressure {
    let (overhead, pod) = (&cluster.spec.nodes.overhead, &cluster.spec.nodes.pod_defaults);
    let cpu = |text: &str| text.parse::<Millicores>().unwrap_or_default().0;
    let memory = |text: &str| text.parse::<Bytes>().unwrap_or_default().0;
    Pressure {
        cpus: Millicores(cpu(&overhead.cpu) + cpu(&pod.cpu)).cores(),
        mem: Bytes(memory(&overhead.memory) + memory(&pod.memory)).megabytes(),
    }
}

/// The most that one of the cluster's roles could ever get on `agent`: what is not reserved, and what is reserved for
/// the role.
pub fn reachable(cluster: &Cluster, agent: &Agent) -> Pressure {
    let reserved: Pressure = agent
        .reserved
        .values()
        .fold(Pressure::default(), |sum, one| Pressure { cpus: sum.cpus + one.cpus, mem: sum.mem + one.mem });
    let free = Pressure { cpus: agent.resources.cpus - reserved.cpus, mem: agent.resources.mem - reserved.mem };
    cluster
        .spec
        .mesos
        .roles
        .iter()
        .map(|role| agent.reserved.get(role).copied().unwrap_or_default())
        .map(|own| Pressure { cpus: free.cpus + own.cpus, mem: free.mem + own.mem })
        .fold(Pressure::default(), |best, one| if one.mem > best.mem { one } else { best })
}

/// Agents that are alike in everything that matters here.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentGroup {
    /// Their hostnames.
    pub agents: Vec<String>,
    /// Version of Mesos.
    pub version: String,
    /// All resources that each of them offers.
    pub resources: Pressure,
    /// The ports that each of them offers.
    pub ports: String,
    /// `linux` or `posix`. `None` if the agent could not be queried.
    pub launcher: Option<String>,
    /// Its isolators.
    pub isolation: Option<String>,
    /// Why they cannot become nodes.
    pub unfit: Option<String>,
}

/// Groups agents that are alike, the largest group first.
pub fn group(cluster: &Cluster, agents: &[Agent]) -> Vec<AgentGroup> {
    let mut groups: Vec<AgentGroup> = Vec::new();
    for agent in agents {
        let flag = |name: &str| agent.flags.as_ref().and_then(|flags| flags.flags.get(name)).cloned();
        let one = AgentGroup {
            agents: vec![agent.hostname.clone()],
            version: agent.version.clone(),
            resources: agent.resources,
            ports: agent.ports.clone(),
            launcher: flag("launcher"),
            isolation: flag("isolation"),
            unfit: reason_against(cluster, agent).map(|why| why.to_string()),
        };
        let alike = |group: &&mut AgentGroup| AgentGroup { agents: one.agents.clone(), ..(**group).clone() } == one;
        match groups.iter_mut().find(alike) {
            Some(group) => group.agents.extend(one.agents),
            None => groups.push(one),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.agents.len()));
    groups
}
