//! Cleaning: a one-off task on an agent whose executor died without cleaning up, and the purge of all agents.
use super::effect::{ApiRequest, Effect};
use super::parts::{Due, Ended, Task};
use super::scheduler::Scheduler;
use kmctl_core::model::agents::take;
use kmctl_core::model::ids::{TaskKind, node_of};
use kmctl_core::model::resources::Amount;
use kmctl_core::model::tasks::task_info;
use kmctl_core::protocol::launch::{FORMAT, SweepLaunch, TaskData};
use mesos::types::TaskState;

/// Resources of the sweep's executor.
const SWEEPER: Amount = Amount::new(50, 64);

/// Resources of the sweep's task.
const SWEEP_TASK: Amount = Amount::new(10, 32);

impl Scheduler {
    pub(super) fn sync_sweeps(&mut self) {
        self.finish_sweeps();
        self.purge();
        for (agent, due) in self.sweeps.due() {
            self.launch_sweep(&agent, &due);
        }
    }

    fn finish_sweeps(&mut self) {
        let tasks = &mut self.tasks;
        let reports = self.sweeps.sync(self.now, |id| {
            tasks.get(id).filter(|task| task.is_terminal())?;
            let task = tasks.remove(id)?;
            let (state, message) = task.outcome();
            Some(Ended { clean: state == TaskState::Finished, told: format!("{state}: {message}") })
        });
        // A sweep launched by another process of ours: nothing waits for it.
        let strange = |id: &str, task: &Task| {
            matches!(task.kind(), TaskKind::Sweep(_)) && task.is_terminal() && !self.sweeps.own(id)
        };
        let over = self.tasks.iter().filter(|(id, task)| strange(id, task)).map(|(id, _)| id.clone());
        for id in over.collect::<Vec<String>>() {
            self.tasks.remove(&id);
        }
        self.effects.extend(reports.into_iter().map(Effect::Report));
    }

    /// Once no node is left, every agent that ever had one is swept.
    fn purge(&mut self) {
        if !self.bounds.purge || self.bounds.purged {
            self.sweeps.stop_purge();
            return;
        }
        if !self.nodes.is_empty() {
            return;
        }
        let ids = &mut self.ids;
        if let Some(uncleaned) = self.sweeps.purge(self.now, || format!("purge.{}", ids.next_id())) {
            let uncleaned = uncleaned.into_iter().map(|(agent, why)| (self.agents.title(&agent), why)).collect();
            self.push(Effect::Api(ApiRequest::PurgeDone { uncleaned }));
        }
    }

    fn launch_sweep(&mut self, agent: &str, due: &Due) {
        let Due { executor: after, purge } = due;
        let Some(held) = self.agents.get(agent) else { return };
        let mut offers = held.offers.clone();
        let Some(executor) = take(&mut offers, SWEEPER, &[]) else { return };
        let Some(resources) = take(&mut offers, SWEEP_TASK, &[]) else { return };
        let id = format!("sweep.{after}.{}", self.ids.next_id());
        let node = node_of(after).unwrap_or(after).to_owned();
        let executor = self.executor(&id, format!("sweep {node}"), executor);
        let launch = SweepLaunch {
            format: FORMAT,
            cluster: self.settings.cluster.clone(),
            root_dir: self.settings.node.root_dir.clone(),
            purge: *purge,
        };
        let task = task_info(&id, format!("sweep.{node}"), agent, &executor, resources, &TaskData::Sweep(launch));
        self.sweeps.launched(agent, id);
        self.accept_tasks(agent, vec![task]);
    }
}
