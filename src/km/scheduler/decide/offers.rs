//! Offers: held while a pending pod may use them, otherwise declined, and suppressed while nothing is pending.
use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{ApiRequest, Effect, MesosCall};
use super::parts::{BindState, NodeState};
use super::place::Placement;
use super::scheduler::Scheduler;
use kmctl_core::model::agents::Agent;
use mesos::types::{AgentInfo, Offer, OfferId};

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
        let (id, now) = (offer.agent_id.value.clone(), self.now);
        let agent = self.agents.entry(id.clone()).or_insert_with(|| Agent { id, ..Agent::default() });
        agent.hold(offer, now);
    }

    pub(super) fn rescinded(&mut self, offer: &str) {
        for agent in self.agents.values_mut() {
            agent.offers.retain(|held| held.id.as_str() != offer);
        }
    }

    pub(super) fn learn_agents(&mut self, infos: &[AgentInfo]) {
        self.demand.learn_agents();
        let mut listed = BTreeSet::new();
        for info in infos {
            let Some(id) = info.id.as_ref().map(|id| id.value.clone()) else { continue };
            listed.insert(id.clone());
            let before = self.agents.len();
            self.agents.entry(id.clone()).or_insert_with(|| Agent { id, ..Agent::default() }).learn(info);
            if self.agents.len() != before {
                self.demand.grow();
            }
        }
        let used: BTreeSet<String> = self.nodes.values().map(|node| node.agent.clone()).collect();
        self.agents.retain(|id, agent| listed.contains(id) || used.contains(id) || !agent.offers.is_empty());
    }

    pub(super) fn sync_offers(&mut self, placement: &Placement) {
        let now = self.now;
        // Agents whose offers are useful, and those whose use is certain enough to hold their offers as long as needed.
        let mut useful: BTreeSet<String> = placement.on_agent.values().cloned().collect();
        let mut certain: BTreeSet<String> = BTreeSet::new();
        useful
            .extend(placement.on_node.values().filter_map(|name| self.nodes.get(name)).map(|node| node.agent.clone()));
        let mut unmet = placement.unmet;
        for (name, node) in &self.nodes {
            let waiting = self.pods.values().any(|pod| pod.bind_state.waits_for(name));
            if waiting || matches!(node.state, NodeState::Preparing | NodeState::Prepared { .. }) {
                certain.insert(node.agent.clone());
                unmet |=
                    !self.has_offers(&node.agent) || (waiting && node.flush_at.is_none() && !node.state.unlaunched());
            }
        }
        let short = self.nodes_short_of_min();
        if short > 0 {
            unmet = true;
            useful.extend(self.nodes.values().filter(|node| node.state.unlaunched()).map(|node| node.agent.clone()));
        }
        for agent in self.sweeps.agents_wanted(now) {
            unmet |= !self.has_offers(&agent);
            certain.insert(agent);
        }
        let wanted = unmet || !useful.is_empty() || !certain.is_empty();
        self.give_back(&useful, &certain, wanted);
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

    fn has_offers(&self, agent: &str) -> bool {
        self.agents.get(agent).is_some_and(|agent| !agent.offers.is_empty())
    }

    fn give_back(&mut self, useful: &BTreeSet<String>, certain: &BTreeSet<String>, wanted: bool) {
        let now = self.now;
        let (mut useless, mut in_vain): (Vec<OfferId>, Vec<OfferId>) = (Vec::new(), Vec::new());
        for (id, agent) in &mut self.agents {
            if certain.contains(id) {
                continue;
            }
            if !useful.contains(id) {
                useless.extend(agent.offers.drain(..).map(|offer| offer.id));
                continue;
            }
            let (old, held) =
                std::mem::take(&mut agent.offers).into_iter().partition(|offer| now.since(offer.since) > HOLD);
            agent.offers = held;
            let old: Vec<_> = old;
            in_vain.extend(old.into_iter().map(|offer| offer.id));
        }
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
        for (uid, pod) in &mut self.pods {
            let visible = placement
                .on_node
                .get(uid)
                .and_then(|name| self.nodes.get(name))
                .is_some_and(|node| node.facts.is_some());
            if !visible || pod.bind_state != BindState::None {
                (pod.placeable_since, pod.nudges) = (None, 0);
                continue;
            }
            let since = *pod.placeable_since.get_or_insert(now);
            // A pod that just passed will be bound. A pod that was refused or never seen is not tried again without a
            // nudge.
            let first = match pod.asked {
                Some((at, true)) if at >= since => Duration::from_secs(3),
                _ => Duration::from_millis(100),
            };
            let wait = (first * 2_u32.saturating_pow(pod.nudges.min(8))).min(Duration::from_secs(30));
            let rested = pod.nudged.is_none_or(|nudged| now.since(nudged) >= Duration::from_secs(1));
            let last = pod.nudged.unwrap_or(since).max(since).max(pod.asked.map_or(since, |(at, _)| at));
            if rested && now.since(last) >= wait {
                pod.nudged = Some(now);
                pod.nudges += 1;
                nudges.push(Effect::Api(ApiRequest::Nudge {
                    namespace: pod.facts.namespace.clone(),
                    name: pod.facts.name.clone(),
                    uid: uid.clone(),
                }));
            }
        }
        self.effects.extend(nudges);
    }
}
