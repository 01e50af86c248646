//! What blocks something, in the same form for text and JSON output.
use serde::Serialize;

/// The kind of obstacle. The names are stable: scripts may rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The km scheduler does not run, cannot be queried, or has no connection to Mesos.
    Scheduler,
    /// Mesos could not be queried, or does not know the framework.
    Mesos,
    /// The pod is meant for another scheduler, or its gates are closed.
    NotOurs,
    /// No agent is large enough.
    TooLarge,
    /// An agent would be large enough, but is in use by others.
    Taken,
    /// Mesos reserves the resources for another role.
    Role,
    /// The role's quota is used up.
    Quota,
    /// No agent matches the pod's selectors.
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
    /// Kubernetes' own rules, as reported by kube-scheduler.
    Rules,
    /// A PodDisruptionBudget allows no eviction.
    Budget,
    /// Without a controller, the pod would not be recreated.
    NoController,
    /// Pods that use the node.
    Pods,
    /// `nodes.min` keeps the node.
    NodesMin,
    /// It only takes time.
    Time,
    /// A pod is stopping.
    Ending,
    /// An image cannot be pulled.
    ImagePull,
    /// A container cannot be created or does not keep running.
    Container,
    /// A node could not start.
    Bootstrap,
    /// The node is not ready, or is about to be removed.
    Node,
    /// No pod needs the offer.
    NoDemand,
    /// The agent is not active in Mesos.
    Agent,
}

/// One obstacle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    pub kind: Kind,
    /// The obstacle, with figures.
    pub what: String,
    /// What can be done about it. Empty if only waiting helps.
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub cure: String,
}

impl Reason {
    /// A reason with what can be done about it.
    pub fn new(kind: Kind, what: impl Into<String>, cure: impl Into<String>) -> Reason {
        Reason { kind, what: what.into(), cure: cure.into() }
    }

    /// A reason that resolves itself.
    pub fn passing(kind: Kind, what: impl Into<String>) -> Reason {
        Reason::new(kind, what, "")
    }
}

/// The answer to `why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The object in question, e.g. `pod default/web`.
    pub about: String,
    /// Its state, in a sentence.
    pub state: String,
    /// What blocks it, the most important reason first.
    pub reasons: Vec<Reason>,
    /// What others reported about it, verbatim.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
}

impl Answer {
    /// Formats the answer as text.
    pub fn text(&self) -> String {
        let Answer { about, state, reasons, said } = self;
        let mut text = format!("{about} {state}\n");
        for Reason { kind: _, what, cure } in reasons {
            text.push_str(&format!("  - {what}\n"));
            if !cure.is_empty() {
                text.push_str(&format!("    hint: {cure}\n"));
            }
        }
        for line in said {
            text.push_str(&format!("  > {line}\n"));
        }
        text
    }
}
