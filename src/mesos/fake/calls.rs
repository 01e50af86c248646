//! The scheduler API's calls.
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::cluster::{Cluster, Filter, Framework, Refusal};
use crate::scheduler::{Call, Error, Event, Subscribe, Subscribed};
use crate::types::{Filters, FrameworkId, MasterInfo, OfferId, StatusReason, TaskState};

/// Mesos' default for `refuse_seconds`.
const REFUSE_SECONDS: f64 = 5.0;

impl Cluster {
    /// Subscribes a framework. Returns the framework's id, the stream's id and the events.
    pub(super) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        principal: Option<&str>,
    ) -> Result<(FrameworkId, String, UnboundedReceiver<Event>), Refusal> {
        let Subscribe { mut framework_info, suppressed_roles } = subscribe;
        if let (Some(authenticated), Some(named)) = (principal, &framework_info.principal)
            && authenticated != named
        {
            return Err(Refusal::new(
                400,
                format!(
                    "Failed to validate scheduler::Call: Authenticated principal '{authenticated}' does not match \
                     principal '{named}' set in `FrameworkInfo`"
                ),
            ));
        }
        let (sender, events) = unbounded_channel();
        let stream_id = format!("stream-{}", self.next());
        let id = match framework_info.id.clone().filter(|id| !id.value.is_empty()) {
            Some(id) => id,
            None => FrameworkId::from(self.name("F")),
        };
        if self.removed.contains_key(&id) {
            let _ = sender.send(Event::Error { error: Error { message: "Framework has been removed".into() } });
            return Ok((id, stream_id, events));
        }
        framework_info.id = Some(id.clone());
        if framework_info.principal.is_none() {
            framework_info.principal = principal.map(str::to_owned);
        }
        self.rescind_all(&id, false);
        let framework = self.frameworks.entry(id.clone()).or_insert_with(|| Framework {
            info: framework_info.clone(),
            stream: None,
            suppressed: Vec::new(),
            filters: Vec::new(),
            executors: Default::default(),
            tasks: Default::default(),
            disconnected: None,
        });
        framework.send(Event::Error { error: Error { message: "Framework failed over".into() } });
        framework.info = framework_info;
        framework.suppressed = suppressed_roles;
        framework.filters.clear();
        framework.disconnected = None;
        framework.stream = Some((stream_id.clone(), sender));
        framework.send(Event::Subscribed {
            subscribed: Subscribed {
                framework_id: id.clone(),
                heartbeat_interval_seconds: Some(self.heartbeat.as_secs_f64()),
                master_info: Some(MasterInfo { id: self.master_id.clone(), port: 5050, ..MasterInfo::default() }),
            },
        });
        framework.send(Event::Heartbeat);
        // Agents send again what was not acknowledged.
        for task in framework.tasks.values() {
            if let Some(status) = task.unacknowledged.front() {
                framework.send(Event::Update { update: crate::scheduler::Update { status: status.clone() } });
            }
        }
        Ok((id, stream_id, events))
    }

    /// Handles any other call.
    pub(super) fn call(
        &mut self,
        id: &FrameworkId,
        stream_id: Option<&str>,
        call: Call,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return Err(Refusal::new(400, "Framework cannot be found"));
        };
        let Some((current, _)) = &framework.stream else {
            return Err(Refusal::new(403, "Framework is not subscribed"));
        };
        match stream_id {
            None => {
                let message = "All non-subscribe calls should include the 'Mesos-Stream-Id' header";
                return Err(Refusal::new(400, message));
            }
            Some(given) if given != current => {
                let message = format!(
                    "The stream ID '{given}' included in this request didn't match the stream ID currently associated \
                     with framework ID {id}"
                );
                return Err(Refusal::new(400, message));
            }
            Some(_) => {}
        }
        self.calls.push(call.clone());
        match call {
            Call::Subscribe { .. } | Call::Unknown => {
                return Err(Refusal::new(400, "Failed to validate scheduler::Call: Expecting 'type' to be present"));
            }
            Call::Teardown => self.remove_framework(id),
            Call::Accept { accept } => self.accept(id, accept, now),
            Call::Decline { decline } => self.decline(id, &decline.offer_ids, decline.filters, now),
            Call::Revive { revive } => {
                framework.filters.retain(|filter| !matches_roles(&revive.roles, &filter.role));
                framework.suppressed.retain(|role| !matches_roles(&revive.roles, role));
                self.allocate(now);
            }
            Call::Suppress { suppress } => {
                let roles = framework.info.roles.iter().filter(|role| matches_roles(&suppress.roles, role));
                framework.suppressed = roles.cloned().chain(framework.suppressed.drain(..)).collect();
                framework.suppressed.sort();
                framework.suppressed.dedup();
            }
            Call::Kill { kill } => self.kill(id, &kill.task_id, kill.agent_id.as_ref()),
            Call::Shutdown { shutdown } => {
                self.end_executor(id, &shutdown.agent_id, &shutdown.executor_id, TaskState::Killed, None, 0);
            }
            Call::Acknowledge { acknowledge } => self.acknowledge(id, &acknowledge),
            Call::Reconcile { reconcile } => self.reconcile(id, &reconcile),
            Call::UpdateFramework { update_framework } => {
                framework.info = update_framework.framework_info;
                framework.suppressed = update_framework.suppressed_roles;
            }
            Call::Message { .. } => {}
        }
        Ok(())
    }

    /// Declines offers.
    fn decline(&mut self, id: &FrameworkId, offers: &[OfferId], filters: Option<Filters>, now: Instant) {
        for offer in offers {
            if self.offers.get(offer).is_some_and(|offered| offered.framework == *id)
                && let Some(offered) = self.offers.remove(offer)
            {
                self.release(&offered.agent, &offered.pool);
                self.filter(
                    id,
                    Filter { until: until(filters, now), agent: offered.agent, role: offered.role, pool: offered.pool },
                );
            }
        }
    }

    pub(super) fn filter(&mut self, id: &FrameworkId, filter: Filter) {
        if let Some(framework) = self.frameworks.get_mut(id) {
            framework.filters.push(filter);
        }
    }

    /// Ends an executor. The caller chooses the state of its tasks and the reason.
    pub(super) fn end_executor(
        &mut self,
        id: &FrameworkId,
        agent: &crate::types::AgentId,
        executor: &crate::types::ExecutorId,
        state: TaskState,
        reason: Option<StatusReason>,
        wait_status: i32,
    ) {
        let Some(framework) = self.frameworks.get_mut(id) else { return };
        let Some(ended) = framework.executors.remove(&(agent.clone(), executor.clone())) else { return };
        let tasks: Vec<_> = framework
            .tasks
            .iter()
            .filter(|(_, task)| task.executor == *executor && task.info.agent_id == *agent && !task.state.is_terminal())
            .map(|(task, _)| task.clone())
            .collect();
        for task in tasks {
            self.report(id, &task, state, reason, None, None);
        }
        self.release(agent, &ended.pool);
        if let Some(framework) = self.frameworks.get(id) {
            framework.send(Event::Failure {
                failure: crate::scheduler::Failure {
                    agent_id: Some(agent.clone()),
                    executor_id: Some(executor.clone()),
                    status: Some(wait_status),
                },
            });
        }
    }
}

/// An empty list of roles means all roles.
fn matches_roles(named: &[String], role: &String) -> bool {
    named.is_empty() || named.contains(role)
}

/// When a filter expires.
pub(super) fn until(filters: Option<Filters>, now: Instant) -> Instant {
    let seconds = filters.and_then(|filters| filters.refuse_seconds).unwrap_or(REFUSE_SECONDS);
    now + Duration::try_from_secs_f64(seconds).unwrap_or_default()
}
