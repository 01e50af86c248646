//! Why an agent's host ports do not do for a pod: never, or not while other pods have them. Both are known without an
//! offer, which Mesos does not make again and again to those whom it does not help.
use super::scheduler::Scheduler;
use kmctl_core::model::agents::Agent;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Ports;

impl Scheduler {
    fn ports_to_give<'a>(&self, agent: &'a Agent) -> Option<&'a Ports> {
        agent.total_ports.as_ref().filter(|_| self.grants_ports(agent))
    }

    /// Why the agent could never give the pod its host ports.
    pub(super) fn never_ports(&self, agent: &Agent, pod: &PodFacts) -> Option<String> {
        agent.impossible_ports(pod).or_else(|| {
            let total = self.ports_to_give(agent)?;
            let (need, most) = (pod.ports_to_grant(), pod.left_to_grant(total));
            (need > most).then(|| format!("{need} host ports needed, Mesos has {most} there: ports {total}"))
        })
    }

    /// Why the agent cannot give the pod its host ports beside the pods that are there.
    pub(super) fn spent_ports(&self, agent: &Agent, pod: &PodFacts) -> Option<String> {
        let total = self.ports_to_give(agent)?;
        let node = self.node_on(&agent.id)?;
        let there = self.pods.values().map(|entry| &entry.facts);
        let there =
            there.filter(|other| other.uid != pod.uid && other.occupies() && other.node.as_deref() == Some(node));
        let taken: usize = there.map(|other| other.ports_to_grant() + other.host_ports().count()).sum();
        let (need, left) = (pod.ports_to_grant(), pod.left_to_grant(total).saturating_sub(taken));
        (need > left).then(|| format!("{left} of {} host ports free, {need} needed", total.count()))
    }
}
