//! What stands in the way of something, in a form that is the same for people and for programs.
use serde::Serialize;

/// What kind of thing stands in the way. The names are stable: scripts may go by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// km scheduler does not run, cannot be asked, or has no connection to Mesos.
    Scheduler,
    /// Mesos could not be asked, or does not know the framework.
    Mesos,
    /// The pod is meant for another scheduler, or its gates are closed.
    NotOurs,
    /// No agent is large enough.
    TooLarge,
    /// An agent would be large enough, but others use it.
    Taken,
    /// Mesos reserves the resources for another role.
    Role,
    /// The role's quota is used up.
    Quota,
    /// No agent has what the pod asks for by its selectors.
    Attribute,
    /// `nodes.constraints` exclude the agent.
    Constraint,
    /// Ports that no agent grants.
    Ports,
    /// `nodes.max` is reached.
    NodesMax,
    /// Devices, hugepages or resource claims, which nothing grants.
    Ungranted,
    /// Too few agents for `nodes.min`.
    Agents,
    /// Kubernetes' own rules, in kube-scheduler's words.
    Rules,
    /// A PodDisruptionBudget allows no eviction.
    Budget,
    /// Nobody would make the pod again.
    NoController,
    /// Pods that use the node.
    Pods,
    /// `nodes.min` keeps the node.
    NodesMin,
    /// Only time is missing.
    Time,
    /// A pod is ending.
    Ending,
    /// An image cannot be pulled.
    ImagePull,
    /// A container cannot be made or does not stay up.
    Container,
    /// A node could not start.
    Bootstrap,
    /// The node is not ready, or about to go.
    Node,
    /// Nobody asks for the offer.
    NoDemand,
    /// The agent does not take part in Mesos.
    Agent,
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Of which kind.
    pub kind: Kind,
    /// What, with figures.
    pub what: String,
    /// What can be done about it; empty where waiting is all.
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

impl Reason {
    /// A reason with what can be done about it.
    pub fn new(kind: Kind, what: impl Into<String>, cure: impl Into<String>) -> Reason {
        Reason { kind, what: what.into(), cure: cure.into() }
    }

    /// A reason that goes by itself.
    pub fn passing(kind: Kind, what: impl Into<String>) -> Reason {
        Reason::new(kind, what, "")
    }
}

/// The answer to `why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What was asked about, e.g. `pod default/web`.
    pub about: String,
    /// How it is doing, in a sentence.
    pub state: String,
    /// What stands in the way, the most important first.
    pub reasons: Vec<Reason>,
    /// What others said about it, word for word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
}

impl Answer {
    /// For people.
    pub fn text(&self) -> String {
        let Answer { about, state, reasons, said } = self;
        let mut text = format!("{about}: {state}\n");
        for Reason { kind: _, what, cure } in reasons {
            text.push_str(&format!("  - {what}\n"));
            if !cure.is_empty() {
                text.push_str(&format!("    do: {cure}\n"));
            }
        }
        for line in said {
            text.push_str(&format!("  > {line}\n"));
        }
        text
    }
}
