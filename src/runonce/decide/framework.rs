//! The framework of one run: accepts offers that are large enough, launches one node per agent with as many of the pods
//! as the offer holds, and follows the pods until they end. Input is an [`Event`] and the time, output are [`Effect`]s.
//!
//! The framework exists only as long as the run. Mesos forgets it soon after its connection is lost, so nothing is
//! persisted.
use std::collections::BTreeMap;
use std::time::Duration;

use super::exit;
use kmctl_core::cluster::Constraint;
use kmctl_core::model::ids::IdSource;
use kmctl_core::model::pods::PodPort;
use kmctl_core::model::requests::NODE_TASK;
use kmctl_core::model::resources::Amount;
use kmctl_core::protocol::artifacts::KmProgram;
use kmctl_core::protocol::launch::Artifact;
use kmctl_core::protocol::runonce::{FromNode, GivenPod, PodEnd, ToNode, is_about_fetching};
use kmctl_core::text;
use mesos::types::{ExecutorInfo, Offer, OfferId, StatusReason, TaskInfo, TaskState, TaskStatus};

/// Limit for nodes to stop on request; Mesos stops the rest with the framework.
const END_LIMIT: Duration = Duration::from_secs(35);
/// How long a pod waits for an offer before this is reported.
const SAY_AFTER: Duration = Duration::from_secs(5);
/// How often it is reported again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// What does not change during a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The role to get offers for.
    pub role: String,
    /// User that executors run as.
    pub user: String,
    /// The cluster's name, shown in Mesos.
    pub cluster: String,
    /// Constraints on the agents that may be used.
    pub constraints: Vec<Constraint>,
    /// Resources of a node itself.
    pub overhead: Amount,
    /// The binary that executors run.
    pub km: KmProgram,
    pub kubernetes_version: String,
    /// Directory on agents.
    pub root_dir: std::path::PathBuf,
    /// Network that runs take their subnets from.
    pub pod_cidr: String,
    /// DNS domain that pods are configured with.
    pub cluster_domain: String,
    /// The files that nodes fetch.
    pub artifacts: Vec<Artifact>,
    /// Keeps the logs on the agents.
    pub keep: bool,
}

/// A pod to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The pod, and the objects that it refers to.
    pub given: GivenPod,
    pub namespace: String,
    pub name: String,
    /// Resources of the pod.
    pub amount: Amount,
    pub ports: Vec<PodPort>,
}

/// An event of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The framework is subscribed; repeated after every lost connection.
    Subscribed,
    Offers(Vec<Offer>),
    /// A task's state.
    Update(Box<TaskStatus>),
    /// A message from a node.
    Message {
        /// Agent of the node.
        agent: String,
        /// Executor of the node.
        executor: String,
        /// The message.
        what: FromNode,
    },
    /// An executor or its agent has ended.
    Ended {
        /// Agent of the executor.
        agent: String,
    },
    /// Agents cannot fetch what they need, with the reason.
    Unreachable(String),
    /// The run's timeout has passed.
    TimeUp,
    /// The operator interrupted the run.
    Interrupted,
    /// Time passed.
    Tick,
}

/// An action for the caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Launch tasks with an offer.
    Accept {
        offer: OfferId,
        /// Tasks to launch.
        tasks: Vec<TaskInfo>,
    },
    /// Decline an offer.
    Decline {
        offer: OfferId,
        /// Seconds for which the resources are not offered again.
        seconds: f64,
    },
    /// Request offers.
    Revive,
    /// Stop offers.
    Suppress,
    /// Acknowledge a state.
    Acknowledge(Box<TaskStatus>),
    /// Request the states of all tasks.
    Reconcile,
    /// Kill a task.
    Kill {
        task: String,
        agent: String,
        /// Time that the task has to stop.
        grace: Duration,
    },
    /// Send a message to a node.
    Send {
        /// Agent of the node.
        agent: String,
        /// Executor of the node.
        executor: String,
        /// The message.
        what: ToNode,
    },
    /// Pass on a container's output.
    Output {
        /// Position of the pod in the file.
        pod: usize,
        container: String,
        /// Whether it was written to standard error.
        error: bool,
        data: Vec<u8>,
    },
    /// Report something to the operator.
    Note(String),
    /// The run is over.
    Finish(Outcome),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every pod ended by itself, with the run's exit code.
    Exit(u8),
    /// The timeout has passed.
    TimeUp,
    /// The operator interrupted the run.
    Interrupted,
    /// Pods could not be run.
    Failed {
        /// One reason for each.
        why: Vec<String>,
        /// Whether an agent could not fetch what it needs.
        fetch: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    Waiting,
    Launched { agent: String, task: String, running: bool },
    Ended(u8),
    Failed { why: String, fetch: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) wanted: Wanted,
    pub(super) stage: Stage,
}

