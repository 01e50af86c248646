//! Answers kube-scheduler's filter requests from memory. kube-scheduler gets fixed texts; the figures behind them are
//! for the pod's owner.
use std::collections::BTreeMap;

use super::effect::{Answer, Effect};
use super::event::RequestId;
use super::parts::NodeState;
use super::refused::Refused;
use super::scheduler::Scheduler;
use super::snapshot::{AssumedPods, NodeInfo, Snapshot};
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::decimal;

impl Scheduler {
    pub(super) fn filter(&mut self, request: RequestId, pod: PodFacts, nodes: Vec<String>) {
        let uid = pod.uid.clone();
        self.pod_asked(pod.clone());
        let mut failed = BTreeMap::new();
        let mut kept = Vec::new();
        let mut spreading = false;
        let choose;
        {
            let snapshot = self.snapshot(AssumedPods::Counted { but: &uid });
            for name in nodes {
                match self.refuse(&pod, &name, &snapshot) {
                    None => kept.push(name),
                    Some(Refusal { reason, .. }) => {
                        spreading |= reason == Refused::Waking;
                        failed.insert(name, reason);
                    }
                }
            }
            choose = kept.len() > 1 && snapshot.lacks_nodes_for(&pod);
        }
        if choose {
            self.keep_best_node(&mut kept, &mut failed);
        }
        let now = self.now;
        for name in &kept {
            self.nodes.update(name, |node| node.pass_filter(now));
        }
        self.pods.update(&uid, |pod| pod.filtered(&kept, spreading, now));
        self.push(Effect::Answer(request, Answer::Filter { kept, failed }));
    }

    /// Chooses the node of a pod with a topology spread in place of kube-scheduler, while a domain has no Node.
    /// kube-scheduler queries the next pod before it reports where it puts this one, and its own count lacks that
    /// domain. Only a pod whose node is known now can be counted then.
    fn keep_best_node(&self, kept: &mut Vec<String>, failed: &mut BTreeMap<String, Refused>) {
        let scores = self.scores(kept.clone());
        let Some((best, _)) = scores.into_iter().max_by_key(|(_, score)| *score) else { return };
        for name in std::mem::replace(kept, vec![best.clone()]) {
            if name != best {
                failed.insert(name, Refused::Chosen);
            }
        }
    }

    /// Why a node is not eligible for a pod. None if it is.
    pub(super) fn refuse(&self, pod: &PodFacts, name: &str, snapshot: &Snapshot<'_>) -> Option<Refusal> {
        let no = |reason: Refused| Some(Refusal { reason, told: reason.text().to_owned() });
        let Some(node) = self.nodes.get(name) else { return no(Refused::Stranger) };
        if !self.acting() {
            return no(Refused::NotConnected);
        }
        if !node.state().open() {
            return no(Refused::Leaving);
        }
        if let Some(entry) = self.pods.get(&pod.uid)
            && let Some(wanted) = entry.bind_state().node()
        {
            return if wanted == name { None } else { no(Refused::Elsewhere) };
        }
        if !pod.ungranted.is_empty() {
            return no(Refused::Ungranted);
        }
        if pod.daemon && *node.state() == NodeState::Candidate {
            return no(Refused::NotStarted);
        }
        let site = snapshot.sites.iter().find(|site| site.name == name)?;
        if self.waits_for_domains(&pod.uid)
            && let Some((key, domain)) = snapshot.missing_domain(pod, site, true)
        {
            let told = format!("waking Mesos agents for topology {key}: {domain}");
            return Some(Refusal { reason: Refused::Waking, told });
        }
        // The node's own share of a first launch already includes the pending daemon pods.
        if !pod.daemon || !node.state().unlaunched() { self.insufficient_resources(pod, site) } else { None }
    }

    /// Why the offers of a node's agent do not cover a pod.
    fn insufficient_resources(&self, pod: &PodFacts, site: &NodeInfo) -> Option<Refusal> {
        let agent = self.agents.get(&site.agent);
        if let Some(told) = agent.and_then(|agent| self.never_ports(agent, pod)) {
            return Some(Refusal { reason: Refused::NeverPorts, told });
        }
        if let Some(told) = agent.and_then(|agent| self.insufficient_ports(agent, pod)) {
            return Some(Refusal { reason: Refused::SpentPorts, told });
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
        if !lacks.is_empty() {
            let fits = total.is_none_or(|total| total.covers(pod.amount));
            let reason = if fits { Refused::NotOffered } else { Refused::TooLarge };
            return Some(Refusal { reason, told: lacks.join("; ") });
        }
        for port in pod.host_ports().filter_map(|port| port.host_port).filter(|port| !site.ports.contains(*port)) {
            let ranges = if site.ports.is_empty() { "none".to_owned() } else { site.ports.to_string() };
            lacks.push(format!("host port {port} is not among the ports offered ({ranges})"));
        }
        let (need, left) = (pod.ports_to_grant(), pod.left_to_grant(&site.ports));
        if site.grants && need > left {
            lacks.push(format!("{left} host ports offered, {need} needed"));
        }
        (!lacks.is_empty()).then(|| Refusal { reason: Refused::PortsNotOffered, told: lacks.join("; ") })
    }

    /// Running nodes are better than nodes that must be started, and full nodes better than empty ones, which can be
    /// removed.
    pub(super) fn prioritize(&mut self, request: RequestId, nodes: Vec<String>) {
        let scores = self.scores(nodes);
        self.push(Effect::Answer(request, Answer::Prioritize(scores)));
    }

    /// Score of each node for one more pod, from 0 to 10. With no more nodes than `nodes.min` none can be removed, and
    /// the spread of pods is left to kube-scheduler.
    fn scores(&self, nodes: Vec<String>) -> Vec<(String, i64)> {
        let mut pods: BTreeMap<&str, i64> = BTreeMap::new();
        if self.nodes.len() > self.bounds.min as usize {
            for entry in self.pods.values() {
                if let Some(node) = entry.node()
                    && (entry.facts().keeps_node() || entry.is_binding())
                {
                    *pods.entry(node).or_default() += 1;
                }
            }
        }
        let score = |name: &str| match self.nodes.get(name).map(|node| node.state()) {
            Some(NodeState::Ready) => 5 + pods.get(name).copied().unwrap_or(0).min(5),
            Some(NodeState::Starting | NodeState::Prepared { .. } | NodeState::Preparing) => 4,
            _ => 0,
        };
        nodes.into_iter().map(|name| (name.clone(), score(&name))).collect()
    }
}

/// Why a node is not eligible for a pod.
pub(super) struct Refusal {
    /// For kube-scheduler.
    pub reason: Refused,
    /// For the pod's owner, with figures.
    pub told: String,
}
