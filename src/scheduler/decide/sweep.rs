//! Cleaning: a one-off task on an agent whose executor died without cleaning up, and the purge of all agents.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effect::Effect;
use super::state::{Scheduler, Task};
use crate::node::launch::{FORMAT, SweepLaunch, TaskData};
use crate::scheduler::agents::take;
use crate::scheduler::ids::node_of;
use crate::scheduler::resources::Amount;
use crate::scheduler::tasks::task_info;
use crate::scheduler::time::Time;

/// What the sweep's executor takes.
const SWEEPER: Amount = Amount::new(50, 64);

/// What its task takes.
const SWEEP_TASK: Amount = Amount::new(10, 32);

/// How long offers are asked for on behalf of a sweep. An agent that makes none by then is gone, or full: the next
/// node on it sweeps by itself.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often a sweep that failed is tried.
const ATTEMPTS: u32 = 3;

/// Sweeps to do and under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweeps {
    /// Agents that ever had a node.
    pub agents: BTreeSet<String>,
    /// By agent.
    wanted: BTreeMap<String, Wanted>,
    purged: BTreeSet<String>,
    purge_done: bool,
}

#[derive(Clone, Debug)]
struct Wanted {
    executor: String,
    purge: bool,
    since: Time,
    attempts: u32,
    task: Option<String>,
}

impl Sweeps {
    /// Whether a sweep is to happen on the agent; until then no node starts there.
    pub fn concern(&self, agent: &str) -> bool {
        self.wanted.get(agent).is_some_and(|wanted| wanted.task.is_some())
    }

    /// Agents whose offers are needed.
    pub fn agents_wanted(&self, now: Time) -> Vec<String> {
        let due = self.wanted.iter().filter(|(_, wanted)| wanted.task.is_none() && now.since(wanted.since) < PATIENCE);
        due.map(|(agent, _)| agent.clone()).collect()
    }

    /// An executor ended without cleaning up.
    pub fn add(&mut self, agent: &str, executor: &str, purge: bool, since: Time) {
        let wanted = Wanted { executor: executor.to_owned(), purge, since, attempts: 0, task: None };
        self.wanted.entry(agent.to_owned()).or_insert(wanted);
    }
}

impl Scheduler {
    pub(super) fn settle_sweeps(&mut self) {
        self.finish_sweeps();
        self.purge();
        for agent in self.sweeps.wanted.keys().cloned().collect::<Vec<_>>() {
            self.launch_sweep(&agent);
        }
    }

    fn finish_sweeps(&mut self) {
        let now = self.now;
        let mut reports = Vec::new();
        let tasks = &mut self.tasks;
        let purged = &mut self.sweeps.purged;
        self.sweeps.wanted.retain(|agent, wanted| {
            let Some(id) = &wanted.task else {
                let expired = now.since(wanted.since) >= PATIENCE;
                if expired {
                    reports.push(format!("agent {agent} made no offer for a sweep after {}", wanted.executor));
                    purged.insert(agent.clone());
                }
                return !expired;
            };
            let Some(task) = tasks.get(id).filter(|task| task.over()).cloned() else { return true };
            tasks.remove(id);
            if task.state == crate::mesos::types::TaskState::Finished {
                if wanted.purge {
                    purged.insert(agent.clone());
                }
                return false;
            }
            reports.push(format!("sweep on agent {agent} ended as {}: {}", task.state, task.message));
            (wanted.task, wanted.attempts, wanted.since) = (None, wanted.attempts + 1, now);
            if wanted.attempts >= ATTEMPTS {
                purged.insert(agent.clone());
            }
            wanted.attempts < ATTEMPTS
        });
        // A sweep that another process of ours launched: nothing waits for it.
        let known: BTreeSet<&String> = self.sweeps.wanted.values().filter_map(|wanted| wanted.task.as_ref()).collect();
        let strange = |id: &String, task: &Task| {
            matches!(task.kind, crate::scheduler::ids::TaskKind::Sweep(_)) && task.over() && !known.contains(id)
        };
        let over: Vec<String> =
            self.tasks.iter().filter(|(id, task)| strange(id, task)).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.tasks.remove(&id);
        }
        self.effects.extend(reports.into_iter().map(Effect::Report));
    }

    /// Once no node is left, every agent that ever had one is swept.
    fn purge(&mut self) {
        if !self.bounds.purge {
            self.sweeps.purged.clear();
            self.sweeps.purge_done = false;
            return;
        }
        if !self.nodes.is_empty() || self.sweeps.purge_done || self.bounds.purged {
            return;
        }
        let now = self.now;
        let left: Vec<String> = self.sweeps.agents.difference(&self.sweeps.purged).cloned().collect();
        for agent in &left {
            let executor = format!("purge.{}", self.ids.next_id());
            let wanted = self.sweeps.wanted.get(agent);
            if wanted.is_none_or(|wanted| !wanted.purge && wanted.task.is_none()) {
                self.sweeps.wanted.remove(agent);
                self.sweeps.add(agent, &executor, true, now);
            }
        }
        if left.is_empty() {
            self.sweeps.purge_done = true;
            self.push(Effect::PurgeDone);
        }
    }

    fn launch_sweep(&mut self, agent: &str) {
        let Some(wanted) = self.sweeps.wanted.get(agent).filter(|wanted| wanted.task.is_none()).cloned() else {
            return;
        };
        let Some(held) = self.agents.get(agent) else { return };
        let mut offers = held.offers.clone();
        let Some(executor) = take(&mut offers, SWEEPER, &[]) else { return };
        let Some(resources) = take(&mut offers, SWEEP_TASK, &[]) else { return };
        let id = format!("sweep.{}.{}", wanted.executor, self.ids.next_id());
        let node = node_of(&wanted.executor).unwrap_or(&wanted.executor).to_owned();
        let executor = self.executor(&id, format!("sweep {node}"), executor);
        let launch = SweepLaunch {
            format: FORMAT,
            cluster: self.settings.cluster.clone(),
            root_dir: self.settings.node.root_dir.clone(),
            purge: wanted.purge,
        };
        let task = task_info(&id, format!("sweep.{node}"), agent, &executor, resources, &TaskData::Sweep(launch));
        if let Some(wanted) = self.sweeps.wanted.get_mut(agent) {
            wanted.task = Some(id);
        }
        self.accept_tasks(agent, vec![task]);
    }
}
