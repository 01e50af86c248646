//! Pages that masters and agents serve to a plain GET: `/state` and the agents' `/flags`, limited to the fields that
//! are read. The master also answers for its agents, because they exist only as numbers.
use serde_json::{Map, Value, json};

use super::cluster::{Agent, Cluster, Framework};
use super::pool::Pool;
use crate::types::{AgentId, ValueType};

impl Cluster {
    /// The page `/state`.
    pub(super) fn state_page(&self, authenticates: bool) -> Value {
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        let slaves = self.agents.iter().enumerate().map(|(index, (id, agent))| self.slave(index, id, agent));
        let frameworks = self.frameworks.iter().map(|(id, framework)| {
            json!({
                "id": id.as_str(),
                "name": framework.info.name,
                "principal": framework.info.principal.clone().unwrap_or_default(),
                "active": framework.stream.is_some(),
                "connected": framework.stream.is_some(),
                "tasks": tasks(framework),
            })
        });
        json!({
            "version": "1.11.0",
            "pid": format!("master@{address}"),
            "unreachable_slaves": 0.0,
            "flags": { "cluster": "fake", "authenticate_http_frameworks": authenticates.to_string() },
            "slaves": slaves.collect::<Vec<_>>(),
            "frameworks": frameworks.collect::<Vec<_>>(),
        })
    }

    fn slave(&self, index: usize, id: &AgentId, agent: &Agent) -> Value {
        let mut used = agent.total.clone();
        used.subtract(&agent.free);
        used.subtract(&self.offered(|offered| offered.agent == *id));
        let texts = agent.spec.attributes.iter().filter_map(|attribute| {
            let text = attribute.text.as_ref()?;
            Some((attribute.name.clone(), json!(text.value)))
        });
        let mut slave = json!({
            "id": id.as_str(),
            "hostname": agent.spec.hostname,
            "pid": self.agent_pid(index),
            "version": "1.11.0",
            "active": true,
            "deactivated": false,
            "attributes": texts.collect::<Map<_, _>>(),
            "resources": amounts(&agent.total),
            "unreserved_resources": amounts(&agent.total),
            "reserved_resources": {},
            "used_resources": amounts(&used),
            "capabilities": ["MULTI_ROLE", "TASK_RESOURCE_LIMITS"],
        });
        if let Some(domain) = &agent.spec.domain {
            slave["domain"] = json!(domain);
        }
        slave
    }
}

/// `/flags` of the agent with the process name `slave(N)`, with the flags that docs/getting-started.md requires.
pub(super) fn agent_flags(process: &str) -> Value {
    json!({ "flags": {
        "launcher": "linux",
        "isolation": "cgroups/cpu,cgroups/mem",
        "recover": "reconnect",
        "gc_delay": "1weeks",
        "executor_registration_timeout": "1mins",
        "executor_reregistration_timeout": "2secs",
        "cgroups_root": format!("mesos/{process}"),
    }})
}

fn tasks(framework: &Framework) -> Vec<Value> {
    let living = framework.tasks.iter().filter(|(_, task)| !task.state.is_terminal());
    living
        .map(|(id, task)| {
            json!({
                "id": id.as_str(),
                "name": task.info.name,
                "state": task.state,
                "slave_id": task.info.agent_id.as_str(),
                "resources": amounts(&task.pool),
            })
        })
        .collect()
}

/// `{"cpus":2.0,"mem":1024.0,"ports":"[31000-32000]"}`; empty resources are omitted.
fn amounts(pool: &Pool) -> Value {
    let mut page = Map::new();
    for resource in pool.resources(None) {
        let value = match resource.kind {
            ValueType::Ranges => {
                let ranges: Vec<_> = resource.intervals().map(|(begin, end)| format!("{begin}-{end}")).collect();
                json!(format!("[{}]", ranges.join(", ")))
            }
            _ => json!(resource.amount()),
        };
        page.insert(resource.name, value);
    }
    Value::Object(page)
}
