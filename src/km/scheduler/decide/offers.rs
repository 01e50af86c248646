//! Offers: held while a pending pod may use them, otherwise declined, and suppressed while nothing is pending.
use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{ApiRequest, Effect, MesosCall};
use super::parts::{NodeEntry, NodeState};
use super::place::Placement;
use super::scheduler::Scheduler;
use mesos::types::{AgentInfo, Offer};

/// Longest time that an unused offer is held and thus withheld from other frameworks.
const HOLD: Duration = Duration::from_secs(30);

/// Filter on offers that were held without being used.
const RETRY_SECONDS: u32 = 5;

/// Filter on offers that help no waiting pod. Mesos offers again as soon as there is more than was declined.
const USELESS_SECONDS: u32 = 60;

/// Filter while nothing is wanted. REVIVE removes it.
const UNWANTED_SECONDS: u32 = 3600;

impl Scheduler {
    pub(super) fn offered(&mut self, offer: Offer) {
        if offer.role().is_some_and(|role| role != self.settings.role) {
            self.push(Effect::Mesos(MesosCall::Decline { offers: vec![offer.id], seconds: UNWANTED_SECONDS }));
            return;
        }
        self.agents.hold(offer, self.now);
    }

    pub(super) fn rescinded(&mut self, offer: &str) {
        self.agents.rescind(offer);
        self.failed_returns.rescind(offer);
    }

    pub(super) fn learn_agents(&mut self, infos: &[AgentInfo]) {
        self.demand.learn_agents();
        let mut listed = BTreeSet::new();
        for info in infos {
            let Some(id) = info.id.as_ref().map(|id| id.value.clone()) else { continue };
            listed.insert(id.clone());
            if self.agents.learn(id, info) {
                self.demand.grow();
            }
        }
        let used: BTreeSet<&str> = self.nodes.values().map(NodeEntry::agent).collect();
        self.agents.keep(|id| listed.contains(id) || used.contains(id));
    }

    pub(super) fn sync_offers(&mut self, placement: &Placement) {
        let now = self.now;
        // Agents whose offers are useful, and those whose use is certain enough to hold their offers as long as needed.
        let mut useful: BTreeSet<String> = placement.on_agent.values().cloned().collect();
        let mut certain: BTreeSet<String> = BTreeSet::new();
        let agent = |node: &NodeEntry| node.agent().to_owned();
        useful.extend(placement.on_node.values().filter_map(|name| self.nodes.get(name)).map(agent));
        let mut unmet = placement.unmet;
        for (name, node) in self.nodes.iter() {
            let waiting = self.pods.waiting_for(name).next().is_some();
            if waiting || matches!(node.state(), NodeState::Preparing | NodeState::Prepared { .. }) {
                certain.insert(node.agent().to_owned());
                let left_over = waiting && node.flush_at().is_none() && !node.state().unlaunched();
                unmet |= left_over || !self.agents.has_offers(node.agent());
            }
        }
        let short = self.nodes_short_of_min();
        if short > 0 {
            unmet = true;
            useful.extend(self.nodes.values().filter(|node| node.state().unlaunched()).map(agent));
        }
        for agent in self.sweeps.agents_wanted(now) {
            unmet |= !self.agents.has_offers(&agent);
            certain.insert(agent);
        }
        let wanted = unmet || !useful.is_empty() || !certain.is_empty();
        self.give_back(&useful, &certain, wanted);
        for (seconds, offers) in self.failed_returns.take(now) {
            self.push(Effect::Mesos(MesosCall::Decline { offers, seconds }));
        }
        if !wanted {
            if self.demand.suppress() {
                self.push(Effect::Mesos(MesosCall::Suppress));
            }
        } else if self.demand.revive(unmet, now) {
            self.push(Effect::Mesos(MesosCall::Revive));
        }
        if (wanted || !placement.nowhere.is_empty()) && self.demand.list_agents(now) {
            self.push(Effect::ListAgents);
        }
    }

    fn give_back(&mut self, useful: &BTreeSet<String>, certain: &BTreeSet<String>, wanted: bool) {
        let now = self.now;
        let useless = self.agents.take_offers(|id, _| !certain.contains(id) && !useful.contains(id));
        let in_vain = self.agents.take_offers(|id, offer| !certain.contains(id) && now.since(offer.since) > HOLD);
        if !useless.is_empty() {
            let seconds = if wanted { USELESS_SECONDS } else { UNWANTED_SECONDS };
            self.push(Effect::Mesos(MesosCall::Decline { offers: useless, seconds }));
        }
        if !in_vain.is_empty() {
            self.push(Effect::Mesos(MesosCall::Decline { offers: in_vain, seconds: RETRY_SECONDS }));
        }
    }

    /// Makes kube-scheduler try pods again that now have a place: an offer is not an event for kube-scheduler.
    pub(super) fn nudge(&mut self, placement: &Placement) {
        let now = self.now;
        let mut nudges = Vec::new();
        let nodes = &self.nodes;
        self.pods.update_each(|uid, pod| {
            let node = placement.on_node.get(uid).and_then(|name| nodes.get(name));
            let visible = node.is_some_and(|node| node.facts().is_some());
            if !visible || pod.is_binding() {
                pod.unplaceable();
            } else if pod.nudge(now) {
                nudges.push(Effect::Api(ApiRequest::Nudge {
                    namespace: pod.facts().namespace.clone(),
                    name: pod.facts().name.clone(),
                    uid: uid.clone(),
                }));
            }
        });
        self.effects.extend(nudges);
    }
}
