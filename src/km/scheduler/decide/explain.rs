//! Explains why a pod waits, with figures, in an event of our own. kube-scheduler's event has only the fixed texts of
//! [`Refused`], and without any node it never queries the extender.
//!
//! Events are kept for an hour, and each waiting pod may get them. The same text is therefore repeated rarely, and a
//! text that changes with every offer is reported less often the more often it has changed.
use std::collections::BTreeMap;

use super::effect::{ApiRequest, Effect};
use super::parts::PodEntry;
use super::place::Placement;
use super::scheduler::Scheduler;
use super::snapshot::{AssumedPods, Snapshot};
use kmctl_core::model::agents::Agent;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::{Amount, decimal};

/// Most refusals in one text.
const REFUSALS: usize = 3;

impl Scheduler {
    pub(super) fn explain(&mut self, placement: &Placement) {
        let now = self.now;
        let due = |uid: &String, pod: &PodEntry| placement.nowhere.contains(uid) && pod.explanation_due(now);
        let pods: Vec<(&String, &PodEntry)> = self.pods.iter().filter(|(uid, pod)| due(uid, pod)).collect();
        if pods.is_empty() {
            return;
        }
        let snapshot = self.snapshot(AssumedPods::Left);
        let texts =
            pods.into_iter().filter_map(|(uid, pod)| Some((uid.clone(), self.unschedulable_reason(pod, &snapshot)?)));
        for (uid, text) in texts.collect::<Vec<(String, String)>>() {
            if self.pods.update(&uid, |pod| pod.explain(&text, now)) != Some(true) {
                continue;
            }
            let Some(pod) = self.pods.get(&uid).map(PodEntry::facts) else { continue };
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            self.push(Effect::Api(ApiRequest::Explain { namespace, name, uid, message: text }));
        }
    }

    /// None if the pod's own kind or kube-scheduler's event says everything already.
    fn unschedulable_reason(&self, entry: &PodEntry, snapshot: &Snapshot<'_>) -> Option<String> {
        let pod = entry.facts();
        if !pod.ungranted.is_empty() {
            let names: Vec<&str> = pod.ungranted.iter().map(String::as_str).collect();
            let names = names.join(", ");
            return Some(format!("Mesos: nothing grants {names} to pods yet: docs/scheduler.md, \"What is refused\""));
        }
        if pod.daemon {
            return self.why_refused(entry, snapshot);
        }
        self.why_never(pod).or_else(|| self.why_refused(entry, snapshot)).or_else(|| Some(self.why_not_now(pod)))
    }

    /// What the nodes lack that kube-scheduler queried.
    fn why_refused(&self, entry: &PodEntry, snapshot: &Snapshot<'_>) -> Option<String> {
        let pod = entry.facts();
        if !entry.was_refused() {
            return None;
        }
        let mut told: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for site in snapshot.sites.iter().filter(|site| site.exists && snapshot.admits(pod, site)) {
            // Refusals without figures are in kube-scheduler's own event.
            if let Some(refusal) = self.refuse(pod, &site.name, snapshot)
                && refusal.told != refusal.reason.text()
            {
                told.entry(refusal.told).or_default().push(&site.name);
            }
        }
        let more = told.len().saturating_sub(REFUSALS);
        let told = told.into_iter().take(REFUSALS).map(|(text, nodes)| match nodes.as_slice() {
            [node] => format!("{text} ({node})"),
            nodes => format!("{text} ({} nodes)", nodes.len()),
        });
        let mut parts: Vec<String> = told.collect();
        if more > 0 {
            parts.push(format!("{more} other reasons"));
        }
        (!parts.is_empty()).then(|| format!("Mesos: {}", parts.join("; ")))
    }

