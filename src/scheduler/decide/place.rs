//! Which pending pod could go where, and which agents to wake for those that no node takes.
//!
//! A rehearsal of kube-scheduler's judgement on the nodes that are there and on those that could be: it only has to be
//! right about what to wake. Placing is kube-scheduler's own.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use super::state::{Flight, NodeState, Scheduler};
use crate::cluster::NetworkMode;
use crate::scheduler::agents::Agent;
use crate::scheduler::pods::{Neighbours, PodFacts, Uid};
use crate::scheduler::requests::NODE_TASK;
use crate::scheduler::resources::{Amount, Ports};
use crate::scheduler::selectors::{Labels, tolerates};

/// How long an agent whose node died is the last choice for the next one.
const SHAKY: Duration = Duration::from_secs(300);

/// Most pods of a node before its kubelet says how many.
pub(super) const PODS_PER_NODE: usize = 110;

/// A node, or an agent that could become one.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub name: String,
    pub agent: String,
    /// There is a Node object already.
    pub exists: bool,
    /// Its executor is launched, or about to be.
    pub launched: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// Of the held offers, what a pod could have.
    pub offered: Amount,
    pub ports: Ports,
    /// Every declared port of a pod gets one of them.
    pub grants: bool,
    /// What Kubernetes would still put there.
    pub room: Amount,
    pub slots: usize,
    /// A node died here not long ago.
    pub shaky: bool,
}

