//! What blocks a pod, a node or an offer, derived from facts. No I/O, no clock, no randomness.
//!
//! - `pod`: why it does not run; `places`: what rules out each agent;
//! - `node`: why it does not start, or is not removed; `drain`: what keeps the pods of a leaving node;
//! - `offer`: why an agent's resources are not used.
mod drain;
mod node;
mod offer;
mod places;
mod pod;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::inventory::bounds::Bounds;
use crate::inventory::mesos::{Agent, EndedTask, Master};
use crate::inventory::workloads::{ObjectEvent, Workloads};
use kmctl_core::cluster::Cluster;
use kmctl_core::model::requests::{NODE_TASK, amount};
use kmctl_core::model::resources::{Amount, to_thousandths};
use kmctl_core::protocol::Summary;
use kmctl_core::text::duration;

use crate::diagnose::{Kind, Reason};

pub(crate) use drain::{keeping, pods};
pub(crate) use node::node;
pub(crate) use offer::offer;
pub(crate) use places::figures;
pub(crate) use pod::pod;

/// All collected facts. For a source that could not be queried, the reason is given instead.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) bounds: Bounds,
    pub(crate) seen: &'a Workloads,
    pub(crate) master: Result<&'a Master, &'a str>,
    pub(crate) scheduler: Result<&'a Summary, &'a str>,
    /// Events of the object in question, the newest last.
    pub(crate) events: &'a [ObjectEvent],
    /// The framework's tasks that have ended, the newest last.
    pub(crate) ended: &'a [EndedTask],
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// Whether another node may start.
    fn room_for_a_node(&self) -> bool {
        self.bounds.max.is_none_or(|max| self.seen.nodes.len() < max as usize)
    }

    /// What prevents the km scheduler from deciding anything.
    fn scheduler_trouble(&self) -> Option<Reason> {
        let (what, cure) = match self.scheduler {
            Err(why) => (format!("km-scheduler is not responding: {why}"), "kmctl logs km-scheduler"),
            Ok(summary) if !summary.acting => (
                "km-scheduler is not connected to Mesos, or is waiting for the state of its tasks".to_owned(),
                "check Mesos with kmctl check, and the log with kmctl logs km-scheduler",
            ),
            Ok(_) => return None,
        };
        Some(Reason::new(Kind::Scheduler, what, cure))
    }

    /// The time since then: `3m10s`.
    fn since(&self, then: Option<Timestamp>) -> String {
        then.map_or("an unknown time".to_owned(), |then| span(self.now.as_second() - then.as_second()))
    }
}

/// What a node takes without pods.
pub(crate) fn empty_node(cluster: &Cluster) -> Amount {
    let overhead = &cluster.spec.nodes.overhead;
    // Checked when the file was read.
    amount(&overhead.cpu, &overhead.memory).unwrap_or_default() + NODE_TASK
}

/// Formats seconds. A negative number, of clocks that differ, counts as none.
pub(crate) fn span(seconds: i64) -> String {
    duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// All of an agent's resources.
pub(crate) fn total(agent: &Agent) -> Amount {
    Amount { cpus: to_thousandths(agent.resources.cpus), mem: to_thousandths(agent.resources.mem) }
}

/// An agent's currently unused resources.
pub(crate) fn free(agent: &Agent) -> Amount {
    let part = |all: f64, used: f64| to_thousandths(all - used).max(0);
    Amount { cpus: part(agent.resources.cpus, agent.used.cpus), mem: part(agent.resources.mem, agent.used.mem) }
}

#[cfg(test)]
mod tests;
