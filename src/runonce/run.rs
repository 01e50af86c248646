//! Executes a run's framework: subscribes, passes events to [`decide::framework`](super::decide::framework), sends its
//! calls, and tears the framework down when the run is over.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::decide::framework::{Effect, Event, Outcome, Run};
use kmctl_core::protocol::runonce::FromNode;
use kmctl_core::text::duration;
use mesos::MesosError;
use mesos::scheduler::{Call, Caller, Event as FromMesos, Kill, Message, Scheduler, Subscription};
use mesos::types::{Bytes, Filters, FrameworkCapabilityType, FrameworkInfo, KillPolicy, Operation};

/// Seconds for which nodes outlive a lost kmctl. Together with their own time to stop it must be below half a minute.
pub const FAILOVER_TIMEOUT: f64 = 10.0;

/// Interval of [`Event::Tick`].
const TICK: Duration = Duration::from_millis(500);
/// Pause between attempts to subscribe again.
const RETRY: Duration = Duration::from_secs(1);
/// Limit for the teardown; Mesos removes the framework by itself after that.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(5);
/// Limit for agents to fetch something from kmctl after the first launch.
const REACH_LIMIT: Duration = Duration::from_secs(30);

/// How a run is watched, and what may end it.
pub struct Watch {
    /// Limit from the start of the run to its end.
    pub timeout: Option<Duration>,
    /// Cancelled when the operator interrupts the run.
    pub interrupted: CancellationToken,
    /// Whether agents have fetched from kmctl, and kmctl's URL. None if agents fetch from another server.
    pub reached: Option<(Arc<AtomicBool>, String)>,
}

/// Receives a run's output and progress.
pub trait Listener: Send {
    /// A container wrote output. `pod`: position of its pod in the file.
    fn output(&mut self, pod: usize, container: &str, error: bool, data: &[u8]);
    /// A message for people.
    fn note(&mut self, text: &str);
}

/// The run's framework, as Mesos sees it.
pub fn framework_info(name: String, user: String, role: String, principal: Option<String>) -> FrameworkInfo {
    use FrameworkCapabilityType::{MultiRole, PartitionAware, RegionAware, ReservationRefinement, TaskKillingState};
    let capabilities = [MultiRole, PartitionAware, ReservationRefinement, RegionAware, TaskKillingState];
    FrameworkInfo {
        user,
        name,
        failover_timeout: Some(FAILOVER_TIMEOUT),
        checkpoint: Some(true),
        roles: vec![role],
        principal,
        capabilities: capabilities.map(Into::into).to_vec(),
        ..FrameworkInfo::default()
    }
}

/// Runs until the pods have ended, and returns the outcome. Nothing is left in Mesos then.
pub async fn run(
    scheduler: &Scheduler,
    mut framework: FrameworkInfo,
    mut run: Run,
    watch: Watch,
    listener: &mut dyn Listener,
) -> Result<Outcome, MesosError> {
    let start = Instant::now();
    let deadline = watch.timeout.map(|timeout| start + timeout);
    // The first subscription fails at once, without a retry: a wrong secret remains wrong.
    let (mut subscription, mut caller) = scheduler.subscribe(&framework, &[]).await?;
    framework.id = Some(caller.framework_id().clone());
    let mut effects = run.on(Event::Subscribed, start.elapsed());
    let (mut told_time, mut told_interrupt) = (false, false);
    let mut launched: Option<Instant> = None;
    let mut tick = tokio::time::interval(TICK);
    loop {
        for effect in effects {
            if matches!(effect, Effect::Accept { .. }) {
                launched.get_or_insert_with(Instant::now);
            }
            match effect {
                Effect::Finish(outcome) => {
                    tear_down(scheduler, &framework, caller, subscription).await;
                    return Ok(outcome);
                }
                Effect::Output { pod, container, error, data } => listener.output(pod, &container, error, &data),
                Effect::Note(text) => listener.note(&text),
                effect => carry_out(&caller, effect, listener).await,
            }
        }
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            biased;
            () = watch.interrupted.cancelled(), if !told_interrupt => { told_interrupt = true; Some(Event::Interrupted) }
            () = time_up, if !told_time => { told_time = true; Some(Event::TimeUp) }
            event = subscription.next() => match event {
                Ok(event) => translate(event),
                Err(error) if error.is_transient() => {
                    listener.note(&format!("connection to Mesos lost ({error}); reconnecting"));
                    (subscription, caller) = again(scheduler, &framework).await?;
                    Some(Event::Subscribed)
                }
                Err(error) => return Err(error),
            },
            _ = tick.tick() => Some(unreached(&watch, launched).map_or(Event::Tick, Event::Unreachable)),
        };
        effects = event.map(|event| run.on(event, start.elapsed())).unwrap_or_default();
    }
}

