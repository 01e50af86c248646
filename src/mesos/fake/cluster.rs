//! State of the fake master. No I/O: events are sent to channels that the server drains.
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::pool::Pool;
use crate::scheduler::{Call, Event};
use crate::types::{
    AgentId, AgentInfo, Attribute, DomainInfo, ExecutorId, ExecutorInfo, FrameworkCapabilityType, FrameworkId,
    FrameworkInfo, Offer, OfferId, Resource, TaskId, TaskInfo, TaskState, TaskStatus,
};

/// An agent to add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentSpec {
    /// Hostname of the agent.
    pub hostname: String,
    /// All resources of the agent.
    pub resources: Vec<Resource>,
    /// Attributes, as an operator would set them.
    pub attributes: Vec<Attribute>,
    /// Region and zone of the agent.
    pub domain: Option<DomainInfo>,
}

impl AgentSpec {
    /// An agent with these amounts (`mem` in MB) and the default range of ports.
    pub fn new(hostname: &str, cpus: f64, mem: f64) -> Self {
        let resources = vec![
            Resource::scalar("cpus", cpus),
            Resource::scalar("mem", mem),
            Resource::scalar("disk", 10_240.0),
            Resource::ranges("ports", [(31_000, 32_000)]),
        ];
        Self { hostname: hostname.to_owned(), resources, attributes: Vec::new(), domain: None }
    }
}

pub(super) struct Agent {
    pub(super) spec: AgentSpec,
    pub(super) total: Pool,
    pub(super) free: Pool,
}

impl Agent {
    pub(super) fn info(&self, id: &AgentId) -> AgentInfo {
        AgentInfo {
            hostname: self.spec.hostname.clone(),
            port: Some(5051),
            resources: self.spec.resources.clone(),
            attributes: self.spec.attributes.clone(),
            id: Some(id.clone()),
            domain: self.spec.domain.clone(),
        }
    }
}

pub(super) struct Offered {
    pub(super) framework: FrameworkId,
    pub(super) agent: AgentId,
    pub(super) role: String,
    pub(super) pool: Pool,
    pub(super) message: Offer,
}

/// A declined share that is not offered again for a while.
pub(super) struct Filter {
    pub(super) agent: AgentId,
    pub(super) role: String,
    pub(super) pool: Pool,
    pub(super) until: Instant,
}

pub(super) struct Framework {
    pub(super) info: FrameworkInfo,
    /// The stream, while the framework is connected.
    pub(super) stream: Option<(String, UnboundedSender<Event>)>,
    pub(super) suppressed: Vec<String>,
    pub(super) filters: Vec<Filter>,
    pub(super) executors: BTreeMap<(AgentId, ExecutorId), Executor>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// Time of the disconnection; the framework is torn down when the failover timeout has passed since.
    pub(super) disconnected: Option<Instant>,
}

impl Framework {
    pub(super) fn send(&self, event: Event) {
        if let Some((_, stream)) = &self.stream {
            // The server notices a stream whose reader is gone.
            let _ = stream.send(event);
        }
    }

    pub(super) fn has(&self, capability: FrameworkCapabilityType) -> bool {
        self.info.capabilities.iter().any(|own| own.kind == capability)
    }

    pub(super) fn failover_timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.info.failover_timeout.unwrap_or(0.0)).unwrap_or_default()
    }
}

pub(super) struct Executor {
    pub(super) info: ExecutorInfo,
    pub(super) pool: Pool,
}

pub(super) struct Task {
    pub(super) info: TaskInfo,
    pub(super) executor: ExecutorId,
    pub(super) pool: Pool,
    /// The latest state that the master knows.
    pub(super) state: TaskState,
    /// Unacknowledged states, oldest first. Only the first was sent: the agent waits for its acknowledgement.
    pub(super) unacknowledged: VecDeque<TaskStatus>,
}

/// A refused call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) master_id: String,
    /// Address of the master, and of its agents.
    pub(super) address: Option<SocketAddr>,
    pub(super) heartbeat: Duration,
    pub(super) agents: BTreeMap<AgentId, Agent>,
    pub(super) frameworks: BTreeMap<FrameworkId, Framework>,
    pub(super) removed: BTreeMap<FrameworkId, FrameworkInfo>,
    pub(super) offers: BTreeMap<OfferId, Offered>,
    /// Whether tasks keep the state of their launch until the test reports another one.
    pub(super) manual: bool,
    pub(super) calls: Vec<Call>,
    pub(super) counter: u64,
}

impl Cluster {
    /// A number that was never returned before.
    pub(super) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// An id that was never returned before.
    pub(super) fn name(&mut self, kind: &str) -> String {
        let number = self.next();
        format!("{}-{kind}{number}", self.master_id)
    }

    pub(super) fn add_agent(&mut self, spec: AgentSpec) -> AgentId {
        let id = AgentId::from(self.name("S"));
        let total = Pool::of(&spec.resources);
        self.agents.insert(id.clone(), Agent { spec, free: total.clone(), total });
        id
    }

    /// Removes a framework and everything that it holds.
    pub(super) fn remove_framework(&mut self, id: &FrameworkId) {
        self.rescind_all(id, false);
        let Some(framework) = self.frameworks.remove(id) else { return };
        for ((agent, _), executor) in &framework.executors {
            self.release(agent, &executor.pool);
        }
        for task in framework.tasks.values().filter(|task| !task.state.is_terminal()) {
            self.release(&task.info.agent_id, &task.pool);
        }
        self.removed.insert(id.clone(), framework.info);
    }

    /// Rescinds every offer that a framework holds.
    pub(super) fn rescind_all(&mut self, id: &FrameworkId, tell: bool) {
        let ids: Vec<OfferId> = self
            .offers
            .iter()
            .filter(|(_, offered)| offered.framework == *id)
            .map(|(offer, _)| offer.clone())
            .collect();
        for offer in ids {
            if let Some(offered) = self.offers.remove(&offer) {
                self.release(&offered.agent, &offered.pool);
            }
            if tell && let Some(framework) = self.frameworks.get(id) {
                framework.send(Event::Rescind { rescind: crate::scheduler::Rescind { offer_id: offer } });
            }
        }
    }

    pub(super) fn release(&mut self, agent: &AgentId, pool: &Pool) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.free.add(pool);
        }
    }

    /// Disconnects a framework, as a broken connection does.
    pub(super) fn disconnect(&mut self, id: &FrameworkId, stream_id: &str, now: Instant) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        if framework.stream.as_ref().is_some_and(|(current, _)| current == stream_id) {
            framework.stream = None;
            framework.disconnected = Some(now);
            framework.filters.clear();
            self.rescind_all(id, false);
        }
    }

    /// Tears down frameworks whose failover timeout has passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired: Vec<FrameworkId> = self
            .frameworks
            .iter()
            .filter(|(_, framework)| {
                framework.disconnected.is_some_and(|since| now - since >= framework.failover_timeout())
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.remove_framework(&id);
        }
    }
}
