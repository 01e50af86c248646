//! What a node agent does, as a pure state machine: an [`Event`] and the time go in, [`Effect`]s come out, and
//! [`run`](super::run) carries them out and feeds their results back as events. No I/O, no clock, no randomness.
//!
//! `now` is monotonic time since the agent's start. The wall clock is not an input, so a jump of it changes nothing.
use std::collections::BTreeMap;
use std::time::Duration;

pub use super::events::{Effect, Event, Order, PodPhase, PodView, Report, TaskState};
use super::launch::{Grant, PodLaunch};

/// First wait before a crashed child is started again; doubled with every crash in a row.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait: a kubelet away for longer than its lease (40 s) would turn the node Unknown.
const BACKOFF_MOST: Duration = Duration::from_secs(20);
/// A child that ran this long has recovered: its next crash counts as the first.
const SETTLED: Duration = Duration::from_secs(60);
/// A node that is not ready by then will not be; the scheduler can use the grant elsewhere.
const START_LIMIT: Duration = Duration::from_secs(600);
/// What is kept of the grace period for stopping the children and removing what the node left.
const TEARDOWN_RESERVE: Duration = Duration::from_secs(15);
/// How long the kubelet may take to remove a pod's object once its containers have ended. It does so when their sandbox
/// is gone, too, and misses that where the containers' end is noticed a moment before the sandbox's: then it removes the
/// sandbox with the next collection of garbage, up to a minute later (`deletePodSandbox` in pkg/kubelet).
const REMOVAL_LIMIT: Duration = Duration::from_secs(3);
/// When that is tried again: a finalizer may keep the object.
const REMOVAL_AGAIN: Duration = Duration::from_secs(30);
/// Grace for orders that name none: the longest that Mesos would let the executor take by default is its own matter.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Preparing,
    Starting,
    Ready,
    /// Pods are being deleted through the API, so that they end as their specification asks.
    Draining {
        until: Duration,
        end: Duration,
    },
    /// Children and pods are being stopped; then the node task is reported so.
    TearingDown {
        state: TaskState,
        message: String,
    },
    Done,
}

#[derive(Clone, Debug, Default)]
struct Service {
    name: String,
    started: Option<Duration>,
    crashes: u32,
    was_ready: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodState {
    Admitting,
    Starting,
    Running,
    Killing,
    /// Its object is gone; its processes may not be.
    Emptying,
}

#[derive(Clone, Debug)]
struct PodTask {
    pod: PodLaunch,
    grant: Grant,
    state: PodState,
}

/// The state of a node agent.
#[derive(Debug)]
pub struct Agent {
    node_task: String,
    phase: Phase,
    services: Vec<Service>,
    tasks: BTreeMap<String, PodTask>,
    views: BTreeMap<String, PodView>,
    /// When to remove objects of deleted pods without containers, by UID.
    removals: BTreeMap<String, Duration>,
    resize_failed: bool,
}

impl Agent {
    /// An agent whose node task is `node_task`, with children of these names, in the order of their start.
    pub fn new(node_task: String, services: &[&str]) -> Self {
        let services = services.iter().map(|name| Service { name: (*name).to_owned(), ..Service::default() }).collect();
        Agent {
            node_task,
            phase: Phase::Preparing,
            services,
            tasks: BTreeMap::new(),
            views: BTreeMap::new(),
            removals: BTreeMap::new(),
            resize_failed: false,
        }
    }

    /// What to do before the first event.
    pub fn begin(&self) -> Vec<Effect> {
        vec![Effect::Prepare]
    }