    /// Reasons that no offer can change.
    fn why_never(&self, pod: &PodFacts) -> Option<String> {
        if self.bounds.purge {
            return Some("Mesos: the cluster is being removed from the agents, so no node is started".to_owned());
        }
        let known = self.agents.len();
        let eligible = self.agents.values().filter(|agent| self.eligible(agent)).count();
        if known == 0 {
            return Some("Mesos: no agent has made an offer yet".to_owned());
        }
        if eligible == 0 {
            return Some(format!("Mesos: nodes.constraints exclude all {known} agents"));
        }
        let matching = self.matching(pod);
        if matching.is_empty() {
            let wanted = pod.demand.describe();
            return Some(format!("Mesos: no agent has {wanted} ({eligible} agents looked at)"));
        }
        if let Some(first) = matching.first()
            && matching.iter().all(|agent| self.never_ports(agent, pod).is_some())
            && let Some(why) = self.never_ports(first, pod)
        {
            return Some(format!("Mesos: no agent could ever take this pod: {why}"));
        }
        let need = pod.amount + self.first_launch();
        let largest = matching.iter().fold(Amount::default(), |most, agent| most.max(agent.capacity()));
        let sizes_known = self.demand.knows_agents() && matching.iter().all(|agent| agent.total.is_some());
        if sizes_known && !matching.iter().any(|agent| agent.capacity().covers(need)) {
            let lack = |unit: &str, need: i64, pod: i64, largest: i64| {
                (need > largest).then(|| {
                    format!(
                        "needs {} {unit} and {} for its node; largest agent has {}",
                        decimal(pod),
                        decimal(need - pod),
                        decimal(largest)
                    )
                })
            };
            let lacks: Vec<String> = [
                lack("cpus", need.cpus, pod.amount.cpus, largest.cpus),
                lack("MB", need.mem, pod.amount.mem, largest.mem),
            ]
            .into_iter()
            .flatten()
            .collect();
            let lacks = if lacks.is_empty() {
                "needs more processor and memory than any one agent has".to_owned()
            } else {
                lacks.join("; ")
            };
            return Some(format!("Mesos: no agent could ever take this pod: {lacks}"));
        }
        None
    }

    /// What the offers lack.
    fn why_not_now(&self, pod: &PodFacts) -> String {
        let matching = self.matching(pod);
        let need = pod.amount + self.first_launch();
        if self.room_for_nodes() == 0 {
            return format!("Mesos: nodes.max is reached ({} nodes), and none of them has room", self.nodes.len());
        }
        let enough: Vec<_> = matching.iter().filter(|agent| agent.offered().covers(need)).collect();
        let left = |agent: &Agent| pod.left_to_grant(&agent.offered_ports());
        if let Some(most) = enough.iter().map(|agent| left(agent)).max()
            && enough.iter().all(|agent| self.grants_ports(agent) && left(agent) < pod.ports_to_grant())
        {
            return format!(
                "Mesos: {most} host ports offered on the best of {} agents, {} needed",
                matching.len(),
                pod.ports_to_grant()
            );
        }
        let best = matching.iter().max_by_key(|agent| (agent.offered().cpus, agent.offered().mem));
        let Some(best) = best else { return "Mesos: no agent matches".to_owned() };
        let (offered, total) = (best.offered(), best.total);
        let of = |offered: i64, total: Option<i64>, unit: &str| match total {
            Some(total) => format!("{} of {} {unit}", decimal(offered), decimal(total)),
            None => format!("{} {unit}", decimal(offered)),
        };
        format!(
            "Mesos: {} and {} offered on the best of {} agents; the pod and its node need {} cpus, {} MB",
            of(offered.cpus, total.map(|total| total.cpus), "cpus"),
            of(offered.mem, total.map(|total| total.mem), "MB"),
            matching.len(),
            decimal(need.cpus),
            decimal(need.mem),
        )
    }

    /// Agents that could become nodes and match the pod's selectors.
    fn matching(&self, pod: &PodFacts) -> Vec<&Agent> {
        let eligible = self.agents.values().filter(|agent| self.eligible(agent));
        let wanted = eligible.filter(|agent| {
            let name = self.name_for(agent);
            pod.demand.accepts(&name, &agent.labels(&name))
        });
        wanted.collect()
    }
}
