//! The operator API of the fake master.
use serde_json::{Value, json};

use super::cluster::{Cluster, Framework, Refusal};
use super::pool::Pool;
use crate::operator as messages;
use crate::types::{AgentCapability, AgentCapabilityType, AgentId, FrameworkId};

impl Cluster {
    /// Answers a call; none if the call has no answer.
    pub(super) fn operate(&mut self, call: &Value) -> Result<Option<Value>, Refusal> {
        let kind = call.get("type").and_then(Value::as_str).unwrap_or_default();
        let answer = match kind {
            "GET_HEALTH" => json!({"healthy": true}),
            "GET_VERSION" => json!({"version_info": {"version": "1.11.0"}}),
            "GET_FLAGS" => json!({"flags": [{"name": "cluster", "value": "fake"}]}),
            "GET_AGENTS" => json!(self.agents_message()),
            "GET_FRAMEWORKS" => json!(self.frameworks_message()),
            "GET_TASKS" => json!(self.tasks_message()),
            "GET_EXECUTORS" => json!(self.executors_message()),
            "GET_STATE" => json!(messages::State {
                get_tasks: self.tasks_message(),
                get_executors: self.executors_message(),
                get_frameworks: self.frameworks_message(),
                get_agents: self.agents_message(),
            }),
            "TEARDOWN" => {
                let id = call.pointer("/teardown/framework_id/value").and_then(Value::as_str).unwrap_or_default();
                let id = FrameworkId::from(id);
                if !self.frameworks.contains_key(&id) {
                    return Err(Refusal::new(400, "No framework found with specified ID"));
                }
                self.remove_framework(&id);
                return Ok(None);
            }
            _ => return Err(Refusal::new(400, "Failed to validate master::Call: Expecting 'type' to be present")),
        };
        let mut reply = json!({"type": kind});
        reply[kind.to_lowercase()] = answer;
        Ok(Some(reply))
    }

    fn agents_message(&self) -> messages::Agents {
        let agents = self.agents.iter().enumerate().map(|(index, (id, agent))| {
            let mut allocated = agent.total.clone();
            allocated.subtract(&agent.free);
            let offered = self.offered(|offered| offered.agent == *id);
            allocated.subtract(&offered);
            messages::Agent {
                agent_info: agent.info(id),
                active: true,
                version: "1.11.0".into(),
                pid: Some(self.agent_pid(index)),
                total_resources: agent.total.resources(None),
                allocated_resources: allocated.resources(None),
                offered_resources: offered.resources(None),
                capabilities: vec![AgentCapability { kind: AgentCapabilityType::TaskResourceLimits }],
                ..messages::Agent::default()
            }
        });
        messages::Agents { agents: agents.collect(), recovered_agents: Vec::new() }
    }

    /// Address of the API of the agent at `index`, in libprocess' notation.
    pub(super) fn agent_pid(&self, index: usize) -> String {
        let address = self.address.map_or_else(|| "127.0.0.1:5051".to_owned(), |address| address.to_string());
        format!("slave({})@{address}", index + 1)
    }

    /// Answers a call to the agent with the process name `slave(N)`: the executors of the agent.
    pub(super) fn operate_agent(&self, process: &str, call: &Value) -> Result<Value, Refusal> {
        let id = self.agents.keys().enumerate().find(|(index, _)| format!("slave({})", index + 1) == process);
        let mut found = self.executors_message();
        found.executors.retain(|executor| id.is_some_and(|(_, id)| executor.agent_id.as_ref() == Some(id)));
        // An agent omits its own id.
        found.executors.iter_mut().for_each(|executor| executor.agent_id = None);
        match call.get("type").and_then(Value::as_str) {
            Some("GET_EXECUTORS") => Ok(json!({"type": "GET_EXECUTORS", "get_executors": found})),
            _ => Err(Refusal::new(400, "Failed to validate agent::Call: Expecting 'type' to be present")),
        }
    }

    pub(super) fn offered(&self, which: impl Fn(&super::cluster::Offered) -> bool) -> Pool {
        let mut pool = Pool::default();
        for offered in self.offers.values().filter(|offered| which(offered)) {
            pool.add(&offered.pool);
        }
        pool
    }

    fn frameworks_message(&self) -> messages::Frameworks {
        let living = self.frameworks.iter().map(|(id, framework)| messages::Framework {
            framework_info: framework.info.clone(),
            active: framework.stream.is_some(),
            connected: framework.stream.is_some(),
            offers: self
                .offers
                .values()
                .filter(|offered| offered.framework == *id)
                .map(|offered| offered.message.clone())
                .collect(),
            allocated_resources: allocated(framework).resources(None),
            offered_resources: self.offered(|offered| offered.framework == *id).resources(None),
            ..messages::Framework::default()
        });
        let ended = self
            .removed
            .values()
            .map(|info| messages::Framework { framework_info: info.clone(), ..messages::Framework::default() });
        messages::Frameworks { frameworks: living.collect(), completed_frameworks: ended.collect() }
    }

    fn tasks_message(&self) -> messages::Tasks {
        let mut tasks = messages::Tasks::default();
        for (id, framework) in &self.frameworks {
            for (task_id, task) in &framework.tasks {
                let message = messages::Task {
                    name: task.info.name.clone(),
                    task_id: task_id.clone(),
                    framework_id: id.clone(),
                    executor_id: Some(task.executor.clone()),
                    agent_id: task.info.agent_id.clone(),
                    state: task.state,
                    resources: task.info.resources.clone(),
                    statuses: Vec::new(),
                    labels: task.info.labels.clone(),
                };
                if task.state.is_terminal() { tasks.completed_tasks.push(message) } else { tasks.tasks.push(message) }
            }
        }
        tasks
    }

    fn executors_message(&self) -> messages::Executors {
        let executors = self.frameworks.values().flat_map(|framework| &framework.executors);
        let executors = executors.map(|((agent, _), executor): (&(AgentId, _), _)| messages::Executor {
            executor_info: executor.info.clone(),
            agent_id: Some(agent.clone()),
        });
        messages::Executors { executors: executors.collect() }
    }
}

/// Resources in use by a framework's tasks and executors.
fn allocated(framework: &Framework) -> Pool {
    let mut pool = Pool::default();
    for task in framework.tasks.values().filter(|task| !task.state.is_terminal()) {
        pool.add(&task.pool);
    }
    for executor in framework.executors.values() {
        pool.add(&executor.pool);
    }
    pool
}
