//! What the agent has not acknowledged yet. Pure: the driver does the I/O.
use super::{Acknowledged, Subscribe, Update};
use crate::types::{Bytes, ExecutorId, StatusSource, TaskInfo, TaskStatus};

/// Tasks and states that a (restarted) agent may not know.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    tasks: Vec<TaskInfo>,
    updates: Vec<Update>,
}

impl Outbox {
    /// Records a task. Returns false if it is known: an agent that restarts in the middle of a launch sends it again.
    pub(super) fn launched(&mut self, task: &TaskInfo) -> bool {
        if self.tasks.iter().any(|known| known.task_id == task.task_id) {
            return false;
        }
        self.tasks.push(task.clone());
        true
    }

    /// Sets the fields that every state must have, and keeps the state until it is acknowledged.
    pub(super) fn stamped(
        &mut self,
        mut status: TaskStatus,
        executor: &ExecutorId,
        uuid: Bytes,
        seconds: f64,
    ) -> Update {
        status.source = Some(StatusSource::Executor);
        status.executor_id = Some(executor.clone());
        status.uuid = Some(uuid);
        status.timestamp = Some(seconds);
        let update = Update { status };
        self.updates.push(update.clone());
        update
    }

    /// Records an acknowledgement: the agent has the state on its disk, is responsible for it from now on, and knows
    /// the task. Returns how many states stopped waiting: 0 if the state was acknowledged before.
    pub(super) fn acknowledged(&mut self, acknowledged: &Acknowledged) -> usize {
        self.tasks.retain(|task| task.task_id != acknowledged.task_id);
        self.refused(Some(&acknowledged.uuid))
    }

    /// Drops a state that the agent refuses permanently, because it would be refused again.
    pub(super) fn refused(&mut self, uuid: Option<&Bytes>) -> usize {
        let before = self.updates.len();
        self.updates.retain(|update| update.status.uuid.as_ref() != uuid);
        before - self.updates.len()
    }

    /// The content of a subscription.
    pub(super) fn subscribe(&self) -> Subscribe {
        Subscribe { unacknowledged_tasks: self.tasks.clone(), unacknowledged_updates: self.updates.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TaskState;

    fn task(id: &str) -> TaskInfo {
        TaskInfo { task_id: id.into(), ..TaskInfo::default() }
    }

    #[test]
    fn an_acknowledged_state_and_its_task_are_not_sent_again() {
        let mut outbox = Outbox::default();
        assert!(outbox.launched(&task("a")));
        assert!(outbox.launched(&task("b")));
        let executor = ExecutorId::from("e");
        let first = outbox.stamped(TaskStatus::new("a", TaskState::Starting), &executor, Bytes(vec![1]), 1.0);
        outbox.stamped(TaskStatus::new("a", TaskState::Running), &executor, Bytes(vec![2]), 2.0);
        assert_eq!(first.status.source, Some(StatusSource::Executor));
        assert_eq!(first.status.executor_id, Some(executor));

        let acknowledged = Acknowledged { task_id: "a".into(), uuid: Bytes(vec![1]) };
        assert_eq!(outbox.acknowledged(&acknowledged), 1);
        assert_eq!(outbox.acknowledged(&acknowledged), 0);
        let subscribe = outbox.subscribe();
        assert_eq!(subscribe.unacknowledged_tasks, [task("b")]);
        let states: Vec<_> = subscribe.unacknowledged_updates.iter().map(|update| update.status.state).collect();
        assert_eq!(states, [TaskState::Running]);
    }

    #[test]
    fn a_task_that_is_sent_twice_is_new_only_once() {
        let mut outbox = Outbox::default();
        assert!(outbox.launched(&task("a")));
        assert!(!outbox.launched(&task("a")));
    }

    #[test]
    fn a_refused_state_is_dropped() {
        let mut outbox = Outbox::default();
        let update = outbox.stamped(TaskStatus::new("a", TaskState::Running), &"e".into(), Bytes(vec![1]), 1.0);
        assert_eq!(outbox.refused(update.status.uuid.as_ref()), 1);
        assert!(outbox.subscribe().unacknowledged_updates.is_empty());
    }
}