/// The run's node on an agent.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) hostname: String,
    pub(super) executor: ExecutorInfo,
    pub(super) task: String,
    pub(super) alive: bool,
    /// Sequence number of the last output that was passed on.
    heard: u64,
}

impl Node {
    pub(super) fn new(hostname: String, executor: ExecutorInfo, task: String) -> Node {
        Node { hostname, executor, task, alive: true, heard: 0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Running,
    Ending { until: Duration, outcome: Outcome },
    Done,
}

/// One run.
pub struct Run {
    pub(super) settings: Settings,
    pub(super) pods: Vec<Entry>,
    /// By agent.
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) ids: IdSource,
    /// The largest amount that was offered at once while a pod waited.
    pub(super) largest: Amount,
    phase: Phase,
    subscribed: bool,
    said: Option<Duration>,
}

impl Run {
    /// Creates a run of these pods. `seed` must differ between runs, because ids are never reused.
    pub fn new(settings: Settings, pods: Vec<Wanted>, seed: u64) -> Run {
        let pods = pods.into_iter().map(|wanted| Entry { wanted, stage: Stage::Waiting }).collect();
        Run {
            settings,
            pods,
            nodes: BTreeMap::new(),
            ids: IdSource::new(seed),
            largest: Amount::default(),
            phase: Phase::Running,
            subscribed: false,
            said: None,
        }
    }