/// All sites, and where the pods are.
pub(super) struct Landscape<'a> {
    pub sites: Vec<Site>,
    placed: Vec<(&'a PodFacts, Labels)>,
    /// Agents that could become nodes and have not made an offer: after a REVIVE, offers come one by one.
    silent: Vec<(String, Labels)>,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Placement {
    /// Pods that an existing node could take.
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
        let mut pending: Vec<_> =
            self.pods.iter().filter(|(_, pod)| pod.facts.pending() && pod.flight == Flight::None).collect();
        if pending.is_empty() {
            return placement;
        }
        pending.sort_by_key(|(uid, pod)| (pod.facts.daemon, pod.since, *uid));
        let mut landscape = self.landscape();
        let mut room_for_nodes = self.room_for_nodes();
        for (uid, pod) in pending {
            let pod = &pod.facts;
            let fitting = |site: &&Site| landscape.covers(pod, site) && landscape.allows(pod, site);
            let mut sites: Vec<&Site> = landscape.sites.iter().filter(fitting).collect();
            sites.retain(|site| {
                if pod.daemon {
                    site.launched
                } else {
                    site.exists || placement.wake.contains(&site.agent) || room_for_nodes > 0
                }
            });
            // Nodes that run come first, then nodes that exist, then agents that are woken anyway, then the largest.
            let best = sites.into_iter().min_by_key(|site| {
                let woken = placement.wake.contains(&site.agent);
                (
                    !site.launched,
                    !site.exists,
                    !woken,
                    site.shaky,
                    -site.offered.cpus,
                    -site.offered.mem,
                    site.name.clone(),
                )
            });
            let Some(index) = best.and_then(|best| landscape.sites.iter().position(|site| site.agent == best.agent))
            else {
                placement.unmet |= if pod.daemon { self.wanted_on_launched(pod) } else { self.possible(pod) };
                placement.nowhere.insert(uid.clone());
                continue;
            };
            let site = &mut landscape.sites[index];
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
            landscape.placed.push((pod, labels));
        }
        placement
    }

    /// How many more nodes the bounds allow.
    pub(super) fn room_for_nodes(&self) -> usize {
        if self.bounds.purge {
            return 0;
        }
        self.bounds.max.map_or(usize::MAX, |max| (max as usize).saturating_sub(self.nodes.len()))
    }

    /// Whether pods on this agent get a host port for every declared one. An agent that has no ports at all is for pods
    /// that nobody calls.
    pub(super) fn grants_ports(&self, agent: &Agent) -> bool {
        let none = agent.total_ports.as_ref().is_some_and(|total| total.is_empty());
        self.settings.network_mode == NetworkMode::HostPorts && !none
    }

    /// What a pod needs of an agent that has no executor yet.
    pub(super) fn first_launch(&self) -> Amount {
        self.settings.overhead + NODE_TASK
    }

    /// A daemon pod counts as unmet only where its node runs; it never wakes one.
    fn wanted_on_launched(&self, pod: &PodFacts) -> bool {
        let node = pod.demand.pinned().and_then(|name| self.nodes.get(name));
        node.is_some_and(|node| matches!(node.state, NodeState::Starting | NodeState::Ready))
    }

    /// Whether any agent could ever take the pod, offered or not. An agent whose size is unknown might, and so might one
    /// that is unknown itself.
    pub(super) fn possible(&self, pod: &PodFacts) -> bool {
        !self.demand.agents_known
            || self.agents.values().any(|agent| self.eligible(agent) && self.could_take(agent, pod))
    }

    fn could_take(&self, agent: &Agent, pod: &PodFacts) -> bool {
        let name = self.node_on(&agent.id).map_or_else(|| self.name_for(agent), str::to_owned);
        let labels = self
            .nodes
            .get(&name)
            .filter(|node| node.agent == agent.id)
            .map_or_else(|| agent.labels(&name), |node| node.labels().clone());
        agent.total.is_none_or(|total| total.covers(pod.amount + self.first_launch()))
            && agent.impossible_ports(pod).is_none()
            && pod.demand.accepts(&name, &labels)
    }

    /// Whether the operator's constraints let this agent become a node.
    pub(super) fn eligible(&self, agent: &Agent) -> bool {
        self.settings.constraints.iter().all(|constraint| {
            agent.attributes.get(&constraint.attribute).is_some_and(|value| constraint.values.contains(value))
        })
    }

    /// The node that stands for an agent, in whatever state.
    pub(super) fn node_on(&self, agent: &str) -> Option<&str> {
        self.nodes.iter().find(|(_, node)| node.agent == agent).map(|(name, _)| name.as_str())
    }

    /// A name for the agent's node that no other agent's node has, nor could have.
    pub(super) fn name_for(&self, agent: &Agent) -> String {
        let name = agent.node_name();
        let shared = self.agents.values().any(|other| other.id != agent.id && other.node_name() == name)
            || self.nodes.get(&name).is_some_and(|node| node.agent != agent.id);
        // An agent's id ends in -S and its number.
        let suffix = agent.id.rsplit('-').next().unwrap_or_default().to_ascii_lowercase();
        if shared { format!("{name}-{suffix}") } else { name }
    }

    /// All sites with what their offers leave.
    pub(super) fn landscape(&self) -> Landscape<'_> {
        let mut placed = Vec::new();
        let mut waiting: BTreeMap<&str, (Amount, Vec<u16>, usize)> = BTreeMap::new();
        let mut used: BTreeMap<&str, (Amount, usize)> = BTreeMap::new();
        let mut daemons: BTreeMap<&str, Amount> = BTreeMap::new();
        for entry in self.pods.values() {
            let pod = &entry.facts;
            if let Some(node) =
                pod.node.as_deref().or(entry.flight.node()).filter(|_| pod.occupies() || entry.flight != Flight::None)
            {
                let (amount, pods) = used.entry(node).or_default();
                *amount += pod.amount;
                *pods += 1;
                if let Some(node) = self.nodes.get(node) {
                    placed.push((pod, node.labels().clone()));
                }
                if entry.flight.waits_for(node) {
                    let (amount, ports, grants) = waiting.entry(node).or_default();
                    *amount += pod.amount;
                    *grants += pod.ports_to_grant();
                    ports.extend(pod.host_ports().filter_map(|port| port.host_port));
                }
            } else if pod.daemon
                && pod.pending()
                && let Some(node) = pod.demand.pinned()
            {
                *daemons.entry(node).or_default() += pod.amount;
            }
        }
        let nodes = self.nodes.iter().filter(|(_, node)| node.state.open()).map(|(name, node)| {
            let agent = self.agents.get(&node.agent);
            let (taken, taken_ports, taken_grants) = waiting.get(name.as_str()).cloned().unwrap_or_default();
            let (used, pods) = used.get(name.as_str()).copied().unwrap_or_default();
            let unlaunched = node.state.unlaunched();
            let first = if unlaunched {
                self.first_launch() + daemons.get(name.as_str()).copied().unwrap_or_default()
            } else {
                Amount::default()
            };
            let mut ports = agent.map(Agent::offered_ports).unwrap_or_default();
            for port in taken_ports {
                ports.remove(port);
            }
            let grants = agent.is_some_and(|agent| self.grants_ports(agent));
            if grants {
                ports.take_any(taken_grants);
            }
            let facts = node.facts.as_ref();
            Site {
                name: name.clone(),
                agent: node.agent.clone(),
                exists: true,
                launched: node.state != NodeState::Candidate,
                labels: node.labels().clone(),
                taints: facts.map(|facts| facts.taints.clone()).unwrap_or_default(),
                offered: agent.map(Agent::offered).unwrap_or_default() - taken - first,
                ports,
                grants,
                room: facts.map_or(node.capacity, |facts| facts.allocatable) - used,
                slots: facts.map_or(PODS_PER_NODE, |facts| facts.most_pods).saturating_sub(pods),
                shaky: false,
            }
        });
        let mut sites: Vec<Site> = nodes.collect();
        let asleep = self.agents.values().filter(|agent| {
            !agent.offers.is_empty()
                && self.eligible(agent)
                && self.node_on(&agent.id).is_none()
                && !self.sweeps.concern(&agent.id)
        });
        let asleep = asleep.map(|agent| {
            let name = self.name_for(agent);
            Site {
                labels: agent.labels(&name),
                name,
                agent: agent.id.clone(),
                exists: false,
                launched: false,
                taints: Vec::new(),
                offered: agent.offered() - self.first_launch(),
                ports: agent.offered_ports(),
                grants: self.grants_ports(agent),
                room: agent.capacity(),
                slots: PODS_PER_NODE,
                shaky: agent.ended.is_some_and(|ended| self.now.since(ended) < SHAKY),
            }
        });
        let asleep: Vec<Site> = asleep.collect();
        sites.extend(asleep);
        let silent = self
            .agents
            .values()
            .filter(|agent| agent.offers.is_empty() && self.eligible(agent) && self.node_on(&agent.id).is_none());
        let silent = silent.map(|agent| {
            let name = self.name_for(agent);
            let labels = agent.labels(&name);
            (name, labels)
        });
        Landscape { sites, placed, silent: silent.collect() }
    }
}

