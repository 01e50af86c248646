//! Tasks and executors of the fake.
use tokio::time::Instant;

use super::calls::until;
use super::cluster::{Cluster, Executor, Filter, Task};
use super::pool::Pool;
use crate::scheduler::{Accept, Acknowledge, Event, Reconcile, Update};
use crate::types::{
    AgentId, Bytes, ExecutorId, ExecutorInfo, FrameworkCapabilityType, FrameworkId, Operation, Resource, StatusReason,
    StatusSource, TaskId, TaskInfo, TaskState, TaskStatus,
};

impl Cluster {
    /// Accepts offers: all must be of one agent and role, otherwise every task is dropped.
    pub(super) fn accept(&mut self, id: &FrameworkId, accept: Accept, now: Instant) {
        let tasks: Vec<TaskInfo> = accept
            .operations
            .into_iter()
            .flat_map(|operation| match operation {
                Operation::Launch { launch } => launch.task_infos,
                _ => Vec::new(),
            })
            .collect();
        let mut taken = Vec::new();
        for offer in &accept.offer_ids {
            if self.offers.get(offer).is_some_and(|offered| offered.framework == *id) {
                taken.extend(self.offers.remove(offer));
            }
        }
        let valid = taken.len() == accept.offer_ids.len() && !taken.is_empty();
        let same = taken
            .iter()
            .all(|offer| taken.first().is_some_and(|first| first.agent == offer.agent && first.role == offer.role));
        let mut rest = Pool::default();
        for offer in &taken {
            rest.add(&offer.pool);
        }
        let (agent, role) = match taken.into_iter().next() {
            Some(first) => (first.agent, first.role),
            None => Default::default(),
        };
        for task in tasks {
            if !valid || !same {
                let message = "Task launched with invalid offers";
                self.refuse(id, &task, TaskState::Dropped, StatusReason::InvalidOffers, message);
            } else if let Err(problem) = self.launch(id, &agent, &role, &mut rest, &task) {
                self.refuse(id, &task, TaskState::Error, StatusReason::TaskInvalid, &problem);
            }
        }
        self.release(&agent, &rest);
        self.filter(id, Filter { until: until(accept.filters, now), agent, role, pool: rest });
    }

    fn launch(
        &mut self,
        id: &FrameworkId,
        agent: &AgentId,
        role: &str,
        rest: &mut Pool,
        task: &TaskInfo,
    ) -> Result<(), String> {
        let manual = self.manual;
        let Some(framework) = self.frameworks.get_mut(id) else { return Err("Framework is gone".into()) };
        if framework.tasks.contains_key(&task.task_id) {
            return Err(format!("Task has duplicate ID: {}", task.task_id));
        }
        if task.agent_id != *agent {
            return Err(format!("Task uses invalid agent {} while agent {agent} is expected", task.agent_id));
        }
        let Some(executor) = &task.executor else {
            return Err("Task should have at least one (but not both) of CommandInfo or ExecutorInfo present".into());
        };
        let foreign = |resource: &&Resource| resource.allocation_role().is_some_and(|given| given != role);
        if let Some(resource) = task.resources.iter().find(foreign) {
            return Err(format!("Resource {} is allocated to another role than the offer's", resource.name));
        }
        let key = (agent.clone(), executor.executor_id.clone());
        let known = framework.executors.get(&key);
        if let Some(known) = known
            && !same_executor(&known.info, executor, role)
        {
            return Err(format!(
                "Task has invalid ExecutorInfo (existing ExecutorInfo with same ExecutorID is not compatible): {}",
                executor.executor_id
            ));
        }
        let pool = Pool::of(&task.resources);
        let mut needed = pool.clone();
        let executor_pool = Pool::of(&executor.resources);
        let new = known.is_none();
        if new {
            needed.add(&executor_pool);
        }
        if pool == Pool::default() || !rest.contains(&needed) {
            return Err("Total resources required by task and its executor is more than available".into());
        }
        rest.subtract(&needed);
        if new {
            let mut info = executor.clone();
            adopt(&mut info, id, role);
            framework.executors.insert(key, Executor { info, pool: executor_pool });
        }
        let launched = Task {
            info: task.clone(),
            executor: executor.executor_id.clone(),
            pool,
            state: TaskState::Staging,
            unacknowledged: Default::default(),
        };
        framework.tasks.insert(task.task_id.clone(), launched);
        if !manual {
            self.report(id, &task.task_id, TaskState::Starting, None, None, None);
            self.report(id, &task.task_id, TaskState::Running, None, None, None);
        }
        Ok(())
    }

