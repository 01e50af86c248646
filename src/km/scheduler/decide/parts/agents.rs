//! Agents, and the offers held from them.
use std::collections::BTreeMap;

use kmctl_core::model::agents::{Agent, HeldOffer};
use kmctl_core::model::time::Time;
use mesos::types::{AgentInfo, Offer, OfferId};

/// Agents by id. Offers enter and leave only here.
#[derive(Clone, Debug, Default)]
pub struct Agents(BTreeMap<String, Agent>);

impl Agents {
    pub fn get(&self, id: &str) -> Option<&Agent> {
        self.0.get(id)
    }

    pub fn values(&self) -> impl Iterator<Item = &Agent> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Hostname and id, for the operator. An agent that has left Mesos is known by its id only.
    pub fn title(&self, id: &str) -> String {
        let host = self.get(id).map(|agent| agent.hostname.as_str()).filter(|host| !host.is_empty());
        host.map_or_else(|| id.to_owned(), |host| format!("{host} ({id})"))
    }

    /// Whether an offer of the agent is held.
    pub fn has_offers(&self, id: &str) -> bool {
        self.get(id).is_some_and(|agent| !agent.offers.is_empty())
    }

    fn entry(&mut self, id: String) -> &mut Agent {
        self.0.entry(id.clone()).or_insert_with(|| Agent { id, ..Agent::default() })
    }

    /// Holds an offer. The caller has checked its role.
    pub fn hold(&mut self, offer: Offer, now: Time) {
        self.entry(offer.agent_id.value.clone()).hold(offer, now);
    }

    /// Takes in what the operator API lists. True if the agent was not known.
    pub fn learn(&mut self, id: String, info: &AgentInfo) -> bool {
        let before = self.0.len();
        self.entry(id).learn(info);
        self.0.len() != before
    }

    /// Forgets all agents but these, and those with offers.
    pub fn keep(&mut self, kept: impl Fn(&str) -> bool) {
        self.0.retain(|id, agent| kept(id) || !agent.offers.is_empty());
    }

    /// Mesos took an offer back.
    pub fn rescind(&mut self, offer: &str) {
        for agent in self.0.values_mut() {
            agent.offers.retain(|held| held.id.as_str() != offer);
        }
    }

    /// All offers of an agent are void.
    pub fn void_offers_of(&mut self, id: &str) {
        if let Some(agent) = self.0.get_mut(id) {
            agent.offers.clear();
        }
    }

    /// All offers are void: they are valid only on their own stream.
    pub fn void_offers(&mut self) {
        self.0.values_mut().for_each(|agent| agent.offers.clear());
    }

    /// Takes all offers of an agent.
    pub fn take_offers_of(&mut self, id: &str) -> Vec<OfferId> {
        let offers = self.0.get_mut(id).map(|agent| std::mem::take(&mut agent.offers)).unwrap_or_default();
        offers.into_iter().map(|offer| offer.id).collect()
    }

    /// Takes offers, each with the id of its agent.
    pub fn take_offers(&mut self, which: impl Fn(&str, &HeldOffer) -> bool) -> Vec<OfferId> {
        let mut taken = Vec::new();
        for (id, agent) in &mut self.0 {
            agent.offers.retain(|offer| {
                let take = which(id, offer);
                if take {
                    taken.push(offer.id.clone());
                }
                !take
            });
        }
        taken
    }

    /// A node of ours died on the agent, or could not be started there: other agents are preferred for a while.
    pub fn note_failure(&mut self, id: &str, now: Time) {
        if let Some(agent) = self.0.get_mut(id) {
            agent.ended = Some(now);
        }
    }
}
