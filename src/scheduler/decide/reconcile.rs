//! After a start, and after every new stream to a master: learn every task's state before deciding anything.
use std::time::Duration;

use super::effect::Effect;
use super::state::Scheduler;
use crate::scheduler::time::Time;

/// How long to wait for the master's answers before asking again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A master that still waits for agents to come back does not answer for tasks that it does not know. After this time
/// decisions are taken all the same: a task without an answer counts as living, so nothing is lost by it.
const PATIENCE: Duration = Duration::from_secs(15);

/// What has been learned so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The first list of pods is complete.
    pub pods: bool,
    /// The first list of nodes is complete.
    pub nodes: bool,
    /// The live settings have been read.
    pub bounds: bool,
    /// A master knows us.
    pub subscribed: bool,
    /// When tasks that pods and nodes name, but of which nothing was heard, were last asked for.
    pub asked: Option<Time>,
    tasks: Tasks,
}

#[derive(Clone, Debug, Default)]
enum Tasks {
    #[default]
    NotAsked,
    Asked {
        sentinel: String,
        first: Time,
        last: Time,
    },
    Known,
}

impl Scheduler {
    /// Whether enough is known to decide.
    pub(super) fn acting(&self) -> bool {
        let Known { pods, nodes, bounds, subscribed, tasks, asked: _ } = &self.known;
        *pods && *nodes && *bounds && *subscribed && matches!(tasks, Tasks::Known)
    }

    pub(super) fn subscribed(&mut self) {
        self.known.subscribed = true;
        self.known.tasks = Tasks::NotAsked;
        // Offers belong to the stream they came on. The subscription starts suppressed.
        for agent in self.agents.values_mut() {
            agent.offers.clear();
        }
        self.demand.start_suppressed();
    }

    pub(super) fn disconnected(&mut self) {
        self.known.subscribed = false;
        self.known.tasks = Tasks::NotAsked;
        for agent in self.agents.values_mut() {
            agent.offers.clear();
        }
    }

    /// The master answers in order, so an answer about a task that never was marks the end of all answers before it.
    pub(super) fn sentinel_answered(&mut self, task: &str) {
        if matches!(&self.known.tasks, Tasks::Asked { sentinel, .. } if sentinel == task) {
            self.known.tasks = Tasks::Known;
        }
    }

    pub(super) fn reconcile(&mut self) {
        let Known { pods, nodes, bounds, subscribed, tasks, asked: _ } = &self.known;
        if !(*pods && *nodes && *bounds && *subscribed) {
            return;
        }
        let first = match tasks {
            Tasks::Known => return,
            Tasks::NotAsked => self.now,
            Tasks::Asked { first, .. } if self.now.since(*first) >= PATIENCE => {
                self.known.tasks = Tasks::Known;
                self.push(Effect::Report(
                    "the master did not answer for every task: going on, these count as living".to_owned(),
                ));
                return;
            }
            Tasks::Asked { last, .. } if self.now.since(*last) < ASK_AGAIN => return,
            Tasks::Asked { first, .. } => *first,
        };
        let sentinel = format!("sentinel.{}", self.ids.next_id());
        let mut asked = self.recorded_tasks();
        asked.push((sentinel.clone(), None));
        self.push(Effect::Reconcile(Vec::new()));
        self.push(Effect::Reconcile(asked));
        self.known.tasks = Tasks::Asked { sentinel, first, last: self.now };
    }

    /// Tasks that pods and nodes name, and those that we have launched, with their agents.
    pub(super) fn recorded_tasks(&self) -> Vec<(String, Option<String>)> {
        let agent_of = |node: &str| self.nodes.get(node).map(|node| node.agent.clone());
        let nodes = self.nodes.values().filter_map(|node| Some((node.task.clone()?, Some(node.agent.clone()))));
        let pods = self.pods.values().filter(|pod| pod.facts.occupies());
        let pods = pods.filter_map(|pod| Some((pod.facts.task.clone()?, agent_of(pod.facts.node.as_deref()?))));
        let ours =
            self.tasks.iter().filter(|(_, task)| !task.over()).map(|(id, task)| (id.clone(), task.agent.clone()));
        let all: std::collections::BTreeMap<String, Option<String>> = ours.chain(nodes).chain(pods).collect();
        all.into_iter().collect()
    }
}
