//! What Mesos reports about tasks, executors and agents, and what follows from it for pods.
use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::{Answer, ApiRequest, Binding, Effect, MesosCall};
use super::parts::{BindState, NodeEntry, NodeState, PodEntry, Task};
use super::scheduler::Scheduler;
use kmctl_core::k8s::names::{GRANTED_ANNOTATION, PORTS_ANNOTATION, TASK_ANNOTATION};
use kmctl_core::model::ids::TaskKind;
use kmctl_core::model::pods::Phase;
use mesos::types::{TaskState, TaskStatus};

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
        match TaskKind::of(&id) {
            TaskKind::Sentinel => return self.known.reconcile_marker_received(&id),
            TaskKind::Foreign if !self.tasks.contains(&id) => {
                self.push(Effect::Report(format!("task {id} is {}: not one of ours, left alone", status.state)));
            }
            _ => {}
        }
        self.tasks.report(status, self.now);
    }

    pub(super) fn executor_ended(&mut self, agent: &str, executor: &str) {
        let node = self.nodes.iter().find(|(_, node)| node.agent() == agent && node.executor_id() == Some(executor));
        if let Some((name, node)) = node
            && !node.state().unlaunched()
        {
            let (name, clean) = (name.clone(), node.is_killed());
            self.node_ended(&name, clean, "its executor ended");
        }
    }

    pub(super) fn agent_lost(&mut self, agent: &str) {
        // Their own updates report what happened to its tasks.
        self.agents.void_offers_of(agent);
    }

    pub(super) fn kill(&mut self, id: &str) {
        let now = self.now;
        let agent = self.tasks.update(id, |task| task.kill(now).then(|| task.agent().map(str::to_owned))).flatten();
        if let Some(agent) = agent {
            self.push(Effect::Mesos(MesosCall::Kill { task: id.to_owned(), agent }));
        }
    }

    pub(super) fn sync_tasks(&mut self) {
        for id in &self.tasks.keys() {
            match self.tasks.get(id).map(|task| task.kind().clone()) {
                Some(TaskKind::Pod(uid)) => self.sync_pod_task(id, &uid),
                Some(TaskKind::Node(_)) => self.sync_node_task(id),
                _ => {}
            }
        }
        self.sync_bound_pods();
        self.ask_for_silent_tasks();
    }

    /// A task that nothing of ours names any more.
    fn end_stray_task(&mut self, id: &str) {
        if self.tasks.is_over(id) {
            self.tasks.remove(id);
        } else {
            self.kill(id);
        }
    }

    fn sync_pod_task(&mut self, id: &str, uid: &str) {
        let Some(task) = self.tasks.get(id).cloned() else { return };
        let Some(pod) = self.pods.get(uid) else { return self.end_stray_task(id) };
        let facts = pod.facts();
        let on_its_way = pod.bind_state().task() == Some(id);
        let recorded = facts.task.as_deref() == Some(id);
        if task.is_terminal() {
            if on_its_way && facts.node.is_none() {
                let (state, message) = task.outcome();
                self.fail_bind(uid, &format!("the pod's Mesos task ended: {state} {message}"));
            }
            if !recorded {
                self.tasks.remove(id);
            }
        } else if facts.node.is_some() {
            let finished = facts.phase == Phase::Finished && self.now.since(task.since()) > FINISHED_GRACE;
            if finished || (!recorded && !on_its_way && !self.readopt(id, uid, &task)) {
                self.kill(id);
            }
        } else if facts.deleting || facts.phase == Phase::Finished {
            self.fail_bind(uid, "the pod is being deleted");
            self.kill(id);
        } else if on_its_way {
            if task.is_started() && matches!(pod.bind_state(), BindState::Launched { .. }) {
                self.post_binding(uid, id);
            }
        } else {
            self.adopt_pod_task(id, uid, &task);
        }
    }

    /// Readopts a live task of a bound pod whose object names no task: its annotations were replaced while no process
    /// of ours could restore them. The task belongs to the pod if it is on the pod's node. The ports that it was
    /// granted are no longer known.
    fn readopt(&mut self, id: &str, uid: &str, task: &Task) -> bool {
        let Some(facts) = self.pods.get(uid).map(PodEntry::facts) else { return false };
        let node = facts.node.as_ref().and_then(|node| self.nodes.get(node));
        let there = node.is_some_and(|node| node.executor_id().is_some() && node.executor_id() == task.executor());
        if facts.task.is_some() || facts.deleting || !there || task.is_ending() {
            return false;
        }
        self.pods.update(uid, |pod| pod.readopt(id, task.granted()));
        true
    }

    /// Adopts a task of an unbound pod that this process did not launch: an earlier process died between launch and
    /// Binding.
    fn adopt_pod_task(&mut self, id: &str, uid: &str, task: &Task) {
        let Some(pod) = self.pods.get(uid) else { return };
        let runs_it = |node: &NodeEntry| node.state().open() && node.executor_id() == task.executor();
        let node = self.nodes.iter().find(|(_, node)| runs_it(node)).map(|(name, _)| name.clone());
        // The granted ports are no longer known. The pod has not run yet, so a new task costs nothing.
        let ports_unknown = !pod.facts().ports.is_empty();
        // A task that is being killed, for example because its Binding was refused, must not get its pod back.
        match node {
            Some(node) if !pod.is_binding() && task.executor().is_some() && !ports_unknown && !task.is_ending() => {
                let adopted = self.pods.update(uid, |pod| pod.adopt(&node, id));
                if self.legal(uid, adopted).is_some() && task.is_started() {
                    self.post_binding(uid, id);
                }
            }
            _ => self.kill(id),
        }
    }

    /// Orders the Binding of a pod whose launched task has started.
    fn post_binding(&mut self, uid: &str, task: &str) {
        let begun = self.pods.update(uid, |pod| pod.start_binding());
        let Some(ports) = self.legal(uid, begun) else { return };
        let Some(pod) = self.pods.get(uid) else { return };
        let Some(node) = pod.bind_state().node() else { return };
        let facts = pod.facts();
        let granted = self.tasks.get(task).and_then(Task::granted).unwrap_or(facts.amount);
        let mut annotations = BTreeMap::from([
            (TASK_ANNOTATION.to_owned(), task.to_owned()),
            (GRANTED_ANNOTATION.to_owned(), granted.to_string()),
        ]);
        if !ports.is_empty()
            && let Ok(text) = serde_json::to_string(&ports)
        {
            annotations.insert(PORTS_ANNOTATION.to_owned(), text);
        }
        let binding = Binding {
            namespace: facts.namespace.clone(),
            name: facts.name.clone(),
            uid: uid.to_owned(),
            node: node.to_owned(),
            annotations,
        };
        self.push(Effect::Api(ApiRequest::Bind(binding)));
    }

    pub(super) fn binding_posted(&mut self, uid: &str, error: Option<String>) {
        let Some(BindState::Binding { task, .. }) = self.pods.get(uid).map(PodEntry::bind_state) else { return };
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
        let Some(task) = self.tasks.get(id) else { return };
        let Some((name, node)) = self.nodes.of_task(id) else { return self.end_stray_task(id) };
        if *node.state() == NodeState::Gone {
            return;
        }
        let name = name.clone();
        let (state, message) = task.outcome();
        if task.is_terminal() {
            let clean = matches!(state, TaskState::Killed | TaskState::Finished);
            let why = format!("its task ended: {state} {message}");
            self.node_ended(&name, clean, &why);
        } else if state == TaskState::Unreachable && self.now.since(task.since()) > UNREACHABLE_LIMIT {
            self.node_ended(&name, false, "its agent cannot be reached");
        }
    }

    /// Handles pods that are bound now, and pods that still run in the API although their task is over.
    fn sync_bound_pods(&mut self) {
        let now = self.now;
        let mut delete = Vec::new();
        let mut arrived = Vec::new();
        let mut records = Vec::new();
        let (tasks, nodes) = (&self.tasks, &self.nodes);
        self.pods.update_each(|uid, pod| {
            let Some(node) = pod.facts().node.clone() else { return };
            if let Some(as_planned) = pod.arrived_as_planned() {
                let error = (!as_planned).then(|| format!("the pod was bound to {node} by somebody else"));
                arrived.push((uid.clone(), error));
            }
            if pod.repair_record(now) {
                let facts = pod.facts();
                records.push(Effect::Api(ApiRequest::Record {
                    namespace: facts.namespace.clone(),
                    name: facts.name.clone(),
                    uid: uid.clone(),
                    annotations: facts.record(),
                }));
            }
            let facts = pod.facts();
            let over = facts.task.as_ref().is_some_and(|task| tasks.is_over(task));
            let disagree = over && facts.phase != Phase::Finished && !facts.deleting;
            if pod.delete_orphan(disagree, now) {
                let force = !nodes.get(&node).is_some_and(|node| node.state().open());
                delete.push(Effect::Api(ApiRequest::delete_pod(pod.facts(), force)));
            }
        });
        for (uid, error) in arrived {
            let bound = self.pods.update(&uid, |pod| pod.arrive());
            self.legal(&uid, bound);
            self.answer_bind(&uid, error);
        }
        self.effects.extend(records);
        self.effects.extend(delete);
    }

    fn ask_for_silent_tasks(&mut self) {
        let now = self.now;
        let mut ask = Vec::new();
        self.tasks.update_each(|id, task| {
            if task.ask(now) {
                ask.push((id.clone(), task.agent().map(str::to_owned)));
            }
        });
        // The tasks of an agent that reregistered late are reported only on request.
        if self.known.ask_for_recorded(now) {
            let recorded = self.recorded_tasks();
            ask.extend(recorded.into_iter().filter(|(id, _)| !self.tasks.contains(id)));
        }
        if !ask.is_empty() {
            self.push(Effect::Mesos(MesosCall::Reconcile(ask)));
        }
    }

    pub(super) fn fail_binds(&mut self, node: &str, why: &str) {
        let bound_for = self.pods.iter().filter(|(_, pod)| pod.bind_state().node() == Some(node));
        let uids: Vec<String> = bound_for.map(|(uid, _)| uid.clone()).collect();
        for uid in uids {
            self.fail_bind(&uid, why);
        }
    }

    pub(super) fn fail_bind(&mut self, uid: &str, why: &str) {
        self.pods.update(uid, |pod| pod.fail_bind());
        self.answer_bind(uid, Some(why.to_owned()));
    }

    pub(super) fn answer_bind(&mut self, uid: &str, error: Option<String>) {
        for request in self.pods.update(uid, |pod| pod.take_answers()).unwrap_or_default() {
            self.push(Effect::Answer(request, Answer::Bind(error.clone())));
        }
    }
}
