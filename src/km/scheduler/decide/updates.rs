//! What Mesos reports about tasks, executors and agents, and what follows from it for pods.
use std::time::Duration;

use super::effect::{Answer, ApiRequest, Binding, Effect, MesosCall};
use super::parts::{BindState, NodeState, Task};
use super::scheduler::Scheduler;
use kmctl_core::backoff::Backoff;
use kmctl_core::k8s::names::{GRANTED_ANNOTATION, PORTS_ANNOTATION, TASK_ANNOTATION};
use kmctl_core::model::ids::TaskKind;
use kmctl_core::model::pods::Phase;
use kmctl_core::protocol::launch::PortMapping;
use mesos::types::{TaskState, TaskStatus};

/// A KILL may be lost. It is repeated until the task is over or unknown to the master, because the task holds resources
/// until then.
const KILL_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_secs(300));

/// A launch may be lost, and so may the report that an unreachable agent has returned. Only a reconciliation reveals
/// it. Requests end with an answer.
const ASK_AGAIN: Backoff = Backoff::doubling(Duration::from_secs(30), Duration::from_secs(300));

/// Interval at which the annotations of a pod's Binding are written again while its object differs.
const RECORD_AGAIN: Duration = Duration::from_secs(5);

/// A pod's end reaches Mesos and the API independently. The two count as disagreeing only after this time.
const DISAGREEMENT: Duration = Duration::from_secs(15);

/// How long the node agent has to report the end of a finished pod itself.
const FINISHED_GRACE: Duration = Duration::from_secs(60);

/// An agent that is unreachable for this long is given up: its pods have been replaced by then.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(600);

impl Scheduler {
    pub(super) fn updated(&mut self, status: &TaskStatus) {
        let id = status.task_id.value.clone();
        if let (Some(agent), Some(uuid)) = (&status.agent_id, &status.uuid) {
            self.push(Effect::Mesos(MesosCall::Acknowledge {
                agent: agent.value.clone(),
                task: id.clone(),
                uuid: uuid.0.clone(),
            }));
        }
        let kind = TaskKind::of(&id);
        match kind {
            TaskKind::Sentinel => return self.known.reconcile_marker_received(&id),
            TaskKind::Foreign if !self.tasks.contains_key(&id) => {
                self.push(Effect::Report(format!("task {id} is {}: not one of ours, left alone", status.state)));
            }
            _ => {}
        }
        let now = self.now;
        let task = self.tasks.entry(id).or_insert_with(|| Task {
            kind,
            agent: None,
            executor: None,
            granted: None,
            state: status.state,
            message: String::new(),
            since: now,
            killed: None,
            kills: 0,
            asked: None,
            asks: 0,
        });
        if task.state != status.state {
            if task.state == TaskState::Unreachable {
                // A KILL that was due is sent as soon as the task is reachable again.
                (task.killed, task.kills) = (None, 0);
            }
            (task.state, task.since, task.asked, task.asks) = (status.state, now, None, 0);
        }
        task.agent = status.agent_id.as_ref().map(|id| id.value.clone()).or(task.agent.take());
        task.executor = status.executor_id.as_ref().map(|id| id.value.clone()).or(task.executor.take());
        task.message = status.message.clone().unwrap_or_default();
    }

    pub(super) fn executor_ended(&mut self, agent: &str, executor: &str) {
        let node = self.nodes.iter().find(|(_, node)| node.agent == agent && node.executor_id() == Some(executor));
        if let Some((name, node)) = node
            && !node.state.unlaunched()
        {
            let clean = matches!(node.state, NodeState::Leaving { killed: Some(_), .. });
            let name = name.clone();
            self.node_ended(&name, clean, "its executor ended");
        }
    }