    /// Handles an event and returns what to do. `now`: time since the start of the run.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        if self.phase == Phase::Done {
            return Vec::new();
        }
        let mut effects = match event {
            Event::Subscribed => {
                let again = std::mem::replace(&mut self.subscribed, true);
                if again { vec![Effect::Reconcile, Effect::Revive] } else { Vec::new() }
            }
            Event::Offers(offers) => offers.into_iter().map(|offer| self.offered(offer)).collect::<Vec<_>>().concat(),
            Event::Update(status) => self.updated(*status),
            Event::Message { agent, executor, what } => self.heard(&agent, &executor, what),
            Event::Ended { agent } => self.node_ended(&agent, "executor exited"),
            Event::Unreachable(why) => self.end(Outcome::Failed { why: vec![why], fetch: true }, now),
            Event::TimeUp => self.end(Outcome::TimeUp, now),
            Event::Interrupted => self.end(Outcome::Interrupted, now),
            Event::Tick => self.tick(now),
        };
        effects.extend(self.settle(now));
        effects
    }

    pub(super) fn ending(&self) -> bool {
        self.phase != Phase::Running
    }

    pub(super) fn waiting(&self) -> bool {
        self.pods.iter().any(|pod| pod.stage == Stage::Waiting)
    }

    /// Advances the phase when there is nothing left to wait for.
    fn settle(&mut self, now: Duration) -> Vec<Effect> {
        match &self.phase {
            Phase::Running => {
                let over = |pod: &Entry| matches!(pod.stage, Stage::Ended(_) | Stage::Failed { .. });
                if !self.pods.iter().all(over) {
                    return Vec::new();
                }
                let failed = self.pods.iter().filter_map(|pod| match &pod.stage {
                    Stage::Failed { why, fetch } => Some((format!("pod {}: {why}", pod.wanted.name), *fetch)),
                    _ => None,
                });
                let (why, fetch): (Vec<String>, Vec<bool>) = failed.unzip();
                let codes = self.pods.iter().filter_map(|pod| match pod.stage {
                    Stage::Ended(code) => Some(code),
                    _ => None,
                });
                let outcome = if why.is_empty() {
                    Outcome::Exit(exit::of_all(codes))
                } else {
                    Outcome::Failed { why, fetch: fetch.contains(&true) }
                };
                let mut effects = self.end(outcome, now);
                effects.extend(self.settle(now));
                effects
            }
            Phase::Ending { until, outcome } if now >= *until || !self.nodes.values().any(|node| node.alive) => {
                let finish = Effect::Finish(outcome.clone());
                self.phase = Phase::Done;
                vec![finish]
            }
            _ => Vec::new(),
        }
    }

    /// Stops all nodes; pods that still run stop with them.
    fn end(&mut self, outcome: Outcome, now: Duration) -> Vec<Effect> {
        if self.ending() {
            return Vec::new();
        }
        self.phase = Phase::Ending { until: now + END_LIMIT, outcome };
        let kill = |(agent, node): (&String, &Node)| Effect::Kill {
            task: node.task.clone(),
            agent: agent.clone(),
            grace: super::place::SHUTDOWN_GRACE,
        };
        let alive = self.nodes.iter().filter(|(_, node)| node.alive);
        std::iter::once(Effect::Suppress).chain(alive.map(kill)).collect()
    }

    fn updated(&mut self, status: TaskStatus) -> Vec<Effect> {
        let mut effects = Vec::new();
        if status.uuid.is_some() {
            effects.push(Effect::Acknowledge(Box::new(status.clone())));
        }
        let task = status.task_id.as_str();
        let node = self.nodes.iter().find(|(_, node)| node.task == task).map(|(agent, _)| agent.clone());
        if let Some(agent) = node {
            if gone_offer(&status) {
                self.nodes.remove(&agent);
            } else if status.state.is_terminal() {
                let why = why(&status);
                effects.extend(self.node_ended(&agent, &why));
            }
            return effects;
        }
        let launched = |pod: &Entry| matches!(&pod.stage, Stage::Launched { task: own, .. } if own == task);
        if let Some(index) = self.pods.iter().position(launched) {
            effects.extend(self.pod_updated(index, &status));
        }
        effects
    }

    fn pod_updated(&mut self, index: usize, status: &TaskStatus) -> Vec<Effect> {
        let Stage::Launched { agent, task, running } = self.pods[index].stage.clone() else { return Vec::new() };
        let name = self.pods[index].wanted.name.clone();
        let host = self.nodes.get(&agent).map_or(agent.clone(), |node| node.hostname.clone());
        match status.state {
            TaskState::Running if !running => {
                self.pods[index].stage = Stage::Launched { agent, task, running: true };
                vec![Effect::Note(format!("pod {name} is running on {host}"))]
            }
            _ if gone_offer(status) && !self.ending() => {
                self.pods[index].stage = Stage::Waiting;
                vec![Effect::Revive]
            }
            state if state.is_terminal() => {
                let end = status.data.as_ref().and_then(|data| serde_json::from_slice::<PodEnd>(&data.0).ok());
                self.pods[index].stage = match end {
                    Some(PodEnd { exit_code }) => Stage::Ended(exit_code),
                    None => {
                        let why = why(status);
                        Stage::Failed { fetch: is_about_fetching(&why), why: format!("on {host}: {why}") }
                    }
                };
                Vec::new()
            }
            TaskState::Unreachable => {
                vec![Effect::Note(format!("{host} is unreachable from Mesos; waiting for it and pod {name}"))]
            }
            _ => Vec::new(),
        }
    }

    /// Handles the loss of a node and its pods. Mesos reports the loss of the node's tasks too, but possibly later.
    fn node_ended(&mut self, agent: &str, why: &str) -> Vec<Effect> {
        let ending = self.ending();
        let Some(node) = self.nodes.get_mut(agent) else { return Vec::new() };
        if !std::mem::replace(&mut node.alive, false) || ending {
            return Vec::new();
        }
        let host = node.hostname.clone();
        for pod in &mut self.pods {
            if matches!(&pod.stage, Stage::Launched { agent: on, .. } if on == agent) {
                let fetch = is_about_fetching(why);
                pod.stage = Stage::Failed { why: format!("node on {host} stopped: {why}"), fetch };
            }
        }
        Vec::new()
    }

    fn heard(&mut self, agent: &str, executor: &str, what: FromNode) -> Vec<Effect> {
        let Some(node) = self.nodes.get_mut(agent).filter(|node| node.executor.executor_id.as_str() == executor) else {
            return Vec::new();
        };
        let send = |what| Effect::Send { agent: agent.to_owned(), executor: executor.to_owned(), what };
        match what {
            FromNode::Wants { uids } => {
                let here = |pod: &&Entry| {
                    let launched = matches!(&pod.stage, Stage::Launched { agent: on, .. } if on == agent);
                    launched && uids.contains(&pod.wanted.given.uid)
                };
                let pods = self.pods.iter().filter(here).map(|pod| pod.wanted.given.clone()).collect();
                vec![send(ToNode::Given { pods })]
            }
            FromNode::Output { sequence, uid, container, error, data } => {
                let mut effects = Vec::new();
                if sequence == node.heard + 1 {
                    node.heard = sequence;
                    let pod = self.pods.iter().position(|pod| pod.wanted.given.uid == uid);
                    effects.extend(pod.map(|pod| Effect::Output { pod, container, error, data: data.0 }));
                }
                // Also sent for a piece that arrived twice: then the answer was lost.
                effects.push(send(ToNode::Heard { sequence: node.heard }));
                effects
            }
            FromNode::Note { text } => vec![Effect::Note(format!("{}: {text}", node.hostname))],
            // Mesos delivers the states, and knows which nodes are alive.
            FromNode::State { .. } | FromNode::Alive { .. } => Vec::new(),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let due = self.said.map_or(now >= SAY_AFTER, |said| now >= said + SAY_AGAIN);
        if self.ending() || !due {
            return Vec::new();
        }
        let Some(first) = self.pods.iter().find(|pod| pod.stage == Stage::Waiting) else { return Vec::new() };
        self.said = Some(now);
        let need = (first.wanted.amount + self.settings.overhead + NODE_TASK).shown();
        let count = self.pods.iter().filter(|pod| pod.stage == Stage::Waiting).count();
        let offered = if self.largest == Amount::default() {
            "no offers yet".to_owned()
        } else {
            format!("largest offer {}", self.largest.shown())
        };
        let ports: Vec<String> =
            first.wanted.ports.iter().filter_map(|port| port.host_port).map(|p| p.to_string()).collect();
        let ports = if ports.is_empty() { String::new() } else { format!(" and host port {}", ports.join(", ")) };
        vec![Effect::Note(format!(
            "{} pending: no sufficient offer for role {}; pod {} needs {need} with its node{ports}, {offered}",
            text::count(count, "pod"),
            self.settings.role,
            first.wanted.name
        ))]
    }
}

/// Whether the offer was gone before its tasks arrived: nothing has happened yet.
fn gone_offer(status: &TaskStatus) -> bool {
    status.state == TaskState::Dropped && status.reason == Some(StatusReason::InvalidOffers)
}

/// Why a task has ended, for people.
fn why(status: &TaskStatus) -> String {
    let message = status.message.clone().filter(|message| !message.is_empty());
    let reason = status.reason.filter(|reason| *reason != StatusReason::Unknown).map(|reason| reason.to_string());
    match (message, reason) {
        (Some(message), Some(reason)) => format!("{message} ({reason})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => status.state.to_string(),
    }
}

#[cfg(test)]
#[path = "framework_tests.rs"]
mod tests;