/// Why agents do not get what they need, once that is certain.
fn unreached(watch: &Watch, launched: Option<Instant>) -> Option<String> {
    let (reached, base) = watch.reached.as_ref()?;
    let late = launched.is_some_and(|launched| launched.elapsed() >= REACH_LIMIT);
    (late && !reached.load(Ordering::Relaxed))
        .then(|| format!("no agent fetched anything from this kmctl ({base}) within {}", duration(REACH_LIMIT)))
}

/// Subscribes again. Retries until Mesos has removed the framework, because its tasks are gone then.
async fn again(scheduler: &Scheduler, framework: &FrameworkInfo) -> Result<(Subscription, Caller), MesosError> {
    let end = Instant::now() + Duration::from_secs_f64(2.0 * FAILOVER_TIMEOUT);
    loop {
        match scheduler.subscribe(framework, &[]).await {
            Err(error) if error.is_transient() && Instant::now() < end => tokio::time::sleep(RETRY).await,
            other => return other,
        }
    }
}

async fn carry_out(caller: &Caller, effect: Effect, listener: &mut dyn Listener) {
    let call = match effect {
        Effect::Accept { offer, tasks } => {
            Call::accept(vec![offer], vec![Operation::launch(tasks)], Filters::refuse(1.0))
        }
        Effect::Decline { offer, seconds } => Call::decline(vec![offer], Filters::refuse(seconds)),
        Effect::Revive => Call::revive(Vec::new()),
        Effect::Suppress => Call::suppress(Vec::new()),
        Effect::Acknowledge(status) => match Call::acknowledge(&status) {
            Some(call) => call,
            None => return,
        },
        Effect::Reconcile => Call::reconcile(Vec::new()),
        Effect::Kill { task, agent, grace } => {
            let kill_policy = Some(KillPolicy { grace_period: Some(grace.into()) });
            Call::Kill { kill: Kill { task_id: task.into(), agent_id: Some(agent.into()), kill_policy } }
        }
        Effect::Send { agent, executor, what } => {
            let Ok(data) = serde_json::to_vec(&what) else { return };
            let message = Message { agent_id: agent.into(), executor_id: executor.into(), data: Bytes(data) };
            Call::Message { message }
        }
        Effect::Output { .. } | Effect::Note(_) | Effect::Finish(_) => return,
    };
    let name = call.name();
    if let Err(error) = caller.call(call).await {
        // What was lost is requested again: by the node, by Mesos, or by the next subscription.
        listener.note(&format!("failed to send {name} to Mesos: {error}"));
    }
}

fn translate(event: FromMesos) -> Option<Event> {
    match event {
        FromMesos::Offers { offers } => Some(Event::Offers(offers.offers)),
        FromMesos::Update { update } => Some(Event::Update(Box::new(update.status))),
        FromMesos::Message { message } => {
            // A message that cannot be parsed is ignored: it is sent again, or its loss does not matter.
            let what: FromNode = serde_json::from_slice(&message.data.0).ok()?;
            Some(Event::Message { agent: message.agent_id.value, executor: message.executor_id.value, what })
        }
        // A lost agent may return with its tasks; an executor that has ended does not return.
        FromMesos::Failure { failure } => {
            failure.executor_id.and(failure.agent_id).map(|agent| Event::Ended { agent: agent.value })
        }
        _ => None,
    }
}

/// Tears down the framework. If that fails, Mesos removes it when the failover timeout has passed.
async fn tear_down(scheduler: &Scheduler, framework: &FrameworkInfo, caller: Caller, subscription: Subscription) {
    let ending = async {
        if caller.call(Call::Teardown).await.is_ok() {
            return;
        }
        drop(subscription);
        if let Ok((_subscription, caller)) = again(scheduler, framework).await {
            let _ = caller.call(Call::Teardown).await;
        }
    };
    let _ = tokio::time::timeout(TEARDOWN_LIMIT, ending).await;
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
