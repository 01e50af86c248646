//! What has to be done about etcd's members: who begins the cluster, who joins it, who leaves it.
use serde::{Deserialize, Serialize};

use super::decide::{Action, Found, HostPlan, PlanError, Step, step};
use super::desired::MEMBER_DATA;
use super::interrupts::quorum;
use crate::host::agent::{EtcdMember, HostManifest, Item, Observed};

/// What has to be done about a host's member of etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdWork {
    /// Nothing.
    #[default]
    None,
    /// It is the first member of a new cluster.
    Bootstrap,
    /// It joins the other members; one at a time.
    Join,
    /// It has data and does not run, or is not healthy. All such members start at once: alone they are no quorum.
    Start,
    /// It runs and is restarted; one at a time.
    Restart,
}

/// A member of etcd that is no host of cluster.yaml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Departure {
    /// Its name.
    pub member: String,
    /// Where the other members reached it.
    pub peers: Vec<String>,
    /// Whether it is removed; else it is only told.
    pub remove: bool,
    /// What that means for the quorum.
    pub arithmetic: String,
}

impl EtcdWork {
    /// Whether nothing has to be done.
    pub fn is_none(&self) -> bool {
        *self == EtcdWork::None
    }

    /// Whether the host has no data yet.
    pub fn is_new(self) -> bool {
        matches!(self, EtcdWork::Bootstrap | EtcdWork::Join)
    }
}

/// Whether the host has been a member.
fn has_data(manifest: &HostManifest, found: &Found) -> bool {
    match found {
        Found::Bare { existing } => existing.contains(MEMBER_DATA),
        Found::Observed(found) => manifest
            .items
            .iter()
            .zip(&found.items)
            .any(|(item, found)| matches!(item, Item::Member(_)) && found.observed.is_same()),
    }
}

/// A member that has not caught up, or is not listed.
fn lacks_vote(manifest: &HostManifest, found: &Found) -> bool {
    let Found::Observed(found) = found else { return false };
    let mut votes = manifest.items.iter().zip(&found.items).filter(|(item, _)| matches!(item, Item::Vote(_)));
    votes.any(|(_, found)| matches!(found.observed, Observed::Different { .. }))
}

/// All members that any host told of.
fn members(hosts: &[(HostManifest, Found)]) -> &[EtcdMember] {
    let told = hosts.iter().filter_map(|(_, found)| match found {
        Found::Observed(found) if !found.members.is_empty() => Some(found.members.as_slice()),
        _ => None,
    });
    told.max_by_key(|members| members.len()).unwrap_or_default()
}

/// Says for every host what becomes of its member, and adds the steps for it.
pub(super) fn assign(
    hosts: &[(HostManifest, Found)],
    plans: &mut [HostPlan],
    unseen: &[String],
    established: bool,
) -> Result<(), PlanError> {
    let with_data = hosts.iter().filter(|(manifest, found)| has_data(manifest, found)).count();
    let listed = members(hosts);
    let mut count = listed.len().max(with_data);
    let mut begun = established || with_data > 0;
    let all = hosts.len() + unseen.len();
    // A cluster whose majority has no data is not alive anywhere; less cannot be known.
    if !begun && !hosts.is_empty() && hosts.len() < quorum(all) {
        return Err(PlanError::NoMajority { all, unseen: unseen.to_vec() });
    }
    for ((manifest, found), plan) in hosts.iter().zip(plans) {
        if !has_data(manifest, found) {
            let name = &manifest.host;
            let lost = listed.iter().any(|member| member.name == *name);
            let (work, made) = if begun {
                let after = if lost { count } else { count + 1 };
                let mut why = vec![arithmetic(count, after)];
                if lost {
                    why.insert(0, "its data are gone: its former membership is replaced".to_owned());
                }
                count = after;
                (EtcdWork::Join, Step { why, ..step(Action::Join, &format!("etcd as {name}")) })
            } else {
                count = 1;
                (EtcdWork::Bootstrap, step(Action::Create, &format!("etcd with {name} as its first member")))
            };
            begun = true;
            let at = plan.steps.iter().position(|step| step.subject == "etcd.service").unwrap_or(plan.steps.len());
            plan.steps.insert(at, made);
            plan.etcd = work;
            continue;
        }
        let of = |subject: &str| plan.steps.iter().find(|step| step.subject == subject).map(|step| step.action);
        plan.etcd = match (of("etcd.service"), of("etcd is healthy")) {
            _ if lacks_vote(manifest, found) => EtcdWork::Join,
            (Some(Action::Restart), _) => EtcdWork::Restart,
            (Some(_), _) | (None, Some(_)) => EtcdWork::Start,
            (None, None) => EtcdWork::None,
        };
    }
    Ok(())
}

/// Members that cluster.yaml does not name. One at a time leaves, and `count` goes down with each.
pub(super) fn departures(hosts: &[(HostManifest, Found)], unseen: &[String], remove: bool) -> Vec<Departure> {
    let members = members(hosts);
    let mut count = members.len();
    let named = |name: &str| unseen.iter().any(|host| host == name) || hosts.iter().any(|(host, _)| host.host == name);
    let mut gone = Vec::new();
    // One without a name was never started: whoever registered it goes on with it.
    for member in members.iter().filter(|member| !member.name.is_empty() && !named(&member.name)) {
        let arithmetic = arithmetic(count, count.saturating_sub(1));
        count = count.saturating_sub(1);
        let (member, peers) = (member.name.clone(), member.peers.clone());
        gone.push(Departure { member, peers, remove, arithmetic });
    }
    gone
}

/// `members 1 → 2, quorum 2, stands the loss of 0`
fn arithmetic(before: usize, after: usize) -> String {
    let quorum = quorum(after);
    format!("members {before} → {after}, quorum {quorum}, stands the loss of {}", after.saturating_sub(quorum))
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;
