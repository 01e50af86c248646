//! Queries masters and agents. Encoding and decoding are separate from the transport, so that a caller with its own
//! connection (a stream through SSH) implements only [`Transport`].
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Agents, Executors, Flags, Frameworks, Roles, State, Tasks, Version};
use crate::error::MesosError;
use crate::masters::Masters;
use crate::transport::{Request, Transport};
use crate::types::FrameworkId;

/// A call without arguments, for the API below `prefix` (empty for a master).
pub fn encode(prefix: &str, call: &'static str) -> Request {
    Request::post(format!("{prefix}/api/v1"), json!({"type": call}).to_string().into_bytes())
}

/// The part of a reply that answers `call`: the answer to GET_AGENTS is in the field `get_agents`.
pub fn decode<R: DeserializeOwned>(call: &'static str, reply: &[u8]) -> serde_json::Result<R> {
    let mut reply: Value = serde_json::from_slice(reply)?;
    let answer = reply.get_mut(call.to_lowercase()).map(Value::take).unwrap_or_else(|| json!({}));
    serde_json::from_value(answer)
}

/// The operator API of one master or agent.
#[derive(Clone, Debug)]
pub struct Operator {
    transport: Arc<dyn Transport>,
    prefix: String,
    principal: Option<String>,
}

impl Operator {
    /// For a master, which must be the leader: others answer with a redirect, [`MesosError::NotLeading`].
    pub fn master(transport: Arc<dyn Transport>) -> Self {
        Self { transport, prefix: String::new(), principal: None }
    }

    /// For an agent, whose API is below `prefix`, as returned by [`super::Agent::path`].
    pub fn agent(transport: Arc<dyn Transport>, prefix: impl Into<String>) -> Self {
        Self { transport, prefix: prefix.into(), principal: None }
    }

    /// For the leading master.
    pub async fn leading(masters: &Masters) -> Result<Self, MesosError> {
        let transport = masters.leader().await?;
        Ok(Self { transport, prefix: String::new(), principal: masters.principal().map(str::to_owned) })
    }

    /// URL of the server, for messages.
    pub fn target(&self) -> &str {
        self.transport.target()
    }

    /// Registered agents.
    pub async fn agents(&self) -> Result<Agents, MesosError> {
        self.ask("GET_AGENTS").await
    }

    /// Frameworks, running and ended.
    pub async fn frameworks(&self) -> Result<Frameworks, MesosError> {
        self.ask("GET_FRAMEWORKS").await
    }

    /// Tasks, running and ended.
    pub async fn tasks(&self) -> Result<Tasks, MesosError> {
        self.ask("GET_TASKS").await
    }

    /// Running executors.
    pub async fn executors(&self) -> Result<Executors, MesosError> {
        self.ask("GET_EXECUTORS").await
    }

    /// Roles in use.
    pub async fn roles(&self) -> Result<Roles, MesosError> {
        self.ask("GET_ROLES").await
    }

    /// Agents, frameworks, executors and tasks at one point in time.
    pub async fn state(&self) -> Result<State, MesosError> {
        self.ask("GET_STATE").await
    }

    /// Flags that have a value.
    pub async fn flags(&self) -> Result<BTreeMap<String, String>, MesosError> {
        let flags: Flags = self.ask("GET_FLAGS").await?;
        Ok(flags.flags.into_iter().filter_map(|flag| Some((flag.name, flag.value?))).collect())
    }

    /// Version of Mesos.
    pub async fn version(&self) -> Result<String, MesosError> {
        Ok(self.ask::<Version>("GET_VERSION").await?.version_info.version)
    }

    /// Tears down a framework and all its tasks. An id that the master does not know is refused.
    pub async fn teardown(&self, framework: &FrameworkId) -> Result<(), MesosError> {
        let body = json!({"type": "TEARDOWN", "teardown": {"framework_id": framework}});
        let request = Request::post(format!("{}/api/v1", self.prefix), body.to_string().into_bytes());
        self.send(request, "TEARDOWN").await.map(drop)
    }

    /// Sends any call without arguments.
    pub async fn ask<R: DeserializeOwned>(&self, call: &'static str) -> Result<R, MesosError> {
        let reply = self.send(encode(&self.prefix, call), call).await?;
        decode(call, &reply).map_err(|source| MesosError::Malformed {
            what: call,
            target: self.transport.target().to_owned(),
            source,
        })
    }

    async fn send(&self, request: Request, call: &'static str) -> Result<Vec<u8>, MesosError> {
        let reply = self.transport.send(request).await?;
        match reply.status {
            200 | 202 => Ok(reply.read().await?),
            _ => Err(MesosError::refusal(self.transport.as_ref(), self.principal.clone(), call, reply).await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_under_the_name_of_its_call() {
        let reply = br#"{"type":"GET_AGENTS","get_agents":{"agents":[{"agent_info":{"hostname":"a1","port":5051,
            "id":{"value":"S0"}},"active":true,"version":"1.11.0","pid":"slave(1)@10.0.0.9:5051",
            "capabilities":[{"type":"MULTI_ROLE"},{}]}]}}"#;
        let agents: Agents = decode("GET_AGENTS", reply).unwrap();
        let agent = &agents.agents[0];
        assert_eq!((agent.path().as_str(), agent.endpoint()), ("/slave(1)", Some("10.0.0.9:5051")));
        assert_eq!(agent.capabilities.len(), 2);
    }

    #[test]
    fn an_agents_own_executors_come_without_the_agents_id() {
        // The answer of an agent of Mesos 1.11.
        let reply = br#"{"type":"GET_EXECUTORS","get_executors":{"executors":[{"executor_info":{"type":"CUSTOM",
            "executor_id":{"value":"agent1.708cd441"},"framework_id":{"value":"F0"}}}],"completed_executors":[]}}"#;
        let executors: Executors = decode("GET_EXECUTORS", reply).unwrap();
        assert_eq!(executors.executors.len(), 1);
        assert_eq!(executors.executors[0].agent_id, None);
    }

    #[test]
    fn an_empty_answer_is_no_error() {
        let tasks: Tasks = decode("GET_TASKS", br#"{"type":"GET_TASKS"}"#).unwrap();
        assert_eq!(tasks, Tasks::default());
    }

    #[test]
    fn an_agents_api_lies_below_its_prefix() {
        let request = encode("/slave(1)", "GET_FLAGS");
        assert_eq!(request.path, "/slave(1)/api/v1");
        assert_eq!(request.body.as_deref(), Some(&br#"{"type":"GET_FLAGS"}"#[..]));
    }
}
