//! Why a pod waits, for pods about which kube-scheduler could not ask: with no node, it never reaches an extender.
use std::time::Duration;

use super::effect::Effect;
use super::place::Placement;
use super::state::{PodEntry, Scheduler};
use crate::scheduler::agents::Agent;
use crate::scheduler::pods::PodFacts;
use crate::scheduler::resources::{Amount, decimal};

/// Offers come about a second after they are asked for; before that there is nothing to tell.
const FIRST: Duration = Duration::from_millis(1500);

/// The same text is told again after this time, so that it does not fade from `kubectl describe`.
const AGAIN: Duration = Duration::from_secs(120);

/// Another text is told after this time: figures change with every offer.
const CHANGED: Duration = Duration::from_secs(10);

/// What kube-scheduler asked so recently stands in its own event.
const ASKED: Duration = Duration::from_secs(20);

impl Scheduler {
    pub(super) fn explain(&mut self, placement: &Placement) {
        let now = self.now;
        let due = |pod: &PodEntry| {
            now.since(pod.since) >= FIRST
                && !pod.facts.daemon
                && pod.asked.is_none_or(|(asked, _)| now.since(asked) >= ASKED)
                && pod.explained.as_ref().is_none_or(|(_, at)| now.since(*at) >= CHANGED)
        };
        let pods = self.pods.iter().filter(|(uid, pod)| placement.nowhere.contains(*uid) && due(pod));
        let texts: Vec<(String, String)> = pods.map(|(uid, pod)| (uid.clone(), self.why_nowhere(&pod.facts))).collect();
        for (uid, message) in texts {
            let Some(pod) = self.pods.get_mut(&uid) else { continue };
            if pod.explained.as_ref().is_some_and(|(text, at)| *text == message && now.since(*at) < AGAIN) {
                continue;
            }
            pod.explained = Some((message.clone(), now));
            let (namespace, name) = (pod.facts.namespace.clone(), pod.facts.name.clone());
            self.push(Effect::Explain { namespace, name, uid, message });
        }
    }

    fn why_nowhere(&self, pod: &PodFacts) -> String {
        if self.bounds.purge {
            return "Mesos: the cluster is being removed from the agents, so no node is started".to_owned();
        }
        let known = self.agents.len();
        let eligible: Vec<_> = self.agents.values().filter(|agent| self.eligible(agent)).collect();
        if known == 0 {
            return "Mesos: no agent has made an offer yet".to_owned();
        }
        if eligible.is_empty() {
            return format!("Mesos: nodes.constraints exclude all {known} agents");
        }
        let matching: Vec<_> = eligible
            .iter()
            .filter(|agent| {
                let name = self.name_for(agent);
                pod.demand.accepts(&name, &agent.labels(&name))
            })
            .collect();
        if matching.is_empty() {
            return format!("Mesos: no agent has {} ({} agents looked at)", pod.demand.describe(), eligible.len());
        }
        if let Some(first) = matching.first()
            && matching.iter().all(|agent| self.never_ports(agent, pod).is_some())
            && let Some(why) = self.never_ports(first, pod)
        {
            return format!("Mesos: no agent could ever take this pod: {why}");
        }
        let need = pod.amount + self.first_launch();
        let largest = matching.iter().fold(Amount::default(), |most, agent| most.max(agent.capacity()));
        let sizes_known = self.demand.agents_known && matching.iter().all(|agent| agent.total.is_some());
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
            return format!("Mesos: no agent could ever take this pod: {lacks}");
        }
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
}
