//! `NodeAgent`: carries out the effects of [`decide`](super::decide) through the objects in
//! [`KubeletDeps`](super::deps::KubeletDeps), and returns the results as events.
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use super::decide::{Agent, Effect, Event, Order};
use super::deps::{Child, DepError, KubeletDeps, Service};
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// Interval of the tick events.
const TICK: Duration = Duration::from_millis(500);
/// Backoff between checks for a pod's processes once its object is gone. Repeated until the processes or the node end:
/// a task must not be reported as ended while one of its processes runs.
const EMPTY_POLL: Backoff = Backoff::doubling(Duration::from_millis(200), Duration::from_secs(1));
/// How long a child may take to stop before it is killed.
const CHILD_GRACE: Duration = Duration::from_secs(5);

/// One node: a Mesos executor that supervises a stock container runtime, kubelet and kube-proxy.
pub struct NodeAgent {
    config: KubeletConfiguration,
    deps: KubeletDeps,
}

/// A running child; it is stopped by sending on `stop` or dropping it.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

struct EffectRunner {
    config: KubeletConfiguration,
    /// The configuration with the values that are known only at run time: the pods' cgroup and a free port.
    placed: Arc<OnceLock<KubeletConfiguration>>,
    preparing: Option<JoinHandle<()>>,
    deps: Arc<KubeletDeps>,
    events: mpsc::UnboundedSender<Event>,
    tasks: JoinSet<()>,
    children: Vec<Option<Running>>,
    awaiting_ready: Vec<bool>,
}

impl NodeAgent {
    /// An agent from static data and injected objects only.
    pub fn new(config: KubeletConfiguration, deps: KubeletDeps) -> NodeAgent {
        NodeAgent { config, deps }
    }

    /// Runs the node until Mesos ends it or it fails. Nothing of the node is left afterwards.
    pub async fn run(self) {
        let NodeAgent { config, deps } = self;
        let names: Vec<&str> = deps.services.iter().map(|service| service.name()).collect();
        let mut agent = Agent::new(deps.node_task.clone(), &names);
        let deps = Arc::new(deps);
        // Unbounded: the loop itself sends results into the channel and must never block on it.
        let (events, mut inbox) = mpsc::unbounded_channel();
        let children = deps.services.iter().map(|_| None).collect();
        let awaiting_ready = vec![false; deps.services.len()];
        let mut hands = EffectRunner {
            config,
            placed: Arc::default(),
            preparing: None,
            deps: deps.clone(),
            events,
            tasks: JoinSet::new(),
            children,
            awaiting_ready,
        };
        let start = deps.clock.monotonic();
        let mut effects = agent.begin();
        let mut orders_open = true;
        let mut next_tick = start + TICK;
        loop {
            for effect in effects {
                if effect == Effect::Exit {
                    hands.tasks.shutdown().await;
                    deps.executor.flush().await;
                    return;
                }
                hands.carry_out(effect).await;
            }
            // Orders first: a kill must not wait behind a burst of pod changes.
            let until_tick = next_tick.saturating_sub(deps.clock.monotonic());
            let event = tokio::select! {
                biased;
                order = deps.executor.next(), if orders_open => match order {
                    Some(order) => Event::Order(order),
                    // Mesos has given up the executor: treated as a shutdown order.
                    None => { orders_open = false; Event::Order(Order::Shutdown { grace: None }) }
                },
                () = deps.clock.sleep(until_tick) => {
                    next_tick = deps.clock.monotonic() + TICK;
                    Event::Tick
                }
                Some(event) = inbox.recv() => event,
            };
            effects = agent.on(event, deps.clock.monotonic().saturating_sub(start));
        }
    }
}

impl EffectRunner {
    async fn carry_out(&mut self, effect: Effect) {
        let deps = self.deps.clone();
        let events = self.events.clone();
        match effect {
            Effect::Prepare => {
                // In a separate task, so that orders are handled while artifacts are fetched.
                let (config, placed) = (self.config.clone(), self.placed.clone());
                self.preparing = Some(tokio::spawn(async move {
                    let result = match prepare(&deps, config).await {
                        Ok(config) => {
                            let _ = placed.set(config);
                            Ok(())
                        }
                        Err(error) => Err(error.chain()),
                    };
                    send(&events, Event::Prepared(result));
                }));
            }
            Effect::StartService { index, after } => self.start_service(index, after),
            Effect::WatchPods => {
                self.tasks.spawn(async move { deps.api.watch_pods(events).await });
            }
            Effect::Admit { task_id, pod, total } => {
                // Not in a separate task, so that bounds are set in the order of the decisions.
                let result = admit(&deps, &pod, total).await.map_err(|error| error.chain());
                send(&events, Event::Admitted { task_id, result });
            }
            Effect::ReleasePorts { uid } => deps.ports.release(&uid),
            Effect::Resize { total } => {
                let result = deps.cgroups.resize(total).await.map_err(|error| error.chain());
                send(&events, Event::Resized(result));
            }
            Effect::Report(report) => {
                info!(task = report.task_id, state = ?report.state, "{}", report.message);
                deps.executor.report(report);
            }
            Effect::DeletePod { pod, grace } => {
                self.tasks.spawn(async move {
                    let result = deps.api.delete_pod(&pod, grace).await.map_err(|error| error.chain());
                    send(&events, Event::PodDeleted { uid: pod.uid, result });
                });
            }
            Effect::ForgetPod { pod } => {
                self.tasks.spawn(async move {
                    if let Err(error) = deps.api.forget_pod(&pod).await {
                        warn!("failed to remove pod {}/{}: {}", pod.namespace, pod.name, error.chain());
                    }
                });
            }
            Effect::AwaitEmpty { uid } => {
                self.tasks.spawn(async move {
                    let mut looks = Retries::new(EMPTY_POLL);
                    while !deps.cgroups.is_empty(&uid).await {
                        deps.clock.sleep(looks.wait()).await;
                    }
                    send(&events, Event::PodEmpty { uid });
                });
            }
            Effect::TearDown { grace } => {
                let result = self.tear_down(grace).await;
                send(&events, Event::TornDown(result));
            }
            Effect::Warn(text) => warn!("{text}"),
            Effect::Exit => {}
        }
    }

