//! The decisions of a node agent, as a pure state machine: it maps an [`Event`] and the time to [`Effect`]s.
//! [`run`](super::run) carries them out and feeds their results back as events. No I/O, no clock, no randomness.
//!
//! `now` is monotonic time since the agent's start. The wall clock is not an input, so a jump of it has no effect.
mod deletions;

use std::collections::BTreeMap;
use std::time::Duration;

use self::deletions::Deleting;
pub use super::events::{Deletion, Effect, Event, Order, PodPhase, PodView, Report, TaskState};
use kmctl_core::backoff::Backoff;
use kmctl_core::protocol::launch::{Grant, PodLaunch};
use kmctl_core::text::duration;

/// Backoff before a crashed child is restarted. If the kubelet is down for longer than its lease (40 s), the node
/// becomes Unknown.
const START_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(20));
/// A child that ran this long has recovered: its next crash counts as the first.
const SETTLED: Duration = Duration::from_secs(60);
/// A node that is not ready by then will not be; the scheduler can use the grant elsewhere.
const START_LIMIT: Duration = Duration::from_secs(600);
/// The part of the grace period that is reserved for stopping the children and removing what the node left.
const TEARDOWN_RESERVE: Duration = Duration::from_secs(15);
/// How long the kubelet may take to remove a pod's object once its containers have ended. The kubelet removes it when
/// the sandbox is gone, too. If it notices the end of the containers just before that of the sandbox, it misses that
/// moment and removes the sandbox only with the next garbage collection, up to a minute later (`deletePodSandbox` in
/// pkg/kubelet).
const REMOVAL_LIMIT: Duration = Duration::from_secs(3);
/// Backoff of further attempts for as long as the object exists: a finalizer may block its removal.
const REMOVAL_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(30), Duration::from_secs(600));
/// Backoff before the bound of all pods is set again. Retried until the node ends: pods must not have more than was
/// granted.
const RESIZE_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));
/// Grace period for orders that name none. How long Mesos lets an executor take by default does not matter here.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Preparing,
    Starting,
    Ready,
    /// Pods are being deleted through the API, so that they stop as their specification asks.
    Draining {
        until: Duration,
        end: Duration,
    },
    /// Children and pods are being stopped. Afterwards the node task is reported with this state and message.
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
    /// Its object is removed, but its processes may still exist.
    Emptying,
}

#[derive(Clone, Debug)]
struct PodTask {
    pod: PodLaunch,
    grant: Grant,
    state: PodState,
}

/// Setting the bound of all pods after a failure.
#[derive(Clone, Debug, Default)]
struct Resizing {
    /// Time of the next attempt.
    again: Option<Duration>,
    failures: u32,
    said: Option<String>,
}

/// Removing the object of a deleted pod without containers.
#[derive(Clone, Copy, Debug)]
struct Removal {
    at: Duration,
    tries: u32,
}

/// The state of a node agent.
#[derive(Debug)]
pub struct Agent {
    node_task: String,
    phase: Phase,
    services: Vec<Service>,
    tasks: BTreeMap<String, PodTask>,
    views: BTreeMap<String, PodView>,
    /// The watch has listed all pods of this node at least once.
    listed: bool,
    /// By UID.
    deletions: BTreeMap<String, Deleting>,
    /// By UID.
    removals: BTreeMap<String, Removal>,
    resizing: Resizing,
    /// The furthest state of each task that was reported, until the task has ended.
    reported: BTreeMap<String, u8>,
}

impl Agent {
    /// An agent whose node task is `node_task`, with children of these names, in their start order.
    pub fn new(node_task: String, services: &[&str]) -> Self {
        let services = services.iter().map(|name| Service { name: (*name).to_owned(), ..Service::default() }).collect();
        Agent {
            node_task,
            phase: Phase::Preparing,
            services,
            tasks: BTreeMap::new(),
            views: BTreeMap::new(),
            listed: false,
            deletions: BTreeMap::new(),
            removals: BTreeMap::new(),
            resizing: Resizing::default(),
            reported: BTreeMap::new(),
        }
    }

    /// The effects before the first event.
    pub fn begin(&self) -> Vec<Effect> {
        vec![Effect::Prepare]
    }

