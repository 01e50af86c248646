//! After a start, and after every new stream to a master: learn every task's state before deciding anything.
use super::effect::{Effect, MesosCall};
use super::parts::{Next, PodEntry};
use super::scheduler::Scheduler;

impl Scheduler {
    /// Whether enough is known to decide.
    pub(super) fn acting(&self) -> bool {
        self.known.is_complete()
    }

    pub(super) fn subscribed(&mut self) {
        self.known.subscribe();
        // Offers are only valid on their own stream. The new subscription starts suppressed.
        self.agents.void_offers();
        self.failed_returns.void();
        self.demand.start_suppressed();
    }

    pub(super) fn disconnected(&mut self) {
        self.known.disconnect();
        self.agents.void_offers();
        self.failed_returns.void();
    }

    pub(super) fn reconcile(&mut self) {
        match self.known.next(self.now) {
            Next::Nothing => {}
            Next::GiveUp => self.push(Effect::Report(
                "the master did not answer for every task: going on, these count as living".to_owned(),
            )),
            Next::Ask => {
                let sentinel = format!("sentinel.{}", self.ids.next_id());
                let mut asked = self.recorded_tasks();
                asked.push((sentinel.clone(), None));
                self.push(Effect::Mesos(MesosCall::Reconcile(Vec::new())));
                self.push(Effect::Mesos(MesosCall::Reconcile(asked)));
                self.known.asked(sentinel, self.now);
            }
        }
    }

    /// Tasks that pods and nodes name, and those that we have launched, with their agents.
    pub(super) fn recorded_tasks(&self) -> Vec<(String, Option<String>)> {
        let agent_of = |node: &str| self.nodes.get(node).map(|node| node.agent().to_owned());
        let nodes =
            self.nodes.values().filter_map(|node| Some((node.task()?.to_owned(), Some(node.agent().to_owned()))));
        let pods = self.pods.values().map(PodEntry::facts).filter(|pod| pod.occupies());
        let pods = pods.filter_map(|pod| Some((pod.task.clone()?, agent_of(pod.node.as_deref()?))));
        let ours = self.tasks.iter().filter(|(_, task)| !task.is_terminal());
        let ours = ours.map(|(id, task)| (id.clone(), task.agent().map(str::to_owned)));
        let all: std::collections::BTreeMap<String, Option<String>> = ours.chain(nodes).chain(pods).collect();
        all.into_iter().collect()
    }
}
