//! Which pending pod could run where, and which agents to wake for those that no node can run.
//!
//! Simulates kube-scheduler's decision on existing nodes and on nodes that could be created. It only has to be right
//! about what to wake: kube-scheduler does the placing.
use std::collections::{BTreeMap, BTreeSet};

use super::scheduler::Scheduler;
use super::snapshot::{AssumedPods, NodeInfo};
use kmctl_core::cluster::NetworkMode;
use kmctl_core::model::agents::Agent;
use kmctl_core::model::pods::{PodFacts, Uid};
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::resources::Amount;

/// The outcome of a simulation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Placement {
    /// Pods that an existing node could run.
    pub on_node: BTreeMap<Uid, String>,
    /// Pods that wait for an agent to be woken.
    pub on_agent: BTreeMap<Uid, String>,
    /// Pods for which nothing is offered.
    pub nowhere: BTreeSet<Uid>,
    /// Agents to wake.
    pub wake: BTreeSet<String>,
    /// Whether more or other offers could help.
    pub unmet: bool,
}

impl Scheduler {
    /// Places all pending pods, the oldest first.
    pub(super) fn place(&self) -> Placement {
        let mut placement = Placement::default();
        let mut pending: Vec<_> = self.pods.iter().filter(|(_, pod)| pod.is_unplaced()).collect();
        if pending.is_empty() {
            return placement;
        }
        pending.sort_by_key(|(uid, pod)| (pod.facts().daemon, pod.since(), *uid));
        let mut snapshot = self.snapshot(AssumedPods::Left);
        let mut room_for_nodes = self.room_for_nodes();
        for (uid, pod) in pending {
            let pod = pod.facts();
            if !pod.ungranted.is_empty() {
                placement.nowhere.insert(uid.clone());
                continue;
            }
            let awaited = self.waits_for_domains(uid);
            let fitting = |site: &&NodeInfo| snapshot.covers(pod, site) && snapshot.allows(pod, site, awaited);
            let mut sites: Vec<&NodeInfo> = snapshot.sites.iter().filter(fitting).collect();
            sites.retain(|site| {
                if pod.daemon {
                    site.launched
                } else {
                    site.exists || placement.wake.contains(&site.agent) || room_for_nodes > 0
                }
            });
            // Preferred in this order: running nodes, existing nodes, agents that are woken anyway, the largest.
            let best = sites.into_iter().min_by_key(|site| {
                let woken = placement.wake.contains(&site.agent);
                (
                    !site.launched,
                    !site.exists,
                    !woken,
                    site.recently_failed,
                    -site.offered.cpus,
                    -site.offered.mem,
                    site.name.clone(),
                )
            });
            let Some(index) = best.and_then(|best| snapshot.sites.iter().position(|site| site.agent == best.agent))
            else {
                placement.unmet |= if pod.daemon { self.wanted_on_launched(pod) } else { self.possible(pod) };
                placement.nowhere.insert(uid.clone());
                continue;
            };
            let site = &mut snapshot.sites[index];
            site.offered = site.offered - pod.amount;
            site.room = site.room - pod.amount;
            site.slots = site.slots.saturating_sub(1);
            for port in pod.host_ports().filter_map(|port| port.host_port) {
                site.ports.remove(port);
            }
            if site.grants {
                site.ports.take_any(pod.ports_to_grant());
            }
            if site.exists {
                placement.on_node.insert(uid.clone(), site.name.clone());
            } else {
                if placement.wake.insert(site.agent.clone()) {
                    room_for_nodes -= 1;
                }
                placement.on_agent.insert(uid.clone(), site.agent.clone());
            }
            let labels = site.labels.clone();
            snapshot.placed.push((pod, labels));
        }
        placement
    }

    /// Whether a pod with a topology spread should still wait for domains whose agents have no node.
    pub(super) fn waits_for_domains(&self, uid: &str) -> bool {
        self.pods.get(uid).is_none_or(|pod| pod.waits_for_domains(self.now))
    }

    /// How many more nodes the bounds allow.
    pub(super) fn room_for_nodes(&self) -> usize {
        if self.bounds.purge {
            return 0;
        }
        self.bounds.max.map_or(usize::MAX, |max| (max as usize).saturating_sub(self.nodes.len()))
    }

    /// Whether pods on this agent get a host port for every declared one. An agent without any ports is for pods that
    /// need no incoming connections.
    pub(super) fn grants_ports(&self, agent: &Agent) -> bool {
        let none = agent.total_ports.as_ref().is_some_and(|total| total.is_empty());
        self.settings.network_mode == NetworkMode::HostPorts && !none
    }

    /// What the first launch on an agent without an executor needs in addition to the pod.
    pub(super) fn first_launch(&self) -> Amount {
        self.settings.overhead + NODE_TASK
    }

    /// A daemon pod counts as unmet only if its node runs, because it never wakes a node.
    fn wanted_on_launched(&self, pod: &PodFacts) -> bool {
        let node = pod.demand.pinned().and_then(|name| self.nodes.get(name));
        node.is_some_and(|node| node.state().launched())
    }

    /// Whether any agent could ever run the pod, offered or not. An agent of unknown size might, and so might an
    /// unknown agent.
    pub(super) fn possible(&self, pod: &PodFacts) -> bool {
        !self.demand.knows_agents()
            || self.agents.values().any(|agent| self.eligible(agent) && self.could_take(agent, pod))
    }

    fn could_take(&self, agent: &Agent, pod: &PodFacts) -> bool {
        let name = self.nodes.on_agent(&agent.id).map_or_else(|| self.name_for(agent), str::to_owned);
        let labels = self
            .nodes
            .get(&name)
            .filter(|node| node.agent() == agent.id)
            .map_or_else(|| agent.labels(&name), |node| node.labels().clone());
        agent.total.is_none_or(|total| total.covers(pod.amount + self.first_launch()))
            && self.never_ports(agent, pod).is_none()
            && pod.demand.accepts(&name, &labels)
    }

    /// Whether the operator's constraints allow this agent to become a node.
    pub(super) fn eligible(&self, agent: &Agent) -> bool {
        self.settings.constraints.iter().all(|constraint| {
            agent.attributes.get(&constraint.attribute).is_some_and(|value| constraint.values.contains(value))
        })
    }

    /// A name for the agent's node that no other agent's node has or could have.
    pub(super) fn name_for(&self, agent: &Agent) -> String {
        let name = agent.node_name();
        let shared = self.agents.values().any(|other| other.id != agent.id && other.node_name() == name)
            || self.nodes.get(&name).is_some_and(|node| node.agent() != agent.id);
        if shared { agent.long_node_name() } else { name }
    }
}
