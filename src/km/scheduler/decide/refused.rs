//! Why a node is not eligible for a pod, in the texts that kube-scheduler gets.
//!
//! kube-scheduler writes these texts into the pod's condition `PodScheduled`. Its own write wakes the pod, and since
//! 1.33 a woken pod is not delayed while no other pod is queued: a text that differs from try to try is tried again
//! without pause. So there is one fixed text per reason, without figures and names. Those are in the pod's own event,
//! which km scheduler writes rarely, and in `kmctl why`. docs/scheduler.md lists the same texts.

/// A reason against a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// The Node object does not belong to this cluster.
    Stranger,
    /// Nothing is decided before Mesos has reported what runs.
    NotConnected,
    /// The node accepts no pods any more.
    Leaving,
    /// The pod is assigned to another node.
    Elsewhere,
    /// The pod requests devices, hugepages or resource claims.
    Ungranted,
    /// Pods of DaemonSets do not start nodes.
    NotStarted,
    /// The topology spread needs domains whose agents have no node yet.
    Waking,
    /// Another node was chosen for kube-scheduler, so that the next pod can be counted.
    Chosen,
    /// The agent has less in total than the pod requests.
    TooLarge,
    /// The agent's offers do not cover the pod.
    NotOffered,
    /// The agent does not have these host ports, or not enough of them.
    NeverPorts,
    /// Other pods use the agent's host ports.
    SpentPorts,
    /// The agent's offers do not cover the pod's host ports.
    PortsNotOffered,
}

impl Refused {
    pub const ALL: [Refused; 13] = [
        Refused::Stranger,
        Refused::NotConnected,
        Refused::Leaving,
        Refused::Elsewhere,
        Refused::Ungranted,
        Refused::NotStarted,
        Refused::Waking,
        Refused::Chosen,
        Refused::TooLarge,
        Refused::NotOffered,
        Refused::NeverPorts,
        Refused::SpentPorts,
        Refused::PortsNotOffered,
    ];

    /// The text that kube-scheduler gets.
    pub const fn text(self) -> &'static str {
        match self {
            Refused::Stranger => "node does not stand for a Mesos agent of this cluster",
            Refused::NotConnected => "km scheduler has no connection to Mesos yet",
            Refused::Leaving => "node is leaving",
            Refused::Elsewhere => "the pod's Mesos task is on its way to another node",
            Refused::Ungranted => "nothing grants the devices, hugepages or resource claims that the pod asks for",
            Refused::NotStarted => "node not started",
            Refused::Waking => "waking Mesos agents in other topology domains",
            Refused::Chosen => "another node is chosen while not every topology domain has a node",
            Refused::TooLarge => "Mesos: the agent is smaller than the pod",
            Refused::NotOffered => "Mesos: too little cpu or memory offered",
            Refused::NeverPorts => "Mesos: the agent does not have the host ports",
            Refused::SpentPorts => "Mesos: other pods have the host ports",
            Refused::PortsNotOffered => "Mesos: host ports are not offered",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_text_is_fixed_and_documented_and_no_two_are_alike() {
        let documented = include_str!("../../../../docs/scheduler.md");
        let mut texts = BTreeSet::new();
        for (index, reason) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?} is missing in the list, or out of order");
            let text = reason.text();
            assert!(!text.chars().any(|character| character.is_ascii_digit()), "{text}");
            assert!(documented.contains(&format!("| {text} |")), "docs/scheduler.md does not list: {text}");
            assert!(texts.insert(text), "{text}");
        }
        assert_eq!(Refused::PortsNotOffered as usize + 1, Refused::ALL.len());
    }
}