impl Landscape<'_> {
    /// Whether the held offers cover the pod, and Kubernetes has room for it.
    fn covers(&self, pod: &PodFacts, site: &Site) -> bool {
        site.offered.covers(pod.amount)
            && site.room.covers(pod.amount)
            && site.slots > 0
            && pod.host_ports().filter_map(|port| port.host_port).all(|port| site.ports.contains(port))
            && (!site.grants || pod.left_to_grant(&site.ports) >= pod.ports_to_grant())
    }

    /// Whether Kubernetes' own rules let the pod go there.
    fn allows(&self, pod: &PodFacts, site: &Site) -> bool {
        // Kubernetes' own taints come and go with conditions that a new node does not have for long.
        let lasting: Vec<Taint> =
            site.taints.iter().filter(|taint| !taint.key.starts_with("node.kubernetes.io/")).cloned().collect();
        pod.demand.accepts(&site.name, &site.labels)
            && tolerates(&pod.tolerations, &lasting)
            && pod.apart.iter().all(|rule| !self.meets(pod, rule, site))
            && !self.unwelcome(pod, site)
            && pod.near.iter().all(|rule| self.meets(pod, rule, site) || self.first_of_its_kind(pod, rule))
            && self.missing_domain(pod, site, false).is_none()
    }

    /// Whether a pod that the rule selects is in the site's domain.
    fn meets(&self, pod: &PodFacts, rule: &Neighbours, site: &Site) -> bool {
        let Some(domain) = site.labels.get(&rule.topology_key) else { return false };
        self.placed
            .iter()
            .any(|(other, labels)| labels.get(&rule.topology_key) == Some(domain) && selects(pod, rule, other))
    }

    /// Whether a pod in the site's domain does not want this one beside it.
    fn unwelcome(&self, pod: &PodFacts, site: &Site) -> bool {
        self.placed.iter().any(|(other, labels)| {
            other.apart.iter().any(|rule| {
                let domain = labels.get(&rule.topology_key);
                domain.is_some() && domain == site.labels.get(&rule.topology_key) && selects(other, rule, pod)
            })
        })
    }

    /// The first pod of a group that wants to be together may go anywhere.
    fn first_of_its_kind(&self, pod: &PodFacts, rule: &Neighbours) -> bool {
        selects(pod, rule, pod) && !self.placed.iter().any(|(other, _)| selects(pod, rule, other))
    }

    /// The label whose domains would be too uneven with the pod on this site, counting domains that could be woken.
    /// `awaited`: also those whose agents have not made an offer yet, which is worth a short wait.
    pub(super) fn missing_domain(&self, pod: &PodFacts, site: &Site, awaited: bool) -> Option<(String, String)> {
        pod.spread.iter().find_map(|spread| {
            let own = site.labels.get(&spread.topology_key)?;
            let usable = |other: &&Site| {
                pod.demand.accepts(&other.name, &other.labels) && (other.exists || other.offered.covers(pod.amount))
            };
            let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
            for domain in self.sites.iter().filter(usable).filter_map(|other| other.labels.get(&spread.topology_key)) {
                counts.entry(domain).or_default();
            }
            let silent = self.silent.iter().filter(|(name, labels)| awaited && pod.demand.accepts(name, labels));
            for domain in silent.filter_map(|(_, labels)| labels.get(&spread.topology_key)) {
                counts.entry(domain).or_default();
            }
            for (other, labels) in &self.placed {
                if let Some(domain) = labels.get(&spread.topology_key)
                    && other.namespace == pod.namespace
                    && spread.selector.matches(&other.labels)
                    && let Some(count) = counts.get_mut(domain)
                {
                    *count += 1;
                }
            }
            let (emptiest, least) = counts.iter().min_by_key(|(_, count)| **count)?;
            let here = counts.get(own).copied().unwrap_or_default();
            (here + 1 - least > spread.max_skew).then(|| (spread.topology_key.clone(), (*emptiest).clone()))
        })
    }
}

fn selects(owner: &PodFacts, rule: &Neighbours, other: &PodFacts) -> bool {
    let namespace = if rule.namespaces.is_empty() {
        owner.namespace == other.namespace
    } else {
        rule.namespaces.contains(&other.namespace)
    };
    namespace && rule.selector.matches(&other.labels)
}
