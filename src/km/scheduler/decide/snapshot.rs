//! All nodes, and agents that could become nodes, with what their offers leave; and Kubernetes' placement rules.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use super::parts::NodeState;
use super::scheduler::Scheduler;
use kmctl_core::model::agents::Agent;
use kmctl_core::model::pods::{Neighbours, PodFacts};
use kmctl_core::model::resources::{Amount, Ports};
use kmctl_core::model::selectors::{Labels, tolerates};

/// An agent whose node died within this time is the last choice for the next node.
const SHAKY: Duration = Duration::from_secs(300);

/// Taints that a new node loses soon. Other taints set by Kubernetes last: cordon, and pressure on memory, disk or
/// processes.
const PASSING_TAINTS: [&str; 3] =
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/network-unavailable"];

/// Most pods of a node before its kubelet reports its limit.
pub(super) const PODS_PER_NODE: usize = 110;

/// A node, or an agent that could become one.
#[derive(Clone, Debug)]
pub(super) struct NodeInfo {
    pub name: String,
    pub agent: String,
    /// A Node object exists already.
    pub exists: bool,
    /// The executor is launched, or about to be.
    pub launched: bool,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    /// The part of the held offers that a pod could use.
    pub offered: Amount,
    pub ports: Ports,
    /// Every declared port of a pod gets one of the offered ports.
    pub grants: bool,
    /// What Kubernetes would still place there.
    pub room: Amount,
    pub slots: usize,
    /// A node died here recently.
    pub recently_failed: bool,
}

/// All sites, and where the pods are.
pub(super) struct Snapshot<'a> {
    pub sites: Vec<NodeInfo>,
    pub placed: Vec<(&'a PodFacts, Labels)>,
    /// Agents that could become nodes and have not made an offer: after a REVIVE, offers arrive one by one.
    silent: Vec<UnofferedAgent>,
}

/// An agent without an offer, as the node that it would become.
struct UnofferedAgent {
    name: String,
    labels: Labels,
    /// Most resources that a pod could have there. None if the agent's size is unknown.
    most: Option<Amount>,
}

/// Whether pods that the filter has let through to one node, and that are not bound yet, count as placed there.
#[derive(Clone, Copy)]
pub(super) enum AssumedPods<'a> {
    /// All but this one, which kube-scheduler is querying again.
    Counted { but: &'a str },
    /// Not counted, because they are placed again.
    Left,
}

