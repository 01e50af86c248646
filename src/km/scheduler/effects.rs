//! Executes effects: calls to Mesos in order, writes to the API concurrently. Failures that matter to the core are
//! returned as events. The others are logged, because the core derives everything again.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::api::Api;
use super::decide::{ApiRequest, Event, MesosCall, NodeStep};
use super::framework;
use super::metrics::Metrics;
use kmctl_core::backoff::{Backoff, Retries};
use mesos::Masters;
use mesos::scheduler::{Acknowledge, Call, ReconcileTask};
use mesos::types::{Bytes, Filters, Operation};

/// Concurrent requests to the API. One HTTP/2 connection carries them all.
const CONCURRENT_WRITES: usize = 32;

/// Limit for one request to the API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A Binding gets several attempts, because its task runs already.
const BIND_ATTEMPTS: u32 = 4;

/// Pause between them.
const BIND_AGAIN: Backoff = Backoff::new(Duration::from_millis(100), 4, Duration::from_secs(2));

/// Executes effects.
pub struct Executor {
    api: Api,
    masters: Masters,
    roles: Vec<String>,
    calls: mpsc::Sender<Call>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
    permits: Arc<Semaphore>,
}

impl Executor {
    /// Writes through `api` and `calls`, and reports to `events`.
    pub fn new(
        api: Api,
        masters: Masters,
        roles: Vec<String>,
        calls: mpsc::Sender<Call>,
        events: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Executor {
        Executor { api, masters, roles, calls, events, metrics, permits: Arc::new(Semaphore::new(CONCURRENT_WRITES)) }
    }

    /// Makes a call of the framework. Calls are made in the order in which they were decided.
    pub async fn call(&self, call: MesosCall) {
        log_call(&call);
        // The receiver ends only with the process.
        let _ = self.calls.send(self.wire(call)).await;
    }

    /// Starts a request to the API server.
    pub fn request(&self, request: ApiRequest) {
        log_request(&request);
        let api = self.api.clone();
        self.start(request.kind(), async move { send(&api, request).await });
    }

    /// Starts to list Mesos' agents.
    pub fn list_agents(&self) {
        let masters = self.masters.clone();
        self.start("list_agents", async move {
            match framework::agents(&masters).await {
                Ok(agents) => (None, Some(Event::Agents(agents))),
                Err(error) => (Some(format!("failed to list Mesos agents: {error}")), None),
            }
        });
    }

    fn wire(&self, call: MesosCall) -> Call {
        match call {
            MesosCall::Accept { offers, tasks } => {
                // Without a filter: the next pod may use the rest of the offers.
                Call::accept(offers, vec![Operation::launch(tasks)], Filters::refuse(0.0))
            }
            MesosCall::Decline { offers, seconds } => Call::decline(offers, Filters::refuse(f64::from(seconds))),
            MesosCall::Suppress => Call::suppress(self.roles.clone()),
            MesosCall::Revive => Call::revive(self.roles.clone()),
            MesosCall::Kill { task, agent } => Call::kill(task.into(), agent.map(Into::into)),
            MesosCall::Acknowledge { agent, task, uuid } => {
                let acknowledge = Acknowledge { agent_id: agent.into(), task_id: task.into(), uuid: Bytes(uuid) };
                Call::Acknowledge { acknowledge }
            }
            MesosCall::Reconcile(tasks) => {
                let task = |(task, agent): (String, Option<String>)| ReconcileTask {
                    task_id: task.into(),
                    agent_id: agent.map(Into::into),
                };
                Call::reconcile(tasks.into_iter().map(task).collect())
            }
        }
    }

    /// Runs a request beside others. Reports its failure, and the event for the core.
    fn start(
        &self,
        kind: &'static str,
        request: impl Future<Output = (Option<String>, Option<Event>)> + Send + 'static,
    ) {
        let (events, metrics, permits) = (self.events.clone(), self.metrics.clone(), self.permits.clone());
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let (failed, event) = request.await;
            if let Some(why) = failed {
                metrics.failure(kind);
                tracing::warn!(effect = kind, "{why}");
            }
            if let Some(event) = event {
                let _ = events.send(event).await;
            }
        });
    }
}

