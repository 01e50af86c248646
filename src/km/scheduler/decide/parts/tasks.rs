//! Mesos tasks of ours, as their status updates describe them.
use std::time::Duration;

use kmctl_core::backoff::Backoff;
use kmctl_core::model::agents::scalars;
use kmctl_core::model::ids::TaskKind;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::time::Time;
use mesos::types::{TaskInfo, TaskState, TaskStatus};

use super::table::Table;

/// A KILL may be lost. It is repeated until the task is over or unknown to the master, because the task holds resources
/// until then.
const KILL_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_secs(300));

/// A launch may be lost, and so may the report that an unreachable agent has returned. Only a reconciliation reveals
/// it. Requests end with an answer.
const ASK_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(30), Duration::from_secs(300));

/// Tasks by id.
pub type Tasks = Table<Task>;

/// A Mesos task of ours. Every state that Mesos reports is taken in: a task that the master did not know, or that was
/// lost, may run again after its agent has returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    kind: TaskKind,
    agent: Option<String>,
    executor: Option<String>,
    /// What it was launched with, if this process launched it.
    granted: Option<Amount>,
    state: TaskState,
    /// The message of Mesos or the executor about the state.
    message: String,
    /// When it entered this state.
    since: Time,
    /// The last KILL, and the number of KILLs.
    killed: Option<Time>,
    kills: u32,
    /// When its state was last requested, and how often since it entered the state.
    asked: Option<Time>,
    asks: u32,
}

impl Table<Task> {
    /// A task is in an ACCEPT.
    pub fn launch(&mut self, agent: &str, task: &TaskInfo, now: Time) {
        let id = task.task_id.value.clone();
        let mut entry = Task::new(TaskKind::of(&id), TaskState::Staging, now);
        entry.agent = Some(agent.to_owned());
        entry.executor = task.executor.as_ref().map(|executor| executor.executor_id.value.clone());
        entry.granted = Some(scalars(&task.resources));
        self.insert(id, entry);
    }

    /// Mesos reports a task.
    pub fn report(&mut self, status: &TaskStatus, now: Time) {
        let id = &status.task_id.value;
        if !self.contains(id) {
            self.insert(id.clone(), Task::new(TaskKind::of(id), status.state, now));
        }
        self.update(id, |task| task.report(status, now));
    }

    /// Whether the task holds no resources any more. False for one that is not known.
    pub fn is_over(&self, id: &str) -> bool {
        self.get(id).is_some_and(Task::is_terminal)
    }
}

impl Task {
    fn new(kind: TaskKind, state: TaskState, since: Time) -> Task {
        Task {
            kind,
            agent: None,
            executor: None,
            granted: None,
            state,
            message: String::new(),
            since,
            killed: None,
            kills: 0,
            asked: None,
            asks: 0,
        }
    }

    fn report(&mut self, status: &TaskStatus, now: Time) {
        if self.state != status.state {
            if self.state == TaskState::Unreachable {
                // A KILL that was due is sent as soon as the task is reachable again.
                (self.killed, self.kills) = (None, 0);
            }
            (self.state, self.since, self.asked, self.asks) = (status.state, now, None, 0);
        }
        self.agent = status.agent_id.as_ref().map(|id| id.value.clone()).or(self.agent.take());
        self.executor = status.executor_id.as_ref().map(|id| id.value.clone()).or(self.executor.take());
        self.message = status.message.clone().unwrap_or_default();
    }

    pub fn kind(&self) -> &TaskKind {
        &self.kind
    }

    pub fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    pub fn executor(&self) -> Option<&str> {
        self.executor.as_deref()
    }

    /// What it was launched with, if this process launched it.
    pub fn granted(&self) -> Option<Amount> {
        self.granted
    }

    /// When it entered its state.
    pub fn since(&self) -> Time {
        self.since
    }

    /// State and message, for the log.
    pub fn outcome(&self) -> (TaskState, &str) {
        (self.state, &self.message)
    }

    /// Whether the task holds no resources any more.
    pub fn is_terminal(&self) -> bool {
        // A task unknown to the master has nothing to wait for either.
        self.state.is_terminal() || self.state == TaskState::TaskUnknown
    }

    /// Whether its executor has started it, and it is not over.
    pub fn is_started(&self) -> bool {
        matches!(self.state, TaskState::Starting | TaskState::Running)
    }

    /// Whether it is being killed.
    pub fn is_ending(&self) -> bool {
        self.killed.is_some() || self.state == TaskState::Killing
    }

    /// True if a KILL has to be sent now.
    pub fn kill(&mut self, now: Time) -> bool {
        let waits = |killed| now.since(killed) < KILL_AGAIN.wait(self.kills.saturating_sub(1));
        // A KILL to an unreachable agent only yields an answer that says so.
        if self.is_terminal() || self.state == TaskState::Unreachable || self.killed.is_some_and(waits) {
            return false;
        }
        (self.killed, self.kills) = (Some(now), self.kills.saturating_add(1));
        true
    }

    /// True if its state has to be requested now, because nothing was heard of it for long.
    pub fn ask(&mut self, now: Time) -> bool {
        let unheard = matches!(self.state, TaskState::Staging | TaskState::Unreachable);
        let due = unheard && now.since(self.asked.unwrap_or(self.since)) > ASK_AGAIN.wait(self.asks);
        if due {
            (self.asked, self.asks) = (Some(now), self.asks.saturating_add(1));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus::new("pod.x.00000000", state)
    }

    #[test]
    fn a_task_keeps_what_a_later_status_does_not_say() {
        let mut tasks = Tasks::default();
        let mut first = status(TaskState::Running);
        (first.agent_id, first.message) = (Some("a".into()), Some("up".to_owned()));
        tasks.report(&first, Time(0));
        tasks.report(&status(TaskState::Running), Time(5000));
        let task = tasks.get("pod.x.00000000").unwrap();
        assert_eq!((task.agent(), task.since(), task.outcome()), (Some("a"), Time(0), (TaskState::Running, "")));
        assert!(!tasks.is_over("pod.x.00000000") && !tasks.is_over("pod.y.00000000"));
    }

    #[test]
    fn a_task_that_is_over_or_out_of_reach_is_not_killed() {
        for (state, killed) in [
            (TaskState::Staging, true),
            (TaskState::Running, true),
            (TaskState::Killing, true),
            (TaskState::Unreachable, false),
            (TaskState::Killed, false),
            (TaskState::TaskUnknown, false),
        ] {
            let mut task = Task::new(TaskKind::Foreign, state, Time(0));
            assert_eq!(task.kill(Time(0)), killed, "{state}");
            assert_eq!(task.is_ending(), killed || state == TaskState::Killing, "{state}");
            assert!(!task.kill(Time(9_999)), "{state}: not repeated before ten seconds");
            assert_eq!(task.kill(Time(10_000)), killed, "{state}");
        }
    }
}