    /// What to do about an event.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        if self.phase == Phase::Done {
            return Vec::new();
        }
        match event {
            Event::Order(Order::LaunchPod { task_id, pod, grant }) => self.launch(task_id, pod, grant),
            Event::Order(Order::Kill { task_id, grace }) if task_id == self.node_task => self.stop(grace, now),
            Event::Order(Order::Kill { task_id, grace }) => self.kill(&task_id, grace),
            Event::Order(Order::Shutdown { grace }) => self.stop(grace, now),
            Event::Prepared(result) => self.prepared(result),
            Event::Admitted { task_id, result } => self.admitted(&task_id, result),
            Event::ServiceStarted { index } => self.service_started(index, now),
            Event::ServiceReady { index } => self.service_ready(index),
            Event::ServiceEnded { index, why, fatal } => self.service_ended(index, &why, fatal, now),
            Event::PodSeen(view) => self.pod_seen(view, now),
            Event::PodGone { uid } => self.pod_gone(&uid),
            Event::PodEmpty { uid } => self.pod_empty(&uid, now),
            Event::Resized(result) => {
                self.resize_failed = result.is_err();
                Vec::new()
            }
            Event::TornDown(result) => self.torn_down(result),
            Event::Tick => self.tick(now),
        }
    }

    /// The sum of the current pods' tasks.
    fn total(&self) -> Grant {
        self.tasks.values().fold(Grant::default(), |sum, task| Grant {
            cpus: sum.cpus + task.grant.cpus,
            mem: sum.mem + task.grant.mem,
        })
    }

    fn stopping(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::TearingDown { .. } | Phase::Done)
    }

    fn tasks_of(&self, uid: &str) -> Vec<String> {
        self.tasks.iter().filter(|(_, task)| task.pod.uid == uid).map(|(id, _)| id.clone()).collect()
    }

    fn launch(&mut self, task_id: String, pod: PodLaunch, grant: Grant) -> Vec<Effect> {
        if self.tasks.contains_key(&task_id) {
            return Vec::new();
        }
        if self.stopping() {
            return vec![report(&task_id, TaskState::Failed, "the node is being stopped")];
        }
        self.tasks.insert(task_id.clone(), PodTask { pod: pod.clone(), grant, state: PodState::Admitting });
        vec![Effect::Admit { task_id, pod, total: self.total() }]
    }

    fn admitted(&mut self, task_id: &str, result: Result<(), String>) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(task_id) else { return Vec::new() };
        if let Err(why) = result {
            return self.end(task_id, TaskState::Failed, &why);
        }
        let mut effects = vec![report(task_id, TaskState::Starting, "")];
        if task.state == PodState::Admitting {
            task.state = PodState::Starting;
            let view = self.views.get(&task.pod.uid).cloned();
            effects.extend(view.map(|view| self.follow(task_id, &view)).unwrap_or_default());
        }
        effects
    }

    /// Reports a task's end and gives back what it held.
    fn end(&mut self, task_id: &str, state: TaskState, message: &str) -> Vec<Effect> {
        let Some(task) = self.tasks.remove(task_id) else { return Vec::new() };
        let mut effects = vec![report(task_id, state, message)];
        if self.tasks_of(&task.pod.uid).is_empty() {
            effects.push(Effect::ReleasePorts { uid: task.pod.uid });
        }
        if !matches!(self.phase, Phase::TearingDown { .. }) {
            effects.push(Effect::Resize { total: self.total() });
        }
        effects
    }

    fn prepared(&mut self, result: Result<(), String>) -> Vec<Effect> {
        match result {
            _ if self.stopping() => Vec::new(),
            Err(why) => self.fail(why),
            Ok(()) => {
                self.phase = Phase::Starting;
                // The pods that came meanwhile were admitted into a cgroup that was not there yet.
                vec![Effect::Resize { total: self.total() }, Effect::StartService { index: 0, after: Duration::ZERO }]
            }
        }
    }

    fn fail(&mut self, why: String) -> Vec<Effect> {
        self.phase = Phase::TearingDown { state: TaskState::Failed, message: why };
        vec![Effect::TearDown { grace: Duration::ZERO }]
    }

    fn service_started(&mut self, index: usize, now: Duration) -> Vec<Effect> {
        if let Some(service) = self.services.get_mut(index) {
            service.started = Some(now);
        }
        Vec::new()
    }

    fn service_ready(&mut self, index: usize) -> Vec<Effect> {
        let Some(service) = self.services.get_mut(index) else { return Vec::new() };
        if std::mem::replace(&mut service.was_ready, true) || self.phase != Phase::Starting {
            return Vec::new();
        }
        if index + 1 < self.services.len() {
            return vec![Effect::StartService { index: index + 1, after: Duration::ZERO }];
        }
        self.phase = Phase::Ready;
        vec![report(&self.node_task, TaskState::Running, "the node is ready"), Effect::WatchPods]
    }

    fn service_ended(&mut self, index: usize, why: &str, fatal: bool, now: Duration) -> Vec<Effect> {
        if matches!(self.phase, Phase::TearingDown { .. }) {
            return Vec::new();
        }
        let state = if self.phase == Phase::Starting { TaskState::Starting } else { TaskState::Running };
        let Some(service) = self.services.get_mut(index) else { return Vec::new() };
        let message = format!("{} {why}", service.name);
        if fatal {
            return self.fail(message);
        }
        let ran = service.started.take().map_or(Duration::ZERO, |started| now.saturating_sub(started));
        service.crashes = if ran >= SETTLED { 1 } else { service.crashes + 1 };
        let doubled = BACKOFF_FIRST.saturating_mul(1 << (service.crashes - 1).min(10));
        let after = doubled.min(BACKOFF_MOST);
        vec![
            report(&self.node_task, state, &format!("{message}; started again in {} s", after.as_secs())),
            Effect::StartService { index, after },
        ]
    }

    fn pod_seen(&mut self, view: PodView, now: Duration) -> Vec<Effect> {
        if view.terminating && view.stopped {
            self.removals.entry(view.uid.clone()).or_insert(now + REMOVAL_LIMIT);
        }
        self.views.insert(view.uid.clone(), view.clone());
        self.tasks_of(&view.uid).iter().flat_map(|task_id| self.follow(task_id, &view)).collect()
    }

    /// Turns what the API says of a pod into its task's state.
    fn follow(&mut self, task_id: &str, view: &PodView) -> Vec<Effect> {
        let Some(task) = self.tasks.get_mut(task_id) else { return Vec::new() };
        match (task.state, view.phase) {
            (PodState::Admitting | PodState::Emptying, _) => Vec::new(),
            (_, PodPhase::Succeeded) => self.end(task_id, TaskState::Finished, &view.message),
            (_, PodPhase::Failed) => self.end(task_id, TaskState::Failed, &view.message),
            (PodState::Starting | PodState::Running, _) if view.terminating => {
                task.state = PodState::Killing;
                vec![report(task_id, TaskState::Killing, "the pod is being deleted")]
            }
            (PodState::Starting, PodPhase::Running) => {
                task.state = PodState::Running;
                vec![report(task_id, TaskState::Running, "")]
            }
            _ => Vec::new(),
        }
    }

    fn pod_gone(&mut self, uid: &str) -> Vec<Effect> {
        self.views.remove(uid);
        self.removals.remove(uid);
        let tasks = self.tasks_of(uid);
        for task_id in &tasks {
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.state = PodState::Emptying;
            }
        }
        if tasks.is_empty() { Vec::new() } else { vec![Effect::AwaitEmpty { uid: uid.to_owned() }] }
    }

    fn pod_empty(&mut self, uid: &str, now: Duration) -> Vec<Effect> {
        let ended: Vec<String> = self
            .tasks_of(uid)
            .into_iter()
            .filter(|task_id| self.tasks.get(task_id).is_some_and(|task| task.state == PodState::Emptying))
            .collect();
        let mut effects: Vec<Effect> =
            ended.iter().flat_map(|task_id| self.end(task_id, TaskState::Killed, "the pod is gone")).collect();
        effects.extend(self.drained(now));
        effects
    }

    fn kill(&mut self, task_id: &str, grace: Option<Duration>) -> Vec<Effect> {
        // Before the kubelet has its credentials no container can exist, and there is nobody to ask.
        let unreachable = matches!(self.phase, Phase::Preparing | Phase::Starting) && self.views.is_empty();
        let Some(task) = self.tasks.get_mut(task_id) else {
            // Mesos asks again when it lost our report of the end.
            return vec![report(task_id, TaskState::Killed, "no such task here")];
        };
        match task.state {
            PodState::Emptying => Vec::new(),
            _ if unreachable => self.end(task_id, TaskState::Killed, "the pod was never started"),
            state => {
                task.state = PodState::Killing;
                let delete = Effect::DeletePod { pod: task.pod.clone(), grace: grace.unwrap_or(DEFAULT_GRACE) };
                if state == PodState::Killing {
                    return vec![delete];
                }
                vec![report(task_id, TaskState::Killing, "the pod is being deleted"), delete]
            }
        }
    }

    fn stop(&mut self, grace: Option<Duration>, now: Duration) -> Vec<Effect> {
        if self.stopping() {
            return Vec::new();
        }
        let grace = grace.unwrap_or(DEFAULT_GRACE);
        let mut effects = vec![report(&self.node_task, TaskState::Killing, "the node is being stopped")];
        if self.phase != Phase::Ready {
            self.phase = Phase::TearingDown { state: TaskState::Killed, message: "the node is stopped".to_owned() };
            effects.push(Effect::TearDown { grace: Duration::ZERO });
            return effects;
        }
        let allowed = grace.saturating_sub(TEARDOWN_RESERVE.min(grace / 2));
        self.phase = Phase::Draining { until: now + allowed, end: now + grace };
        let tasks: Vec<String> = self.tasks.keys().cloned().collect();
        for task_id in tasks {
            effects.extend(self.kill(&task_id, Some(allowed)));
        }
        effects.extend(self.drained(now));
        effects
    }

    /// When the last pod of a draining node is gone, or the time for it is up, the rest goes too.
    fn drained(&mut self, now: Duration) -> Vec<Effect> {
        let Phase::Draining { until, end } = self.phase else { return Vec::new() };
        if !self.tasks.is_empty() && now < until {
            return Vec::new();
        }
        self.phase = Phase::TearingDown { state: TaskState::Killed, message: "the node is stopped".to_owned() };
        // Half of what is left, so that the removal has time too.
        vec![Effect::TearDown { grace: end.saturating_sub(now) / 2 }]
    }

    fn torn_down(&mut self, result: Result<(), String>) -> Vec<Effect> {
        let Phase::TearingDown { state, message } = self.phase.clone() else { return Vec::new() };
        let tasks: Vec<String> = self.tasks.keys().cloned().collect();
        let why = format!("the node is gone: {message}");
        let mut effects: Vec<Effect> = tasks.iter().flat_map(|task_id| self.end(task_id, state, &why)).collect();
        let message = match result {
            Ok(()) => message,
            Err(left) => format!("{message}; left for the sweep: {left}"),
        };
        effects.push(report(&self.node_task, state, &message));
        effects.push(Effect::Exit);
        self.phase = Phase::Done;
        effects
    }

    /// Removes what the kubelet does not remove in time.
    fn overdue(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (uid, at) in self.removals.iter_mut().filter(|(_, at)| **at <= now) {
            *at = now + REMOVAL_AGAIN;
            let task = self.tasks.values().find(|task| task.pod.uid == *uid);
            effects.extend(task.map(|task| Effect::ForgetPod { pod: task.pod.clone() }));
        }
        effects
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        if matches!(self.phase, Phase::Preparing | Phase::Starting) && now >= START_LIMIT {
            let waiting = self.services.iter().find(|service| !service.was_ready);
            let what = waiting.map_or("the node", |service| service.name.as_str());
            return self.fail(format!("{what} was not ready within {} s", START_LIMIT.as_secs()));
        }
        let mut effects = self.drained(now);
        effects.extend(self.overdue(now));
        if std::mem::take(&mut self.resize_failed) && !self.stopping() {
            effects.push(Effect::Resize { total: self.total() });
        }
        effects
    }
}

fn report(task_id: &str, state: TaskState, message: &str) -> Effect {
    Effect::Report(Report { task_id: task_id.to_owned(), state, message: message.to_owned() })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