/// Sends one request to the API server. Returns its failure, and the event for the core.
async fn send(api: &Api, request: ApiRequest) -> (Option<String>, Option<Event>) {
    match request {
        ApiRequest::CreateNode(spec) => {
            let node = spec.name.clone();
            let failed = timely(api.create_node(spec)).await.err();
            let event = failed.clone().map(|why| Event::NodeFailed { node, step: NodeStep::Create, why });
            (failed, event)
        }
        ApiRequest::PrepareNode { node, agent, executor, task } => {
            match timely(api.prepare_node(&node, &agent, &executor, &task)).await {
                Ok(token) => (None, Some(Event::NodePrepared { node, token })),
                Err(why) => (Some(why.clone()), Some(Event::NodeFailed { node, step: NodeStep::Prepare, why })),
            }
        }
        ApiRequest::Bind(binding) => {
            let error = post(|| api.bind(&binding)).await.err();
            (error.clone(), Some(Event::BindingPosted { uid: binding.uid, error }))
        }
        ApiRequest::MarkNode { node, phase, why } => (timely(api.mark_node(&node, phase, &why)).await.err(), None),
        ApiRequest::PublishGrant { node, grant } => {
            let failed = timely(api.publish_grant(&node, grant)).await.err();
            let event = failed.clone().map(|why| Event::NodeFailed { node, step: NodeStep::Publish, why });
            (failed, event)
        }
        ApiRequest::RenewLease { node } => (timely(api.renew_lease(&node)).await.err(), None),
        ApiRequest::DeleteNode { node, token_id } => {
            (timely(api.delete_node(&node, token_id.as_deref())).await.err(), None)
        }
        ApiRequest::Record { namespace, name, uid, annotations } => {
            (timely(api.record(&namespace, &name, &uid, &annotations)).await.err(), None)
        }
        ApiRequest::Nudge { namespace, name, uid } => match timely(api.nudge(&namespace, &name, &uid)).await {
            // The watch may never report it: a filter request of kube-scheduler may bring back a deleted pod.
            Ok(there) => (None, (!there).then_some(Event::PodGone(uid))),
            Err(why) => (Some(why), None),
        },
        ApiRequest::Explain { namespace, name, uid, message } => {
            (timely(api.explain(&namespace, &name, &uid, &message)).await.err(), None)
        }
        ApiRequest::EvictPod { namespace, name, uid } => match timely(api.evict_pod(&namespace, &name, &uid)).await {
            Ok(evicted) => {
                if !evicted {
                    tracing::info!(pod = name, namespace, "its disruption budget does not allow the eviction yet");
                }
                (None, None)
            }
            Err(why) => (Some(why), None),
        },
        ApiRequest::DeletePod { namespace, name, uid, force } => {
            (timely(api.delete_pod(&namespace, &name, &uid, force)).await.err(), None)
        }
        ApiRequest::PurgeDone { uncleaned } => {
            let failed = timely(api.purge_done(&uncleaned)).await.err();
            let event = failed.is_some().then_some(Event::PurgeNotRecorded);
            (failed, event)
        }
    }
}

/// Posts a Binding. It is not posted again after an error that the API server would repeat: the pod is gone, is bound
/// by another client, or cannot be bound.
async fn post<F>(mut attempt: impl FnMut() -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), kube::Error>>,
{
    let (mut retries, mut attempts) = (Retries::new(BIND_AGAIN), 0);
    loop {
        attempts += 1;
        let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                if matches!(&error, kube::Error::Api(status) if matches!(status.code, 400 | 404 | 409 | 422)) {
                    return Err(error.to_string());
                }
                error.to_string()
            }
            Err(_) => "no response from the API server in time".to_owned(),
        };
        if attempts == BIND_ATTEMPTS {
            return Err(outcome);
        }
        tokio::time::sleep(retries.wait()).await;
    }
}

async fn timely<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no response from the API server in time".to_owned()),
    }
}

fn log_call(call: &MesosCall) {
    match call {
        MesosCall::Accept { tasks, .. } => {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            tracing::info!(tasks = names.join(" "), "launch");
        }
        MesosCall::Kill { task, .. } => tracing::info!(task, "kill"),
        MesosCall::Suppress | MesosCall::Revive => tracing::info!("{}", call.kind()),
        MesosCall::Decline { .. } | MesosCall::Acknowledge { .. } | MesosCall::Reconcile(_) => {
            tracing::debug!("{}", call.kind());
        }
    }
}

fn log_request(request: &ApiRequest) {
    match request {
        ApiRequest::CreateNode(spec) => tracing::info!(node = spec.name, agent = spec.agent, "create a candidate"),
        ApiRequest::MarkNode { node, phase, why } => tracing::info!(node, %phase, why, "mark"),
        ApiRequest::DeleteNode { node, .. } => tracing::info!(node, "delete the node"),
        ApiRequest::Bind(binding) => {
            tracing::info!(pod = binding.name, namespace = binding.namespace, node = binding.node, "bind");
        }
        ApiRequest::EvictPod { namespace, name, .. } => tracing::info!(pod = name, namespace, "evict the pod"),
        ApiRequest::DeletePod { namespace, name, force, .. } => {
            tracing::info!(pod = name, namespace, force, "delete the pod");
        }
        ApiRequest::Explain { namespace, name, message, .. } => {
            tracing::info!(pod = name, namespace, message, "explain");
        }
        ApiRequest::PurgeDone { .. } => tracing::info!("{}", request.kind()),
        ApiRequest::PrepareNode { .. }
        | ApiRequest::PublishGrant { .. }
        | ApiRequest::RenewLease { .. }
        | ApiRequest::Record { .. }
        | ApiRequest::Nudge { .. } => tracing::debug!("{}", request.kind()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn refused(code: u16) -> kube::Error {
        let status = kube::core::Status { code, message: "no".to_owned(), ..kube::core::Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[tokio::test(start_paused = true)]
    async fn a_binding_that_can_never_be_taken_is_posted_once_and_others_four_times() {
        for (code, expected) in [(404, 1), (409, 1), (422, 1), (403, 4), (429, 4), (500, 4)] {
            let attempts = Cell::new(0);
            let outcome = post(|| {
                attempts.set(attempts.get() + 1);
                std::future::ready(Err(refused(code)))
            });
            assert!(outcome.await.is_err());
            assert_eq!(attempts.get(), expected, "{code}");
        }
        let attempts = Cell::new(0);
        let outcome = post(|| {
            attempts.set(attempts.get() + 1);
            std::future::ready(if attempts.get() < 3 { Err(refused(500)) } else { Ok(()) })
        });
        assert_eq!((outcome.await, attempts.get()), (Ok(()), 3));
    }
}