    /// Reports a state that the master itself sets; it needs no acknowledgement.
    fn refuse(&mut self, id: &FrameworkId, task: &TaskInfo, state: TaskState, reason: StatusReason, message: &str) {
        let mut status = TaskStatus::new(task.task_id.clone(), state).with_message(message);
        status.agent_id = Some(task.agent_id.clone());
        self.master_says(id, status, reason);
    }

    fn master_says(&self, id: &FrameworkId, mut status: TaskStatus, reason: StatusReason) {
        status.source = Some(StatusSource::Master);
        status.reason = Some(reason);
        if let Some(framework) = self.frameworks.get(id) {
            framework.send(Event::Update { update: Update { status } });
        }
    }

    /// Reports a state from an executor, or from the agent if there is a reason. The agent sends the states of one task
    /// one by one, each after the acknowledgement of the previous one.
    pub(super) fn report(
        &mut self,
        id: &FrameworkId,
        task_id: &TaskId,
        state: TaskState,
        reason: Option<StatusReason>,
        message: Option<String>,
        data: Option<Bytes>,
    ) {
        let Some(task) = self.frameworks.get_mut(id).and_then(|framework| framework.tasks.get_mut(task_id)) else {
            return;
        };
        if task.state.is_terminal() {
            return;
        }
        let mut status = TaskStatus::new(task_id.clone(), state);
        status.agent_id = Some(task.info.agent_id.clone());
        status.executor_id = Some(task.executor.clone());
        status.source = Some(if reason.is_some() { StatusSource::Agent } else { StatusSource::Executor });
        status.reason = reason;
        status.message = message;
        status.data = data;
        status.uuid = Some(Bytes::random_uuid());
        task.unacknowledged.push_back(status.clone());
        let first = task.unacknowledged.len() == 1;
        // The master records the newest state at once. A terminal state frees the resources before it is acknowledged.
        task.state = state;
        let freed = state.is_terminal().then(|| (task.info.agent_id.clone(), task.pool.clone()));
        if first && let Some(framework) = self.frameworks.get(id) {
            framework.send(Event::Update { update: Update { status } });
        }
        if let Some((agent, pool)) = freed {
            self.release(&agent, &pool);
        }
    }

