//! What must be done about etcd's members: which host bootstraps the cluster, which hosts join it, which members are
//! removed.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::decide::{Action, Draft, Drafted, ExistingCluster, PlanContext, Step, step};
use super::error::PlanError;
use super::interrupts::quorum;
use crate::inventory::Found;
use kmctl_core::protocol::host::{
    BootstrapClaim, DataState, ETCD_DATA, EtcdMember, HostManifest, Item, Loss, Observed, Planned, Section,
};
use kmctl_core::text::count;

/// What must be done about a host's etcd member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdWork {
    /// Nothing.
    #[default]
    None,
    /// It is the first member of a new cluster.
    Bootstrap,
    /// It joins the other members, one at a time.
    Join,
    /// It has data and does not run, or is not healthy. All such members start at once: alone they have no quorum.
    Start,
    /// It runs and is restarted, one at a time.
    Restart,
}

/// An etcd member that is not a host of cluster.yaml.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdRemoval {
    /// The member's name.
    pub member: String,
    /// The URLs under which the other members reached it.
    pub peers: Vec<String>,
    /// Whether it is removed. Otherwise it is only reported.
    pub remove: bool,
    /// The effect on the quorum.
    pub arithmetic: String,
}

impl EtcdWork {
    /// Whether nothing must be done.
    pub fn is_none(&self) -> bool {
        *self == EtcdWork::None
    }

    /// Whether the host has no data yet.
    pub fn is_new(self) -> bool {
        matches!(self, EtcdWork::Bootstrap | EtcdWork::Join)
    }
}

/// A member that has not caught up, or is not listed.
fn lacks_vote(manifest: &HostManifest, found: &Found) -> bool {
    let Found::Observed(found) = found else { return false };
    let mut votes = manifest.items.iter().zip(&found.items).filter(|(item, _)| matches!(item, Item::Vote(_)));
    votes.any(|(_, found)| matches!(found.observed, Observed::Different { .. }))
}

/// Whether the host has its vote, but its first start has not been completed.
fn is_unfinished(manifest: &HostManifest, found: &Found) -> bool {
    let Found::Observed(found) = found else { return false };
    let votes = found.members.iter().any(|member| !member.learner && member.name == manifest.host);
    votes && found.etcd_data.record.as_ref().is_some_and(|data| !data.started)
}

/// Whether a step is for etcd's own unit, or for its health check.
fn is_etcd(drafted: &Drafted<'_>, planned: Planned) -> bool {
    drafted.item.is_some_and(|item| item.section() == Section::Etcd && item.planned() == planned)
}

/// The longest list of members that any host reported.
fn members(hosts: &[(HostManifest, Found)]) -> &[EtcdMember] {
    let told = hosts.iter().filter_map(|(_, found)| match found {
        Found::Observed(found) if !found.members.is_empty() => Some(found.members.as_slice()),
        _ => None,
    });
    told.max_by_key(|members| members.len()).unwrap_or_default()
}

/// The host that bootstraps etcd's cluster, as recorded on this host.
fn recorded(found: &Found) -> Option<&str> {
    match found {
        Found::Observed(found) => found.founder.as_deref(),
        Found::Bare(_) => None,
    }
}

/// Two hosts whose member lists have no member in common. They belong to different clusters, because every change of a
/// cluster keeps most of its members.
fn two_clusters(hosts: &[(HostManifest, Found)]) -> Option<[String; 2]> {
    let lists = hosts.iter().filter_map(|(manifest, found)| match found {
        Found::Observed(found) if !found.members.is_empty() => Some((&manifest.host, &found.members)),
        _ => None,
    });
    let mut lists = lists.map(|(host, members)| (host, members.iter().map(|one| &one.id).collect::<BTreeSet<_>>()));
    let (first, known) = lists.next()?;
    let (other, _) = lists.find(|(_, members)| members.is_disjoint(&known))?;
    Some([first.clone(), other.clone()])
}

/// Hosts on which etcd had data that are not there any more.
fn losses(hosts: &[(HostManifest, Found)]) -> impl Iterator<Item = (&str, Loss)> {
    hosts.iter().filter_map(|(manifest, found)| match found.etcd_data().state() {
        DataState::Lost(loss) => Some((manifest.host.as_str(), loss)),
        DataState::None | DataState::Present => None,
    })
}