    pub(super) fn agent_lost(&mut self, agent: &str) {
        // Their own updates report what happened to its tasks.
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.offers.clear();
        }
    }

    pub(super) fn kill(&mut self, id: &str) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(id) else { return };
        let waits = |killed| now.since(killed) < KILL_AGAIN.wait(task.kills.saturating_sub(1));
        // A KILL to an unreachable agent only yields an answer that says so.
        if task.is_terminal() || task.state == TaskState::Unreachable || task.killed.is_some_and(waits) {
            return;
        }
        (task.killed, task.kills) = (Some(now), task.kills.saturating_add(1));
        let agent = task.agent.clone();
        self.push(Effect::Mesos(MesosCall::Kill { task: id.to_owned(), agent }));
    }

    pub(super) fn sync_tasks(&mut self) {
        let ids: Vec<String> = self.tasks.keys().cloned().collect();
        for id in &ids {
            match self.tasks.get(id).map(|task| task.kind.clone()) {
                Some(TaskKind::Pod(uid)) => self.sync_pod_task(id, &uid),
                Some(TaskKind::Node(_)) => self.sync_node_task(id),
                _ => {}
            }
        }
        self.sync_bound_pods();
        self.ask_for_silent_tasks();
    }

    fn sync_pod_task(&mut self, id: &str, uid: &str) {
        let Some(task) = self.tasks.get(id).cloned() else { return };
        let Some(pod) = self.pods.get(uid) else {
            if task.is_terminal() {
                self.tasks.remove(id);
            } else {
                self.kill(id);
            }
            return;
        };
        let on_its_way =
            matches!(&pod.bind_state, BindState::Launched { task, .. } | BindState::Binding { task, .. } if task == id);
        let recorded = pod.facts.task.as_deref() == Some(id);
        let running = matches!(task.state, TaskState::Starting | TaskState::Running);
        if task.is_terminal() {
            if on_its_way && pod.facts.node.is_none() {
                self.fail_bind(uid, &format!("the pod's Mesos task ended: {} {}", task.state, task.message));
            }
            if !recorded {
                self.tasks.remove(id);
            }
        } else if pod.facts.node.is_some() {
            let finished = pod.facts.phase == Phase::Finished && self.now.since(task.since) > FINISHED_GRACE;
            if finished || (!recorded && !on_its_way && !self.readopt(id, uid, &task)) {
                self.kill(id);
            }
        } else if pod.facts.deleting || pod.facts.phase == Phase::Finished {
            self.fail_bind(uid, "the pod is being deleted");
            self.kill(id);
        } else if on_its_way {
            if running && let BindState::Launched { node, ports, .. } = pod.bind_state.clone() {
                self.post_binding(uid, &node, id, &ports);
            }
        } else {
            self.adopt_pod_task(id, uid, &task);
        }
    }

    /// Readopts a live task of a bound pod whose object names no task: its annotations were replaced while no process
    /// of ours could restore them. The task belongs to the pod if it is on the pod's node. The ports that it was
    /// granted are no longer known.
    fn readopt(&mut self, id: &str, uid: &str, task: &Task) -> bool {
        let Some(pod) = self.pods.get_mut(uid) else { return false };
        let node = pod.facts.node.as_ref().and_then(|node| self.nodes.get(node));
        let there =
            node.is_some_and(|node| node.executor_id().is_some() && node.executor_id() == task.executor.as_deref());
        let ending = task.killed.is_some() || task.state == TaskState::Killing;
        if pod.facts.task.is_some() || pod.facts.deleting || !there || ending {
            return false;
        }
        pod.facts.task = Some(id.to_owned());
        pod.facts.granted = task.granted.or(Some(pod.facts.amount));
        pod.overwritten = Some(None);
        true
    }

    /// Adopts a task of an unbound pod that this process did not launch: an earlier process died between launch and
    /// Binding.
    fn adopt_pod_task(&mut self, id: &str, uid: &str, task: &Task) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let node =
            self.nodes.iter().find(|(_, node)| node.state.open() && node.executor_id() == task.executor.as_deref());
        // The granted ports are no longer known. The pod has not run yet, so a new task costs nothing.
        let ports_unknown = !pod.facts.ports.is_empty();
        // A task that is being killed, for example because its Binding was refused, must not get its pod back.
        let ending = task.killed.is_some() || task.state == TaskState::Killing;
        match node {
            Some((node, _))
                if pod.bind_state == BindState::None && task.executor.is_some() && !ports_unknown && !ending =>
            {
                let node = node.clone();
                pod.bind_state = BindState::Launched { node: node.clone(), task: id.to_owned(), ports: Vec::new() };
                if matches!(task.state, TaskState::Starting | TaskState::Running) {
                    self.post_binding(uid, &node, id, &[]);
                }
            }
            _ => self.kill(id),
        }
    }

    fn post_binding(&mut self, uid: &str, node: &str, task: &str, ports: &[PortMapping]) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let granted = self.tasks.get(task).and_then(|task| task.granted).unwrap_or(pod.facts.amount);
        let mut annotations = std::collections::BTreeMap::from([
            (TASK_ANNOTATION.to_owned(), task.to_owned()),
            (GRANTED_ANNOTATION.to_owned(), granted.to_string()),
        ]);
        if !ports.is_empty()
            && let Ok(text) = serde_json::to_string(ports)
        {
            annotations.insert(PORTS_ANNOTATION.to_owned(), text);
        }
        pod.bind_state = BindState::Binding { node: node.to_owned(), task: task.to_owned() };
        let binding = Binding {
            namespace: pod.facts.namespace.clone(),
            name: pod.facts.name.clone(),
            uid: uid.to_owned(),
            node: node.to_owned(),
            annotations,
        };
        self.push(Effect::Api(ApiRequest::Bind(binding)));
    }

    pub(super) fn binding_posted(&mut self, uid: &str, error: Option<String>) {
        let Some(pod) = self.pods.get(uid) else { return };
        let BindState::Binding { task, .. } = &pod.bind_state else { return };
        let task = task.clone();
        match error {
            None => self.answer_bind(uid, None),
            Some(error) => {
                self.fail_bind(uid, &format!("the Binding was refused: {error}"));
                self.kill(&task);
            }
        }
    }

    fn sync_node_task(&mut self, id: &str) {
        let Some(task) = self.tasks.get(id).cloned() else { return };
        let node = self.nodes.iter().find(|(_, node)| node.task.as_deref() == Some(id));
        let Some((name, node)) = node.map(|(name, node)| (name.clone(), node)) else {
            if task.is_terminal() {
                self.tasks.remove(id);
            } else {
                self.kill(id);
            }
            return;
        };
        if node.state == NodeState::Gone {
            return;
        }
        if task.is_terminal() {
            let clean = matches!(task.state, TaskState::Killed | TaskState::Finished);
            self.node_ended(&name, clean, &format!("its task ended: {} {}", task.state, task.message));
        } else if task.state == TaskState::Unreachable && self.now.since(task.since) > UNREACHABLE_LIMIT {
            self.node_ended(&name, false, "its agent cannot be reached");
        }
    }

    /// Handles pods that are bound now, and pods that still run in the API although their task is over.
    fn sync_bound_pods(&mut self) {
        let now = self.now;
        let mut delete = Vec::new();
        let mut arrived = Vec::new();
        let mut records = Vec::new();
        for (uid, pod) in &mut self.pods {
            let Some(node) = &pod.facts.node else { continue };
            match &pod.bind_state {
                BindState::Launched { task, .. } | BindState::Binding { task, .. } => {
                    let error = (pod.facts.task.as_ref() != Some(task))
                        .then(|| format!("the pod was bound to {node} by somebody else"));
                    arrived.push((uid.clone(), error));
                }
                BindState::Waiting { node: wanted, .. } => {
                    let error = (wanted != node).then(|| format!("the pod was bound to {node} by somebody else"));
                    arrived.push((uid.clone(), error));
                }
                BindState::None => {}
            }
            if let Some(last) = pod.overwritten
                && !pod.facts.deleting
                && last.is_none_or(|last| now.since(last) >= RECORD_AGAIN)
            {
                pod.overwritten = Some(Some(now));
                let (namespace, name) = (pod.facts.namespace.clone(), pod.facts.name.clone());
                records.push(Effect::Api(ApiRequest::Record {
                    namespace,
                    name,
                    uid: uid.clone(),
                    annotations: pod.facts.record(),
                }));
            }
            let over = pod.facts.task.as_ref().and_then(|task| self.tasks.get(task)).is_some_and(Task::is_terminal);
            if !over || pod.facts.phase == Phase::Finished || pod.facts.deleting {
                pod.orphaned = None;
            } else if now.since(*pod.orphaned.get_or_insert(now)) >= DISAGREEMENT {
                pod.orphaned = Some(now);
                delete.push(Effect::Api(ApiRequest::DeletePod {
                    namespace: pod.facts.namespace.clone(),
                    name: pod.facts.name.clone(),
                    uid: uid.clone(),
                    force: !self.nodes.get(node).is_some_and(|node| node.state.open()),
                }));
            }
        }
        for (uid, error) in arrived {
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.bind_state = BindState::None;
            }
            self.answer_bind(&uid, error);
        }
        self.effects.extend(records);
        self.effects.extend(delete);
    }

    fn ask_for_silent_tasks(&mut self) {
        let now = self.now;
        let mut ask = Vec::new();
        for (id, task) in &mut self.tasks {
            let unheard = matches!(task.state, TaskState::Staging | TaskState::Unreachable);
            if unheard && now.since(task.asked.unwrap_or(task.since)) > ASK_AGAIN.wait(task.asks) {
                (task.asked, task.asks) = (Some(now), task.asks.saturating_add(1));
                ask.push((id.clone(), task.agent.clone()));
            }
        }
        // The tasks of an agent that reregistered late are reported only on request.
        if self.known.ask_for_recorded(now) {
            let recorded = self.recorded_tasks();
            ask.extend(recorded.into_iter().filter(|(id, _)| !self.tasks.contains_key(id)));
        }
        if !ask.is_empty() {
            self.push(Effect::Mesos(MesosCall::Reconcile(ask)));
        }
    }

    pub(super) fn fail_binds(&mut self, node: &str, why: &str) {
        let uids: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.bind_state.node() == Some(node))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            self.fail_bind(&uid, why);
        }
    }

    pub(super) fn fail_bind(&mut self, uid: &str, why: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.bind_state = BindState::None;
            // kube-scheduler leaves a pod whose bind failed unscheduled for a minute: it is nudged like a refused one.
            pod.asked = None;
            pod.placeable_since = None;
        }
        self.answer_bind(uid, Some(why.to_owned()));
    }

    pub(super) fn answer_bind(&mut self, uid: &str, error: Option<String>) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        for request in std::mem::take(&mut pod.answers) {
            self.effects.push(Effect::Answer(request, Answer::Bind(error.clone())));
        }
    }
}