    fn start_service(&mut self, index: usize, after: Duration) {
        let Some(service) = self.deps.services.get(index).cloned() else { return };
        let (stop, stopped) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        self.children[index] = Some(Running { stop: Some(stop), ended: end });
        let (deps, events) = (self.deps.clone(), self.events.clone());
        let config = self.placed.get().unwrap_or(&self.config).clone();
        let first = !std::mem::replace(&mut self.awaiting_ready[index], true);
        if first {
            let (service, events) = (service.clone(), events.clone());
            self.tasks.spawn(async move {
                let event = match service.ready().await {
                    Ok(()) => Event::ServiceReady { index },
                    Err(error) => Event::ServiceEnded { index, why: error.chain(), fatal: true },
                };
                send(&events, event);
            });
        }
        self.tasks.spawn(async move {
            supervise(deps, service, config, index, after, stopped, &events).await;
            let _ = ended.send(());
        });
    }

    /// Stops kubelet and kube-proxy first, so that no containers are started again. Then the pods, while the container
    /// runtime still records their end. Then the runtime. Continues after an error, to remove as much as possible.
    async fn tear_down(&mut self, grace: Duration) -> Result<(), String> {
        if let Some(preparing) = self.preparing.take() {
            preparing.abort();
            let _ = preparing.await;
        }
        let mut left = Vec::new();
        for index in (1..self.children.len()).rev() {
            self.stop_child(index).await;
        }
        if let Err(error) = self.deps.cgroups.stop(grace).await {
            left.push(error.chain());
        }
        if !self.children.is_empty() {
            self.stop_child(0).await;
        }
        if let Err(error) = self.deps.mounter.close().await {
            left.push(error.chain());
        }
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    }

    async fn stop_child(&mut self, index: usize) {
        let Some(mut child) = self.children[index].take() else { return };
        if let Some(stop) = child.stop.take() {
            let _ = stop.send(());
        }
        let _ = child.ended.await;
    }
}

async fn admit(deps: &KubeletDeps, pod: &PodLaunch, total: Grant) -> Result<(), DepError> {
    deps.ports.assign(pod)?;
    deps.cgroups.resize(total).await?;
    deps.api.admit(pod).await
}

async fn prepare(deps: &KubeletDeps, mut config: KubeletConfiguration) -> Result<KubeletConfiguration, DepError> {
    deps.mounter.open().await?;
    config.cgroup_root = deps.cgroups.create().await?;
    config.port = deps.ports.own(config.port)?;
    // Before the artifacts, which take minutes: an impossible network is reported at once.
    deps.names.open().await?;
    deps.artifacts.fetch().await?;
    Ok(config)
}

/// One run of a child, from the delay before its start to its end.
async fn supervise(
    deps: Arc<KubeletDeps>,
    service: Arc<dyn Service>,
    config: KubeletConfiguration,
    index: usize,
    after: Duration,
    mut stopped: oneshot::Receiver<()>,
    events: &mpsc::UnboundedSender<Event>,
) {
    tokio::select! {
        biased;
        _ = &mut stopped => return,
        () = deps.clock.sleep(after), if !after.is_zero() => {}
        () = std::future::ready(()), if after.is_zero() => {}
    }
    let mut child = match launch(&deps, service.as_ref(), &config).await {
        Ok(child) => child,
        Err(error) => {
            let fatal = matches!(error, DepError::Refused(_));
            let why = format!("failed to start: {}", error.chain());
            return send(events, Event::ServiceEnded { index, why, fatal });
        }
    };
    send(events, Event::ServiceStarted { index });
    let why = tokio::select! {
        biased;
        _ = &mut stopped => return child.stop(CHILD_GRACE).await,
        why = child.wait() => why,
    };
    send(events, Event::ServiceEnded { index, why, fatal: false });
}

async fn launch(
    deps: &KubeletDeps,
    service: &dyn Service,
    config: &KubeletConfiguration,
) -> Result<Box<dyn Child>, DepError> {
    let program = service.program(config).await?;
    deps.launcher.start(program).await
}

fn send(events: &mpsc::UnboundedSender<Event>, event: Event) {
    // The channel is closed once the agent has exited.
    let _ = events.send(event);
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