/// An empty cluster must not take the place of one that was, or may be, there: Mesos would kill every task of it.
fn refuse_over_an_older_cluster(
    hosts: &[(HostManifest, Found)],
    unseen: &[String],
    framework: Option<&str>,
    founder: &str,
) -> Result<(), PlanError> {
    let lost: Vec<(String, Loss)> = losses(hosts).map(|(host, loss)| (host.to_owned(), loss)).collect();
    if !lost.is_empty() {
        return Err(PlanError::DataLost { lost });
    }
    if let Some(framework) = framework {
        let (framework, unseen) = (framework.to_owned(), unseen.to_vec());
        return Err(PlanError::Elsewhere { framework, unseen });
    }
    // If most hosts have recorded who bootstraps the cluster, no other cluster can exist on the hosts of the file. Without
    // that record an unseen host may have been the only host of an older cluster.
    let agreed = hosts.iter().filter(|(_, found)| recorded(found) == Some(founder)).count();
    if !unseen.is_empty() && agreed < quorum(hosts.len() + unseen.len()) {
        return Err(PlanError::MayHaveData { unseen: unseen.to_vec() });
    }
    Ok(())
}

/// A host without data that has the address of a member with another name. Cleaning up that member would clean up the new
/// host, and joining would remove the member.
fn address_of_member(hosts: &[(HostManifest, Found)], listed: &[EtcdMember]) -> Option<(String, String)> {
    hosts.iter().filter(|(manifest, found)| !found.has_etcd_data(manifest)).find_map(|(manifest, _)| {
        let peer = &manifest.member()?.peer;
        let other = |one: &&EtcdMember| !one.name.is_empty() && one.name != manifest.host && one.peers.contains(peer);
        let member = listed.iter().find(other)?;
        Some((manifest.host.clone(), member.name.clone()))
    })
}

