//! kube-scheduler's question which nodes would do, answered from memory.
use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::Effect;
use super::event::RequestId;
use super::place::{Landscape, Site};
use super::state::{Flight, NodeState, Scheduler};
use crate::scheduler::pods::PodFacts;
use crate::scheduler::resources::decimal;

/// How long a pod with a topology spread waits for domains without a node to wake up.
const WAKING: Duration = Duration::from_secs(10);

impl Scheduler {
    pub(super) fn filter(&mut self, request: RequestId, pod: PodFacts, nodes: Vec<String>) {
        let uid = pod.uid.clone();
        self.pod_asked(pod.clone());
        let mut failed = BTreeMap::new();
        let mut kept = Vec::new();
        let mut spreading = false;
        {
            let landscape = self.landscape();
            for name in nodes {
                match self.refuse(&pod, &name, &landscape) {
                    None => kept.push(name),
                    Some(Refusal::Waking(why)) => {
                        spreading = true;
                        failed.insert(name, why);
                    }
                    Some(Refusal::No(why)) => {
                        failed.insert(name, why);
                    }
                }
            }
        }
        let now = self.now;
        for name in &kept {
            if let Some(node) = self.nodes.get_mut(name) {
                node.filtered = Some(now);
            }
        }
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.asked = Some((now, !kept.is_empty()));
            if kept.is_empty() {
                entry.placeable_since = None;
            }
            if spreading {
                entry.spread_wait.get_or_insert(now);
            }
        }
        self.push(Effect::AnswerFilter { request, kept, failed });
    }

    fn refuse(&self, pod: &PodFacts, name: &str, landscape: &Landscape<'_>) -> Option<Refusal> {
        let no = |why: &str| Some(Refusal::No(why.to_owned()));
        let Some(node) = self.nodes.get(name) else {
            return no("node does not stand for a Mesos agent of this cluster");
        };
        if !self.acting() {
            return no("km scheduler has no connection to Mesos yet");
        }
        if !node.state.open() {
            return no("node is leaving");
        }
        if let Some(entry) = self.pods.get(&pod.uid)
            && let Some(wanted) = entry.flight.node()
        {
            let waits = || Some(Refusal::No(format!("the pod's Mesos task is on its way to {wanted}")));
            return if wanted == name { None } else { waits() };
        }
        if pod.daemon && node.state == NodeState::Candidate {
            return no("node not started");
        }
        let site = landscape.sites.iter().find(|site| site.name == name)?;
        let waited = self.pods.get(&pod.uid).and_then(|entry| entry.spread_wait);
        if waited.is_none_or(|since| self.now.since(since) < WAKING)
            && let Some((key, domain)) = landscape.missing_domain(pod, site, true)
        {
            return Some(Refusal::Waking(format!("waking Mesos agents for topology {key}: {domain}")));
        }
        // The node's own share of a first launch already holds the pending daemon pods.
        if (!pod.daemon || !node.state.unlaunched())
            && let Some(why) = self.too_little(pod, site)
        {
            return Some(Refusal::No(why));
        }
        None
    }

    /// Why the offers of a node's agent do not cover a pod.
    pub(super) fn too_little(&self, pod: &PodFacts, site: &Site) -> Option<String> {
        let agent = self.agents.get(&site.agent);
        if let Some(never) = agent.and_then(|agent| agent.impossible_ports(pod)) {
            return Some(format!("Mesos: {never}"));
        }
        let total = agent.and_then(|agent| agent.total);
        let mut lacks = Vec::new();
        let parts = [
            ("cpus", pod.amount.cpus, site.offered.cpus, total.map(|total| total.cpus)),
            ("MB", pod.amount.mem, site.offered.mem, total.map(|total| total.mem)),
        ];
        for (unit, need, offered, total) in parts {
            if need > offered {
                let of = total.map(|total| format!(" of {}", decimal(total))).unwrap_or_default();
                lacks.push(format!("{}{of} {unit} offered, {} needed", decimal(offered.max(0)), decimal(need)));
            }
        }
        if lacks.is_empty() {
            for port in pod.host_ports().filter_map(|port| port.host_port).filter(|port| !site.ports.contains(*port)) {
                let ranges = if site.ports.is_empty() { "none".to_owned() } else { site.ports.to_string() };
                lacks.push(format!("host port {port} is not among the ports offered ({ranges})"));
            }
            let (need, left) = (pod.ports_to_grant(), pod.left_to_grant(&site.ports));
            if site.grants && need > left {
                lacks.push(format!("{left} host ports offered, {need} needed"));
            }
        }
        (!lacks.is_empty()).then(|| format!("Mesos: {}", lacks.join("; ")))
    }

    /// Nodes that run are better than nodes that must be started, and full ones better than empty ones, which can go.
    pub(super) fn prioritize(&mut self, request: RequestId, nodes: Vec<String>) {
        let mut pods: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in self.pods.values() {
            if let Some(node) = entry.facts.node.as_deref().or(entry.flight.node())
                && (entry.facts.keeps_node() || entry.flight != Flight::None)
            {
                *pods.entry(node).or_default() += 1;
            }
        }
        let score = |name: &str| match self.nodes.get(name).map(|node| &node.state) {
            Some(NodeState::Ready) => 5 + pods.get(name).copied().unwrap_or(0).min(5),
            Some(NodeState::Starting | NodeState::Prepared { .. } | NodeState::Preparing) => 4,
            _ => 0,
        };
        let scores = nodes.into_iter().map(|name| (name.clone(), score(&name))).collect();
        self.push(Effect::AnswerPrioritize { request, scores });
    }
}

enum Refusal {
    No(String),
    Waking(String),
}