    /// The effects of an event.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        if self.phase == Phase::Done {
            return Vec::new();
        }
        let mut effects = self.take_in(event, now);
        effects.retain(|effect| match effect {
            Effect::Report(report) => self.goes_forward(report),
            _ => true,
        });
        effects
    }

    /// Whether the report does not move a task's state backwards. Two events about a task may arrive in either order.
    fn goes_forward(&mut self, report: &Report) -> bool {
        let rank = match report.state {
            TaskState::Starting => 0,
            TaskState::Running => 1,
            TaskState::Killing => 2,
            TaskState::Finished | TaskState::Failed | TaskState::Killed => {
                self.reported.remove(&report.task_id);
                return true;
            }
        };
        let before = self.reported.entry(report.task_id.clone()).or_insert(rank);
        let forward = rank >= *before;
        *before = rank.max(*before);
        forward
    }

    fn take_in(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Order(Order::LaunchPod { task_id, pod, grant }) => self.launch(task_id, pod, grant),
            Event::Order(Order::Kill { task_id, grace }) if task_id == self.node_task => self.stop(grace, now),
            Event::Order(Order::Kill { task_id, grace }) => self.kill(&task_id, grace, now),
            Event::Order(Order::Shutdown { grace }) => self.stop(grace, now),
            Event::Prepared(result) => self.prepared(result),
            Event::Admitted { task_id, result } => self.admitted(&task_id, result),
            Event::ServiceStarted { index } => self.service_started(index, now),
            Event::ServiceReady { index } => self.service_ready(index),
            Event::ServiceEnded { index, why, fatal } => self.service_ended(index, &why, fatal, now),
            Event::PodSeen(view) => self.pod_seen(view, now),
            Event::PodGone { uid } => self.pod_gone(&uid),
            Event::PodsListed => self.pods_listed(now),
            Event::PodDeleted { uid, result } => self.deletion_answered(&uid, result, now),
            Event::PodEmpty { uid } => self.pod_empty(&uid, now),
            Event::Resized(result) => self.resized(result, now),
            Event::TornDown(result) => self.torn_down(result),
            Event::Tick => self.tick(now),
        }
    }

    /// The sum of the current pods' grants.
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
        if task.state != PodState::Admitting {
            // Killed or gone while its resources were set up.
            return Vec::new();
        }
        task.state = PodState::Starting;
        let view = self.views.get(&task.pod.uid).cloned();
        let mut effects = vec![report(task_id, TaskState::Starting, "")];
        effects.extend(view.map(|view| self.follow(task_id, &view)).unwrap_or_default());
        effects
    }

    /// Reports a task's end and releases its resources.
    fn end(&mut self, task_id: &str, state: TaskState, message: &str) -> Vec<Effect> {
        let Some(task) = self.tasks.remove(task_id) else { return Vec::new() };
        let mut effects = vec![report(task_id, state, message)];
        if self.tasks_of(&task.pod.uid).is_empty() {
            self.deletions.remove(&task.pod.uid);
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
                // Pods that were launched in the meantime were admitted before the cgroup existed.
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
        let state = match self.phase {
            Phase::Starting => TaskState::Starting,
            Phase::Draining { .. } => TaskState::Killing,
            _ => TaskState::Running,
        };
        let Some(service) = self.services.get_mut(index) else { return Vec::new() };
        let message = format!("{} {why}", service.name);
        if fatal {
            return self.fail(message);
        }
        let ran = service.started.take().map_or(Duration::ZERO, |started| now.saturating_sub(started));
        service.crashes = if ran >= SETTLED { 1 } else { service.crashes + 1 };
        let after = START_AGAIN.wait(service.crashes - 1);
        vec![
            report(&self.node_task, state, &format!("{message}; restarting in {}", duration(after))),
            Effect::StartService { index, after },
        ]
    }

    fn pod_seen(&mut self, view: PodView, now: Duration) -> Vec<Effect> {
        if view.terminating && view.stopped {
            let removal = Removal { at: now + REMOVAL_LIMIT, tries: 0 };
            self.removals.entry(view.uid.clone()).or_insert(removal);
        } else {
            // A container is running again, so the object must not be removed.
            self.removals.remove(&view.uid);
        }
        self.views.insert(view.uid.clone(), view.clone());
        let tasks = self.tasks_of(&view.uid);
        let mut effects: Vec<Effect> = tasks.iter().flat_map(|task_id| self.follow(task_id, &view)).collect();
        effects.extend(self.shorten(&view));
        // A pod that counted as gone exists: its Binding was seen late.
        let mut late = false;
        for task in self.tasks.values_mut().filter(|task| task.pod.uid == view.uid) {
            if task.state == PodState::Emptying {
                (task.state, late) = (PodState::Killing, true);
            }
        }
        if late {
            effects.extend(self.delete(&view.uid, DEFAULT_GRACE, now));
        }
        effects
    }

    /// Derives a task's state from the pod's view in the API.
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
        self.deletions.remove(uid);
        let mut waits = false;
        for task in self.tasks.values_mut().filter(|task| task.pod.uid == uid) {
            // The end may be reported twice: by the watch, and by the answer to a deletion.
            waits |= std::mem::replace(&mut task.state, PodState::Emptying) != PodState::Emptying;
        }
        if waits { vec![Effect::AwaitEmpty { uid: uid.to_owned() }] } else { Vec::new() }
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

    fn kill(&mut self, task_id: &str, grace: Option<Duration>, now: Duration) -> Vec<Effect> {
        // The kubelet is started when the container runtime is ready. Before that no container can exist.
        let kubelet = self.services.first().is_some_and(|runtime| runtime.was_ready);
        let unreachable = matches!(self.phase, Phase::Preparing | Phase::Starting) && !kubelet;
        let Some(task) = self.tasks.get_mut(task_id) else {
            // Mesos repeats the kill if our report of the end was lost.
            return vec![report(task_id, TaskState::Killed, "unknown task")];
        };
        match task.state {
            PodState::Emptying => Vec::new(),
            _ if unreachable => self.end(task_id, TaskState::Killed, "the pod was never started"),
            state => {
                task.state = PodState::Killing;
                let uid = task.pod.uid.clone();
                let mut effects = Vec::new();
                if state != PodState::Killing {
                    effects.push(report(task_id, TaskState::Killing, "the pod is being deleted"));
                }
                effects.extend(self.delete(&uid, grace.unwrap_or(DEFAULT_GRACE), now));
                effects
            }
        }
    }

    fn resized(&mut self, result: Result<(), String>, now: Duration) -> Vec<Effect> {
        let Err(why) = result else {
            self.resizing = Resizing::default();
            return Vec::new();
        };
        let Resizing { again, failures, said } = &mut self.resizing;
        *again = Some(now + RESIZE_AGAIN.wait(*failures));
        *failures = failures.saturating_add(1);
        if said.as_ref() == Some(&why) {
            return Vec::new();
        }
        *said = Some(why.clone());
        vec![Effect::Warn(format!("failed to set the limit of all pods, retrying: {why}"))]
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
            effects.extend(self.kill(&task_id, Some(allowed), now));
        }
        effects.extend(self.drained(now));
        effects
    }

    /// Starts the teardown when the last pod of a draining node is gone or its time is up.
    fn drained(&mut self, now: Duration) -> Vec<Effect> {
        let Phase::Draining { until, end } = self.phase else { return Vec::new() };
        if !self.tasks.is_empty() && now < until {
            return Vec::new();
        }
        self.phase = Phase::TearingDown { state: TaskState::Killed, message: "the node is stopped".to_owned() };
        // Half of the remaining time, so that the removal has time, too.
        vec![Effect::TearDown { grace: end.saturating_sub(now) / 2 }]
    }

    fn torn_down(&mut self, result: Result<(), String>) -> Vec<Effect> {
        let Phase::TearingDown { state, message } = self.phase.clone() else { return Vec::new() };
        let tasks: Vec<String> = self.tasks.keys().cloned().collect();
        let why = format!("the node object is gone: {message}");
        let mut effects: Vec<Effect> = tasks.iter().flat_map(|task_id| self.end(task_id, state, &why)).collect();
        let message = match result {
            Ok(()) => message,
            Err(left) => format!("{message}; left for the clean-up task: {left}"),
        };
        effects.push(report(&self.node_task, state, &message));
        effects.push(Effect::Exit);
        self.phase = Phase::Done;
        effects
    }

    /// Removes the objects that the kubelet does not remove in time.
    fn overdue(&mut self, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (uid, removal) in self.removals.iter_mut().filter(|(_, removal)| removal.at <= now) {
            removal.at = now + REMOVAL_AGAIN.wait(removal.tries);
            removal.tries = removal.tries.saturating_add(1);
            let task = self.tasks.values().find(|task| task.pod.uid == *uid);
            effects.extend(task.map(|task| Effect::ForgetPod { pod: task.pod.clone() }));
        }
        effects
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        if matches!(self.phase, Phase::Preparing | Phase::Starting) && now >= START_LIMIT {
            let waiting = self.services.iter().find(|service| !service.was_ready);
            let what = waiting.map_or("the node", |service| service.name.as_str());
            return self.fail(format!("{what} was not ready within {}", duration(START_LIMIT)));
        }
        let mut effects = self.drained(now);
        effects.extend(self.overdue(now));
        effects.extend(self.ask_again(now));
        if !self.stopping() && self.resizing.again.is_some_and(|again| again <= now) {
            self.resizing.again = None;
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
