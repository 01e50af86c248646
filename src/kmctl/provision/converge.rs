//! Brings the hosts to the state in the plan, including those that answer late, and cleans up hosts that are no longer
//! members.
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;

use super::desired_state::DesiredState;
use super::inspect::{self, InspectedHost, Inspecting, Inspection};
use super::session::Session;
use crate::apply::{self, ApplyError, Counts, HostOutcome, HostState, Late, Member, Removing, Report, Work};
use crate::host::Host;
use crate::inventory::look;
use crate::plan::{ExistingCluster, Plan, PlanContext};
use kmctl_core::cluster::{HostSpec, Loaded};
use kmctl_core::protocol::host::{HostManifest, Removal};

/// Carries out the plan on every host, including those that answer meanwhile.
pub(super) async fn converge(session: &Session, plan: &Plan, inspection: Inspection, work: &Work) -> Report {
    let Inspection { inspected, late, failed } = inspection;
    let others: Vec<String> = inspected.iter().map(|one| one.manifest.host.clone()).collect();
    let members = inspected.into_iter().filter_map(|one| {
        let plan = plan.hosts.iter().find(|plan| plan.host == one.manifest.host)?.clone();
        let InspectedHost { host, manifest, found } = one;
        Some(Member { host, manifest, found, plan })
    });
    let yes = session.assume_yes;
    let late = late.into_iter().map(|(manifest, task)| {
        let (host, others, km) = (manifest.host.clone(), others.clone(), work.km.1.clone());
        let id = Some(work.cluster_id.clone());
        let existing = ExistingCluster { id, founder: plan.founder.clone(), begins: plan.begins() };
        Late { host, arrival: Box::pin(async move { arrival(task, manifest, (others, existing), &km, yes).await }) }
    });
    let departures = plan.departures.iter().filter(|one| one.remove).map(|one| one.member.clone()).collect();
    let mut report = apply::run(members.collect(), late.collect(), departures, work).await;
    report.hosts.extend(failed.into_iter().map(|(host, error)| HostOutcome {
        host,
        state: HostState::Failed,
        counts: Counts::default(),
        took: Duration::ZERO,
        error: Some(error),
    }));
    report
}

/// A host that was not there when the plan was made: it is planned for separately, as one that joins the others.
async fn arrival(
    task: Inspecting,
    manifest: HostManifest,
    (others, existing): (Vec<String>, ExistingCluster),
    km: &str,
    yes: bool,
) -> Result<Member, ApplyError> {
    let name = manifest.host.clone();
    let InspectedHost { host, found, .. } = inspect::arrived(&name, task).await?;
    let context = PlanContext { unseen: others, existing: Some(existing), ..PlanContext::default() };
    let mut plan = crate::plan::decide(&[(manifest.clone(), found.clone())], km, &context)
        .map_err(|source| ApplyError::Plan { host: name.clone(), source })?;
    let interruptions = plan.interruptions();
    if !interruptions.is_empty() && !yes {
        return Err(ApplyError::Unasked { host: name, what: interruptions.join(", ") });
    }
    let plan = plan.hosts.pop().unwrap_or_default();
    Ok(Member { host, manifest, found, plan })
}

/// Removes what `up` installed from hosts that are no longer members. Often such a host cannot be reached, because it
/// was removed from cluster.yaml after it was lost.
pub(super) async fn retire(
    session: &Session,
    loaded: &Loaded,
    desired: &DesiredState,
    plan: &Plan,
    departed: usize,
    work: &Work,
) {
    for one in plan.departures.iter().filter(|one| one.remove).take(departed) {
        let Some(address) = one.peers.first().and_then(|peer| address_of(peer)) else { continue };
        if let Some(host) = loaded.cluster.spec.control_plane.hosts.iter().find(|host| host.address == address) {
            // The planner refuses this for new hosts; the cluster's own hosts are never cleaned up.
            session.progress.note(&one.member, &format!("nothing is removed from {address}: it is {} now", host.name));
            continue;
        }
        let spec = HostSpec { address, name: one.member.clone(), host_key: String::new(), ssh: None };
        let retired = async {
            let host: Arc<dyn Host> = Arc::new(session.connect(loaded, &spec).await?);
            let manifest = crate::plan::desired(&loaded.cluster, &spec, &desired.inputs)?;
            belongs(host.as_ref(), &manifest, &work.cluster_id).await?;
            let hosts = [(host, manifest)];
            let (removal, holder) = (Removal::Everything, work.holder.clone());
            let removing = Removing { removal, keep_framework: false, holder };
            let errors = apply::remove_hosts(&hosts, &removing, &session.progress).await;
            errors.into_iter().next().map_or(Ok(()), |(_, error)| Err(anyhow::Error::new(error)))
        };
        if let Err(error) = retired.await {
            let text = format!("removed from etcd, but failed to uninstall the host: {error:#}");
            session.progress.note(&one.member, &text);
        }
    }
}

/// Fails if the machine is not the departed member: another one may have its address by now.
async fn belongs(host: &dyn Host, manifest: &HostManifest, id: &str) -> anyhow::Result<()> {
    let found = look(host, manifest).await?;
    let HostManifest { cluster, host: member, .. } = manifest;
    match &found.ownership().mark {
        Some(mark) if mark.cluster == *cluster && mark.id == id && mark.member == *member => Ok(()),
        Some(mark) => bail!("the machine there is {} of cluster {} ({})", mark.member, mark.cluster, mark.id),
        None => bail!("the machine there does not say that it is {member} of cluster {cluster}"),
    }
}

/// `192.0.2.13` of `https://192.0.2.13:2380`.
fn address_of(peer: &str) -> Option<String> {
    let uri: http::Uri = peer.parse().ok()?;
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}