    pub(super) fn acknowledge(&mut self, id: &FrameworkId, acknowledge: &Acknowledge) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(task) = framework.tasks.get_mut(&acknowledge.task_id) else { return };
        if task.unacknowledged.front().and_then(|status| status.uuid.as_ref()) != Some(&acknowledge.uuid) {
            return;
        }
        task.unacknowledged.pop_front();
        match task.unacknowledged.front().cloned() {
            Some(status) => framework.send(Event::Update { update: Update { status } }),
            None if task.state.is_terminal() => {
                framework.tasks.remove(&acknowledge.task_id);
            }
            None => {}
        }
    }

    pub(super) fn kill(&mut self, id: &FrameworkId, task_id: &TaskId, agent: Option<&AgentId>) {
        let known = self.frameworks.get(id).is_some_and(|framework| framework.tasks.contains_key(task_id));
        if known {
            self.report(id, task_id, TaskState::Killed, None, None, None);
        } else {
            self.unknown(id, task_id, agent);
        }
    }

    pub(super) fn reconcile(&mut self, id: &FrameworkId, reconcile: &Reconcile) {
        let Some(framework) = self.frameworks.get(id) else { return };
        let known = |task_id: &TaskId| {
            framework.tasks.get(task_id).map(|task| {
                let mut status =
                    TaskStatus::new(task_id.clone(), task.state).with_message("Reconciliation: Latest task state");
                status.agent_id = Some(task.info.agent_id.clone());
                status.executor_id = Some(task.executor.clone());
                status
            })
        };
        if reconcile.tasks.is_empty() {
            for status in framework.tasks.keys().filter_map(known) {
                self.master_says(id, status, StatusReason::Reconciliation);
            }
            return;
        }
        for task in &reconcile.tasks {
            match known(&task.task_id) {
                Some(status) => self.master_says(id, status, StatusReason::Reconciliation),
                None => self.unknown(id, &task.task_id, task.agent_id.as_ref()),
            }
        }
    }

    /// Reports the state of a task that the master does not know: gone, if the master knows the agent.
    fn unknown(&self, id: &FrameworkId, task_id: &TaskId, agent: Option<&AgentId>) {
        let aware =
            self.frameworks.get(id).is_some_and(|framework| framework.has(FrameworkCapabilityType::PartitionAware));
        let registered = agent.is_some_and(|agent| self.agents.contains_key(agent));
        let state = match (aware, registered) {
            (false, _) => TaskState::Lost,
            (true, true) => TaskState::Gone,
            (true, false) => TaskState::TaskUnknown,
        };
        let mut status = TaskStatus::new(task_id.clone(), state).with_message("Reconciliation: Task is unknown");
        status.agent_id = agent.cloned();
        self.master_says(id, status, StatusReason::Reconciliation);
    }

    /// Removes an agent with its offers, executors and tasks.
    pub(super) fn remove_agent(&mut self, agent: &AgentId) {
        if self.agents.remove(agent).is_none() {
            return;
        }
        let offers: Vec<_> =
            self.offers.iter().filter(|(_, offered)| offered.agent == *agent).map(|(id, _)| id.clone()).collect();
        for offer_id in offers {
            if let Some(offered) = self.offers.remove(&offer_id)
                && let Some(framework) = self.frameworks.get(&offered.framework)
            {
                framework.send(Event::Rescind { rescind: crate::scheduler::Rescind { offer_id } });
            }
        }
        for framework in self.frameworks.values_mut() {
            let state = if framework.has(FrameworkCapabilityType::PartitionAware) {
                TaskState::Unreachable
            } else {
                TaskState::Lost
            };
            framework.executors.retain(|(on, _), _| on != agent);
            let lost: Vec<TaskId> = framework
                .tasks
                .iter()
                .filter(|(_, task)| task.info.agent_id == *agent)
                .map(|(task, _)| task.clone())
                .collect();
            for task_id in lost {
                framework.tasks.remove(&task_id);
                let mut status = TaskStatus::new(task_id, state).with_message("Agent is gone");
                status.agent_id = Some(agent.clone());
                status.source = Some(StatusSource::Master);
                status.reason = Some(StatusReason::AgentRemoved);
                framework.send(Event::Update { update: Update { status } });
            }
            let failure = crate::scheduler::Failure { agent_id: Some(agent.clone()), executor_id: None, status: None };
            framework.send(Event::Failure { failure });
        }
    }

    /// Finds an executor's framework and agent.
    pub(super) fn locate(&self, executor: &ExecutorId) -> Option<(FrameworkId, AgentId)> {
        self.frameworks.iter().find_map(|(id, framework)| {
            let (agent, _) = framework.executors.keys().find(|(_, known)| known == executor)?;
            Some((id.clone(), agent.clone()))
        })
    }

    /// Finds a task's framework.
    pub(super) fn framework_of(&self, task: &TaskId) -> Option<FrameworkId> {
        self.frameworks.iter().find(|(_, framework)| framework.tasks.contains_key(task)).map(|(id, _)| id.clone())
    }
}

/// Whether an executor is compatible with a running one: command, data and resources must be the same, including the
/// resources' roles. Resources without a role get the offer's role.
fn same_executor(running: &ExecutorInfo, given: &ExecutorInfo, role: &str) -> bool {
    let comparable = |info: &ExecutorInfo| {
        let mut info = info.clone();
        for resource in &mut info.resources {
            if resource.allocation_info.is_none() {
                *resource = resource.clone().allocated_to(role);
            }
        }
        info.resources.sort_by(|a, b| a.name.cmp(&b.name));
        (info.kind, info.command, info.container, info.resources, info.name, info.source, info.data, info.discovery)
    };
    comparable(running) == comparable(given)
}

fn adopt(info: &mut ExecutorInfo, framework: &FrameworkId, role: &str) {
    info.framework_id = Some(framework.clone());
    for resource in &mut info.resources {
        if resource.allocation_info.is_none() {
            *resource = resource.clone().allocated_to(role);
        }
    }
}