impl Scheduler {
    /// All sites with what their offers leave.
    pub(super) fn snapshot(&self, expected: AssumedPods<'_>) -> Snapshot<'_> {
        let mut placed = Vec::new();
        let mut waiting: BTreeMap<&str, (Amount, Vec<u16>, usize)> = BTreeMap::new();
        let mut used: BTreeMap<&str, (Amount, usize)> = BTreeMap::new();
        let mut daemons: BTreeMap<&str, Amount> = BTreeMap::new();
        for (uid, entry) in self.pods.iter() {
            let pod = entry.facts();
            if let AssumedPods::Counted { but } = expected
                && uid.as_str() != but
                && let Some(node) = entry.nominated_node(self.now)
                && let Some(node) = self.nodes.get(node)
            {
                placed.push((pod, node.labels().clone()));
            }
            if let Some(node) = entry.node().filter(|_| pod.occupies() || entry.is_binding()) {
                let (amount, pods) = used.entry(node).or_default();
                *amount += pod.amount;
                *pods += 1;
                if let Some(node) = self.nodes.get(node) {
                    placed.push((pod, node.labels().clone()));
                }
                if entry.bind_state().waits_for(node) {
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
        let nodes = self.nodes.iter().filter(|(_, node)| node.state().open()).map(|(name, node)| {
            let agent = self.agents.get(node.agent());
            let (taken, taken_ports, taken_grants) = waiting.get(name.as_str()).cloned().unwrap_or_default();
            let (used, pods) = used.get(name.as_str()).copied().unwrap_or_default();
            let unlaunched = node.state().unlaunched();
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
            let facts = node.facts();
            NodeInfo {
                name: name.clone(),
                agent: node.agent().to_owned(),
                exists: true,
                launched: *node.state() != NodeState::Candidate,
                labels: node.labels().clone(),
                taints: facts.map(|facts| facts.taints.clone()).unwrap_or_default(),
                offered: agent.map(Agent::offered).unwrap_or_default() - taken - first,
                ports,
                grants,
                room: node.capacity() - used,
                slots: facts.map_or(PODS_PER_NODE, |facts| facts.most_pods).saturating_sub(pods),
                recently_failed: false,
            }
        });
        let mut sites: Vec<NodeInfo> = nodes.collect();
        let asleep = self.agents.values().filter(|agent| {
            !agent.offers.is_empty()
                && self.eligible(agent)
                && self.nodes.on_agent(&agent.id).is_none()
                && !self.sweeps.concern(&agent.id)
        });
        let asleep = asleep.map(|agent| {
            let name = self.name_for(agent);
            NodeInfo {
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
                recently_failed: agent.ended.is_some_and(|ended| self.now.since(ended) < SHAKY),
            }
        });
        let asleep: Vec<NodeInfo> = asleep.collect();
        sites.extend(asleep);
        let silent = self.agents.values().filter(|agent| {
            agent.offers.is_empty() && self.eligible(agent) && self.nodes.on_agent(&agent.id).is_none()
        });
        let silent = silent.map(|agent| {
            let name = self.name_for(agent);
            let most = agent.total.map(|total| total - self.first_launch());
            UnofferedAgent { labels: agent.labels(&name), name, most }
        });
        Snapshot { sites, placed, silent: silent.collect() }
    }
}

impl Snapshot<'_> {
    /// Whether the held offers cover the pod and Kubernetes has room for it.
    pub(super) fn covers(&self, pod: &PodFacts, site: &NodeInfo) -> bool {
        site.offered.covers(pod.amount)
            && site.room.covers(pod.amount)
            && site.slots > 0
            && pod.host_ports().filter_map(|port| port.host_port).all(|port| site.ports.contains(port))
            && (!site.grants || pod.left_to_grant(&site.ports) >= pod.ports_to_grant())
    }

    /// Whether Kubernetes' own rules allow the pod on this site.
    pub(super) fn allows(&self, pod: &PodFacts, site: &NodeInfo, awaited: bool) -> bool {
        self.admits(pod, site) && self.missing_domain(pod, site, awaited).is_none()
    }

    /// The same without the pod's topology spread.
    pub(super) fn admits(&self, pod: &PodFacts, site: &NodeInfo) -> bool {
        let passing = |taint: &&Taint| !PASSING_TAINTS.contains(&taint.key.as_str());
        let lasting: Vec<Taint> = site.taints.iter().filter(passing).cloned().collect();
        pod.demand.accepts(&site.name, &site.labels)
            && tolerates(&pod.tolerations, &lasting)
            && pod.apart.iter().all(|rule| !self.meets(pod, rule, site))
            && !self.unwelcome(pod, site)
            && pod.near.iter().all(|rule| self.meets(pod, rule, site) || self.first_of_its_kind(pod, rule))
    }

    /// Whether a pod that the rule selects is in the site's domain.
    fn meets(&self, pod: &PodFacts, rule: &Neighbours, site: &NodeInfo) -> bool {
        let Some(domain) = site.labels.get(&rule.topology_key) else { return false };
        self.placed
            .iter()
            .any(|(other, labels)| labels.get(&rule.topology_key) == Some(domain) && selects(pod, rule, other))
    }

    /// Whether a pod in the site's domain has anti-affinity to this one.
    fn unwelcome(&self, pod: &PodFacts, site: &NodeInfo) -> bool {
        self.placed.iter().any(|(other, labels)| {
            other.apart.iter().any(|rule| {
                let domain = labels.get(&rule.topology_key);
                domain.is_some() && domain == site.labels.get(&rule.topology_key) && selects(other, rule, pod)
            })
        })
    }

    /// The first pod of a group with affinity to itself may be placed anywhere.
    fn first_of_its_kind(&self, pod: &PodFacts, rule: &Neighbours) -> bool {
        selects(pod, rule, pod) && !self.placed.iter().any(|(other, _)| selects(pod, rule, other))
    }

    /// Whether a domain over which the pod spreads has agents but no Node that kube-scheduler could count.
    pub(super) fn lacks_nodes_for(&self, pod: &PodFacts) -> bool {
        pod.spread.iter().any(|spread| {
            let domain = |labels: &'_ Labels| labels.get(&spread.topology_key).cloned();
            let there: BTreeSet<_> =
                self.sites.iter().filter(|site| site.exists).filter_map(|site| domain(&site.labels)).collect();
            let asleep = self.sites.iter().filter(|site| !site.exists && pod.demand.accepts(&site.name, &site.labels));
            let silent = self.silent.iter().filter(|agent| agent.could_take(pod));
            let mut could = asleep.map(|site| &site.labels).chain(silent.map(|agent| &agent.labels));
            could.any(|labels| domain(labels).is_some_and(|domain| !there.contains(&domain)))
        })
    }

    /// The topology key and emptiest domain, if placing the pod on this site would exceed the maximum skew. Domains
    /// whose agents could become nodes are counted. `awaited` also counts domains whose agents have not made an offer
    /// yet, which justifies a short wait.
    pub(super) fn missing_domain(&self, pod: &PodFacts, site: &NodeInfo, awaited: bool) -> Option<(String, String)> {
        pod.spread.iter().find_map(|spread| {
            let own = site.labels.get(&spread.topology_key)?;
            let usable = |other: &&NodeInfo| {
                pod.demand.accepts(&other.name, &other.labels) && (other.exists || other.offered.covers(pod.amount))
            };
            let mut counts: BTreeMap<&String, i64> = BTreeMap::new();
            for domain in self.sites.iter().filter(usable).filter_map(|other| other.labels.get(&spread.topology_key)) {
                counts.entry(domain).or_default();
            }
            let silent = self.silent.iter().filter(|agent| awaited && agent.could_take(pod));
            for domain in silent.filter_map(|agent| agent.labels.get(&spread.topology_key)) {
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

impl UnofferedAgent {
    fn could_take(&self, pod: &PodFacts) -> bool {
        self.most.is_none_or(|most| most.covers(pod.amount)) && pod.demand.accepts(&self.name, &self.labels)
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
