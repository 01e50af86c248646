//! Why an agent's host ports are insufficient for a pod: never sufficient, or not while other pods use them. Both are
//! known without an offer. That is needed because Mesos does not repeat offers to a framework that does not use them.
use super::parts::PodEntry;
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

    /// Why the agent cannot give the pod its host ports in addition to those of the pods that run there.
    pub(super) fn insufficient_ports(&self, agent: &Agent, pod: &PodFacts) -> Option<String> {
        let total = self.ports_to_give(agent)?;
        let node = self.nodes.on_agent(&agent.id)?;
        let there = self.pods.values().map(PodEntry::facts);
        let there =
            there.filter(|other| other.uid != pod.uid && other.occupies() && other.node.as_deref() == Some(node));
        let taken: usize = there.map(|other| other.ports_to_grant() + other.host_ports().count()).sum();
        let (need, left) = (pod.ports_to_grant(), pod.left_to_grant(total).saturating_sub(taken));
        (need > left).then(|| format!("{left} of {} host ports free, {need} needed", total.count()))
    }
}
