//! Cleaning up after nodes that could not do it themselves.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kmctl_core::model::time::Time;

/// How long offers are asked for on behalf of a sweep. An agent that makes none by then is gone, or full: the next
/// node on it sweeps by itself.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a sweep that failed is tried.
const ATTEMPTS: u32 = 3;

/// Sweeps to do and under way, one at a time on each agent.
#[derive(Clone, Debug, Default)]
pub struct Sweeps {
    /// Agents that ever had a node.
    agents: BTreeSet<String>,
    /// By agent.
    wanted: BTreeMap<String, Sweep>,
    /// Agents that a purge is done with, and whether it is with all of them.
    purged: BTreeSet<String>,
    purge_done: bool,
}

#[derive(Clone, Debug)]
struct Sweep {
    due: Due,
    since: Time,
    attempts: u32,
    task: Option<String>,
}

/// A sweep that is to be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// After which executor.
    pub executor: String,
    /// Also removes what outlives nodes.
    pub purge: bool,
}

/// How a sweep's task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Nothing is left.
    pub clean: bool,
    /// State and message.
    pub told: String,
}

impl Sweeps {
    /// These agents ever had a node.
    pub fn know_agents(&mut self, agents: BTreeSet<String>) {
        self.agents = agents;
    }

    /// Whether a sweep is under way on the agent; until it ends no node starts there.
    pub fn concern(&self, agent: &str) -> bool {
        self.wanted.get(agent).is_some_and(|sweep| sweep.task.is_some())
    }

    /// Whether it is the task of a sweep that is waited for.
    pub fn own(&self, task: &str) -> bool {
        self.wanted.values().any(|sweep| sweep.task.as_deref() == Some(task))
    }

    /// Agents whose offers are needed.
    pub fn agents_wanted(&self, now: Time) -> Vec<String> {
        let due = self.wanted.iter().filter(|(_, sweep)| sweep.task.is_none() && now.since(sweep.since) < PATIENCE);
        due.map(|(agent, _)| agent.clone()).collect()
    }

    /// An executor ended without cleaning up.
    pub fn add(&mut self, agent: &str, executor: &str, purge: bool, since: Time) {
        let due = Due { executor: executor.to_owned(), purge };
        self.wanted.entry(agent.to_owned()).or_insert(Sweep { due, since, attempts: 0, task: None });
    }

    /// Sweeps that wait for an offer, by agent.
    pub fn due(&self) -> Vec<(String, Due)> {
        let due = self.wanted.iter().filter(|(_, sweep)| sweep.task.is_none());
        due.map(|(agent, sweep)| (agent.clone(), sweep.due.clone())).collect()
    }

    /// The sweep of this agent is launched as this task.
    pub fn launched(&mut self, agent: &str, task: String) {
        if let Some(sweep) = self.wanted.get_mut(agent) {
            sweep.task = Some(task);
        }
    }

    /// Takes in how tasks ended (`ended` is asked once for each), and gives up what was waited for in vain. Returns what is
    /// worth telling.
    pub fn settle(&mut self, now: Time, mut ended: impl FnMut(&str) -> Option<Ended>) -> Vec<String> {
        let mut reports = Vec::new();
        let purged = &mut self.purged;
        self.wanted.retain(|agent, sweep| {
            let Some(id) = &sweep.task else {
                let expired = now.since(sweep.since) >= PATIENCE;
                if expired {
                    reports.push(format!("agent {agent} made no offer for a sweep after {}", sweep.due.executor));
                    purged.insert(agent.clone());
                }
                return !expired;
            };
            let Some(Ended { clean, told }) = ended(id) else { return true };
            if clean {
                if sweep.due.purge {
                    purged.insert(agent.clone());
                }
                return false;
            }
            reports.push(format!("sweep on agent {agent} ended as {told}"));
            (sweep.task, sweep.attempts, sweep.since) = (None, sweep.attempts + 1, now);
            if sweep.attempts >= ATTEMPTS {
                purged.insert(agent.clone());
            }
            sweep.attempts < ATTEMPTS
        });
        reports
    }

    /// Every agent that ever had a node is to be swept, under names that `name` makes. True once, when all of them are.
    pub fn purge(&mut self, now: Time, mut name: impl FnMut() -> String) -> bool {
        if self.purge_done {
            return false;
        }
        let left: Vec<String> = self.agents.difference(&self.purged).cloned().collect();
        for agent in &left {
            let executor = name();
            let sweep = self.wanted.get(agent);
            if sweep.is_none_or(|sweep| !sweep.due.purge && sweep.task.is_none()) {
                self.wanted.remove(agent);
                self.add(agent, &executor, true, now);
            }
        }
        self.purge_done = left.is_empty();
        self.purge_done
    }

    /// Nothing is purged any more; a later purge begins with all agents.
    pub fn stop_purge(&mut self) {
        self.purged.clear();
        self.purge_done = false;
    }
}
