//! Executes effects: calls to Mesos in order, writes to the API concurrently. Failures that matter to the core are
//! returned as events. The others are logged, because the core derives everything again.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::api::Api;
use super::decide::{Effect, Event, NodeStep};
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

    /// Executes one effect, or starts it.
    pub async fn carry_out(&mut self, effect: Effect) {
        log(&effect);
        match effect {
            Effect::Accept { offers, tasks } => {
                // Without a filter: the next pod may use the rest of the offers.
                self.call(Call::accept(offers, vec![Operation::launch(tasks)], Filters::refuse(0.0))).await;
            }
            Effect::Decline { offers, seconds } => {
                self.call(Call::decline(offers, Filters::refuse(f64::from(seconds)))).await;
            }
            Effect::Suppress => self.call(Call::suppress(self.roles.clone())).await,
            Effect::Revive => self.call(Call::revive(self.roles.clone())).await,
            Effect::Kill { task, agent } => self.call(Call::kill(task.into(), agent.map(Into::into))).await,
            Effect::Acknowledge { agent, task, uuid } => {
                let acknowledge = Acknowledge { agent_id: agent.into(), task_id: task.into(), uuid: Bytes(uuid) };
                self.call(Call::Acknowledge { acknowledge }).await;
            }
            Effect::Reconcile(tasks) => {
                let task = |(task, agent): (String, Option<String>)| ReconcileTask {
                    task_id: task.into(),
                    agent_id: agent.map(Into::into),
                };
                self.call(Call::reconcile(tasks.into_iter().map(task).collect())).await;
            }
            Effect::Report(text) => tracing::info!("{text}"),
            // The main loop sends the answers.
            Effect::AnswerFilter { .. } | Effect::AnswerPrioritize { .. } | Effect::AnswerBind { .. } => {}
            effect => self.start(effect),
        }
    }

    async fn call(&self, call: Call) {
        // The receiver lives as long as the process.
        let _ = self.calls.send(call).await;
    }

    fn start(&self, effect: Effect) {
        let (api, masters, events) = (self.api.clone(), self.masters.clone(), self.events.clone());
        let (metrics, permits) = (self.metrics.clone(), self.permits.clone());
        tokio::spawn(async move {
            let _permit = permits.acquire().await;
            let kind = effect.kind();
            let (failed, event) = write(&api, &masters, effect).await;
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

/// Executes one effect on the API. Returns the error, and the event for the core.
async fn write(api: &Api, masters: &Masters, effect: Effect) -> (Option<String>, Option<Event>) {
    match effect {
        Effect::CreateNode(spec) => {
            let node = spec.name.clone();
            let failed = timely(api.create_node(spec)).await.err();
            let event = failed.clone().map(|why| Event::NodeFailed { node, step: NodeStep::Create, why });
            (failed, event)
        }
        Effect::PrepareNode { node, agent, executor, task } => {
            match timely(api.prepare_node(&node, &agent, &executor, &task)).await {
                Ok(token) => (None, Some(Event::NodePrepared { node, token })),
                Err(why) => (Some(why.clone()), Some(Event::NodeFailed { node, step: NodeStep::Prepare, why })),
            }
        }
        Effect::Bind(binding) => {
            let error = post(|| api.bind(&binding)).await.err();
            (error.clone(), Some(Event::BindingPosted { uid: binding.uid, error }))
        }
        Effect::ListAgents => match framework::agents(masters).await {
            Ok(agents) => (None, Some(Event::Agents(agents))),
            Err(error) => (Some(format!("list Mesos' agents: {error}")), None),
        },
        Effect::MarkNode { node, phase, why } => (timely(api.mark_node(&node, phase, &why)).await.err(), None),
        Effect::PublishGrant { node, grant } => (timely(api.publish_grant(&node, grant)).await.err(), None),
        Effect::RenewLease { node } => (timely(api.renew_lease(&node)).await.err(), None),
        Effect::DeleteNode { node, token_id } => {
            (timely(api.delete_node(&node, token_id.as_deref())).await.err(), None)
        }
        Effect::Record { namespace, name, uid, annotations } => {
            (timely(api.record(&namespace, &name, &uid, &annotations)).await.err(), None)
        }
        Effect::Nudge { namespace, name, uid } => match timely(api.nudge(&namespace, &name, &uid)).await {
            // The watch may never report it: a filter request of kube-scheduler may bring back a deleted pod.
            Ok(there) => (None, (!there).then_some(Event::PodGone(uid))),
            Err(why) => (Some(why), None),
        },
        Effect::Explain { namespace, name, uid, message } => {
            (timely(api.explain(&namespace, &name, &uid, &message)).await.err(), None)
        }
        Effect::EvictPod { namespace, name, uid } => match timely(api.evict_pod(&namespace, &name, &uid)).await {
            Ok(evicted) => {
                if !evicted {
                    tracing::info!(pod = name, namespace, "its disruption budget forbids the eviction for now");
                }
                (None, None)
            }
            Err(why) => (Some(why), None),
        },
        Effect::DeletePod { namespace, name, uid, force } => {
            (timely(api.delete_pod(&namespace, &name, &uid, force)).await.err(), None)
        }
        Effect::PurgeDone => (timely(api.purge_done()).await.err(), None),
        other => (Some(format!("{} is not for the API", other.kind())), None),
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
            Err(_) => "the API server did not answer in time".to_owned(),
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
        Err(_) => Err("the API server did not answer in time".to_owned()),
    }
}

fn log(effect: &Effect) {
    match effect {
        Effect::Accept { tasks, .. } => {
            let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
            tracing::info!(tasks = names.join(" "), "launch");
        }
        Effect::Kill { task, .. } => tracing::info!(task, "kill"),
        Effect::CreateNode(spec) => tracing::info!(node = spec.name, agent = spec.agent, "create a candidate"),
        Effect::MarkNode { node, phase, why } => tracing::info!(node, %phase, why, "mark"),
        Effect::DeleteNode { node, .. } => tracing::info!(node, "delete the node"),
        Effect::Bind(binding) => {
            tracing::info!(pod = binding.name, namespace = binding.namespace, node = binding.node, "bind")
        }
        Effect::EvictPod { namespace, name, .. } => tracing::info!(pod = name, namespace, "evict the pod"),
        Effect::DeletePod { namespace, name, force, .. } => {
            tracing::info!(pod = name, namespace, force, "delete the pod")
        }
        Effect::Explain { namespace, name, message, .. } => tracing::info!(pod = name, namespace, message, "explain"),
        Effect::Suppress | Effect::Revive | Effect::PurgeDone => tracing::info!("{}", effect.kind()),
        other => tracing::debug!("{}", other.kind()),
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