/// Chooses the host that bootstraps the cluster. If a majority of all hosts has recorded one host, that host may have
/// bootstrapped already, no matter which hosts answer. A host with so many records that the unseen hosts could complete
/// a majority is the only one that may bootstrap.
fn elect(hosts: &[(HostManifest, Found)], unseen: &[String]) -> Result<String, PlanError> {
    let majority = quorum(hosts.len() + unseen.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for founder in hosts.iter().filter_map(|(_, found)| recorded(found)) {
        *counts.entry(founder).or_default() += 1;
    }
    let seen = |name: &str| hosts.iter().any(|(manifest, _)| manifest.host == name);
    let possible: Vec<&str> =
        counts.iter().filter(|(_, count)| **count + unseen.len() >= majority).map(|(name, _)| *name).collect();
    match possible[..] {
        [] => {
            // No host has bootstrapped. The one that most hosts have recorded needs the fewest changes.
            let most = counts.into_iter().filter(|(name, _)| seen(name)).max_by_key(|(_, count)| *count);
            let first = || hosts.first().map(|(manifest, _)| manifest.host.as_str());
            Ok(most.map(|(name, _)| name).or_else(first).unwrap_or_default().to_owned())
        }
        [founder] if seen(founder) => Ok(founder.to_owned()),
        [founder] if !unseen.iter().any(|host| host == founder) => {
            Err(PlanError::Unnamed { founder: founder.to_owned() })
        }
        _ => {
            let founders = possible.iter().map(|name| (*name).to_owned()).collect();
            Err(PlanError::Founder { founders, unseen: unseen.to_vec() })
        }
    }
}

/// Decides what happens to every host's member, and adds the steps for it. Returns the host that bootstrapped the
/// cluster, or bootstraps it.
pub(super) fn assign(
    hosts: &[(HostManifest, Found)],
    drafts: &mut [Draft<'_>],
    context: &PlanContext,
) -> Result<Option<String>, PlanError> {
    let PlanContext { unseen, existing, framework, allow_remove: _, begin_anew } = context;
    if let Some(hosts) = two_clusters(hosts) {
        return Err(PlanError::TwoClusters { hosts });
    }
    let with_data = hosts.iter().filter(|(manifest, found)| found.has_etcd_data(manifest)).count();
    let listed = members(hosts);
    if let Some((host, member)) = address_of_member(hosts, listed) {
        return Err(PlanError::AddressOfMember { host, member });
    }
    let mut count = listed.len().max(with_data);
    // Members that are not known to have lost their data may still answer.
    let voters = listed.iter().filter(|member| !member.learner).count();
    let lost = hosts.iter().filter(|(manifest, found)| {
        !found.has_etcd_data(manifest) && listed.iter().any(|member| !member.learner && member.name == manifest.host)
    });
    let lost: Vec<String> = lost.map(|(manifest, _)| manifest.host.clone()).collect();
    if voters.saturating_sub(lost.len()) < quorum(voters) && !lost.is_empty() {
        return Err(PlanError::NoQuorum { members: voters, lost });
    }
    let all = hosts.len() + unseen.len();
    let begun = existing.is_some() || with_data > 0 || hosts.is_empty();
    // A cluster whose majority has no data cannot be running anywhere. With fewer hosts inspected, this is unknown.
    if !begun && hosts.len() < quorum(all) {
        return Err(PlanError::NoMajority { all, unseen: unseen.clone() });
    }
    if let Some((host, loss)) = losses(hosts).find(|(_, loss)| loss.may_return()) {
        return Err(PlanError::DataAway { host: host.to_owned(), loss });
    }
    let founder = match existing {
        _ if !begun => {
            let founder = elect(hosts, unseen)?;
            if !begin_anew {
                refuse_over_an_older_cluster(hosts, unseen, framework.as_deref(), &founder)?;
            }
            count = 1;
            Some(founder)
        }
        Some(ExistingCluster { begins: true, founder, .. }) if with_data > 0 => {
            let host = hosts.first().map(|(manifest, _)| manifest.host.clone()).unwrap_or_default();
            return Err(PlanError::TwoClusters { hosts: [founder.clone().unwrap_or_default(), host] });
        }
        Some(ExistingCluster { founder, .. }) => founder.clone(),
        None => {
            let mut members = hosts.iter().filter(|(manifest, found)| found.has_etcd_data(manifest));
            members.find_map(|(_, found)| recorded(found)).map(str::to_owned)
        }
    };
    let begins = founder.as_deref().filter(|_| !begun);
    let agreed = hosts.iter().filter(|(manifest, found)| {
        begins.is_some_and(|founder| manifest.host != founder && recorded(found) == Some(founder))
    });
    // The founder itself has recorded it before it bootstraps.
    let agreement = quorum(all).saturating_sub(1 + agreed.count());
    for ((manifest, found), Draft { plan, steps }) in hosts.iter().zip(drafts) {
        let host = &manifest.host;
        let data = found.has_etcd_data(manifest);
        plan.founding = founder
            .as_ref()
            .filter(|name| !data && recorded(found) != Some(name.as_str()))
            .map(|name| BootstrapClaim { name: name.clone(), instead_of: recorded(found).map(str::to_owned) });
        if data {
            let action = |planned| steps.iter().find(|step| is_etcd(step, planned)).map(|drafted| drafted.step.action);
            plan.etcd = match (action(Planned::Running), action(Planned::Awaited)) {
                _ if lacks_vote(manifest, found) && !is_unfinished(manifest, found) => EtcdWork::Join,
                (Some(Action::Restart), _) => EtcdWork::Restart,
                (Some(_), _) | (None, Some(_)) => EtcdWork::Start,
                (None, None) if is_unfinished(manifest, found) => EtcdWork::Start,
                (None, None) => EtcdWork::None,
            };
            continue;
        }
        let (work, made) = if begins == Some(host) {
            plan.agreement = agreement;
            (EtcdWork::Bootstrap, step(Action::Create, &format!("etcd with {host} as its first member")))
        } else {
            let lost = listed.iter().any(|member| member.name == *host);
            let after = if lost { count } else { count + 1 };
            let mut why = vec![arithmetic(count, after)];
            if lost {
                let state = match found.etcd_data().state() {
                    DataState::Lost(loss) => format!("{ETCD_DATA} {loss}"),
                    DataState::None | DataState::Present => "its data is lost".to_owned(),
                };
                why.insert(0, format!("{state}; its former membership is replaced"));
            }
            count = after;
            (EtcdWork::Join, Step { why, ..step(Action::Join, &format!("etcd as {host}")) })
        };
        let at = steps.iter().position(|step| is_etcd(step, Planned::Running)).unwrap_or(steps.len());
        steps.insert(at, Drafted { item: None, step: made });
        plan.etcd = work;
    }
    Ok(founder)
}

/// Members that cluster.yaml does not name. They are removed one at a time, and `count` decreases with each.
pub(super) fn departures(hosts: &[(HostManifest, Found)], unseen: &[String], remove: bool) -> Vec<EtcdRemoval> {
    let members = members(hosts);
    let mut count = members.len();
    let named = |name: &str| unseen.iter().any(|host| host == name) || hosts.iter().any(|(host, _)| host.host == name);
    let mut gone = Vec::new();
    // A member without a name was never started: the run that registered it will continue with it.
    for member in members.iter().filter(|member| !member.name.is_empty() && !named(&member.name)) {
        let arithmetic = arithmetic(count, count.saturating_sub(1));
        count = count.saturating_sub(1);
        let (member, peers) = (member.name.clone(), member.peers.clone());
        gone.push(EtcdRemoval { member, peers, remove, arithmetic });
    }
    gone
}

/// Formats a change: `members 1 → 2, quorum 2, tolerates 0 failures`.
fn arithmetic(before: usize, after: usize) -> String {
    let quorum = quorum(after);
    let tolerated = count(after.saturating_sub(quorum), "failure");
    format!("members {before} → {after}, quorum {quorum}, tolerates {tolerated}")
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;
