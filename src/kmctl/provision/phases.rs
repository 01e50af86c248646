//! What each command does, phase by phase, in order.
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::check::{self, Report as CheckReport};
use super::inspect::{InspectOptions, Wait};
use super::operator::Operator;
use super::saved_plan::check_drift;
use super::session::Session;
use super::teardown::{self, Teardown};
use super::{MesosStatus, converge, failures, inspect, mesos_status, open_bundle, planning, preflight, work};
use crate::apply::{self, Limits, Removing};
use crate::failure::Failure;
use crate::plan::{Plan, SavedPlan, summary};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::Removal;
use kmctl_core::text::count;

/// Options of `up` and `plan`, in addition to cluster.yaml.
#[derive(Default)]
pub struct PlanOptions {
    /// Set the bounds of nodes to those in cluster.yaml, whatever was set live.
    pub reset_scale: bool,
    /// Remove etcd members that cluster.yaml does not name.
    pub allow_remove: bool,
    /// Bootstrap a new cluster although there was, or may be, an older one.
    pub begin_anew: bool,
}

/// How `up` ended.
pub enum Up {
    /// The hosts are as described in cluster.yaml.
    Done(MesosStatus),
    /// The operator did not approve the plan.
    Declined,
}

/// `kmctl up`. With a saved plan and its file, exactly that plan is carried out.
///
/// # Errors
/// Why nothing was started, or what failed on which hosts.
pub async fn up(
    session: &Session,
    operator: &dyn Operator,
    loaded: &mut Loaded,
    options: PlanOptions,
    saved: Option<(SavedPlan, PathBuf)>,
) -> Result<Up, Failure> {
    // Read the bundle. Meanwhile hash km, and query Mesos through the first host that is reached.
    let bundle = open_bundle(loaded)?;
    let (limits, km) = (Limits::default(), work::km_meanwhile());
    let (reached, first) = mpsc::channel(1);
    let mesos = AbortOnDropHandle::new(tokio::spawn(mesos_status::query_through_first(first, loaded.clone())));

    // Connect to all hosts, create the bundle if there is none, and inspect them. A saved plan covers all hosts, so none of them may be left for later.
    let wait = if saved.is_some() { Wait::All } else { Wait::Most };
    let inspection = InspectOptions { wait, reset_scale: options.reset_scale };
    let (desired, mut inspection) =
        inspect::inspect(session, loaded, bundle, &limits, inspection, Some(reached)).await?;

    // Plan.
    let mut work = work::work(session, &desired, work::taken(km).await?, "kmctl up", limits);
    let removes = |saved: &SavedPlan| saved.plan.departures.iter().any(|one| one.remove);
    let allowed = planning::Allowed {
        remove: options.allow_remove || saved.as_ref().is_some_and(|(saved, _)| removes(saved)),
        begin_anew: options.begin_anew || saved.as_ref().is_some_and(|(saved, _)| saved.plan.begin_anew),
    };
    let plan = planning::plan(session, loaded, &mut inspection, &work.km.1, allowed).await?;
    if let Some((saved, file)) = &saved {
        let now = SavedPlan::new(&loaded.cluster.metadata.name, &work.km.1, &desired.manifests, &plan);
        check_drift(file, saved, &now, &plan)?;
    }

    work.begin_anew = plan.begin_anew;
    if let Some(id) = &plan.id {
        work.cluster_id.clone_from(id);
    }

    // Verify files that hosts lack, concurrently with the rest. Check hosts that are new to the cluster, and Mesos.
    let found = inspection.inspected.iter().map(|one| (one.manifest.clone(), one.found.clone())).collect();
    tokio::spawn(apply::verify_ahead(found, work.clone()));
    preflight::check_new_hosts(session, loaded, &inspection, plan.begins()).await?;
    planning::report_notes(session, &plan);

    // Stop here if there is nothing to do.
    if plan.is_empty() && inspection.is_complete() {
        let checked: usize = plan.hosts.iter().map(|host| host.unchanged).sum();
        let text =
            format!("Cluster {} is up to date ({} checked)", loaded.cluster.metadata.name, count(checked, "item"));
        session.progress.note("", &text);
        planning::report_departures(session, &plan);
        return Ok(Up::Done(mesos.await.unwrap_or(MesosStatus::Unasked)));
    }
    // The answer would be outdated when the work is done.
    drop(mesos);

    // Ask for confirmation if something is interrupted or removed.
    if !plan.needs_approval() {
        session.progress.note("", &summary(&plan));
        planning::report_departures(session, &plan);
    } else if !operator.approve_plan(&plan).await? {
        return Ok(Up::Declined);
    }

    // Bring the hosts to the state in the plan. Clean up hosts that are no longer members.
    let first = inspection.inspected.first().map(|one| one.host.clone());
    let report = converge::converge(session, &plan, inspection, &work).await;
    operator.show_report(&report);
    converge::retire(session, loaded, &desired, &plan, report.departed, &work).await;
    failures::of_report(session, report, &plan)?;

    // Query Mesos again.
    Ok(Up::Done(mesos_status::query(loaded, first).await))
}

/// `kmctl plan`: returns the plan as it would be saved, and the failure to exit with if hosts could not be inspected.
///
/// # Errors
/// Why there is no plan.
pub async fn plan(
    session: &Session,
    loaded: &mut Loaded,
    options: PlanOptions,
) -> Result<(SavedPlan, Plan, Option<Failure>), Failure> {
    // Read the bundle. Meanwhile hash km.
    let bundle = open_bundle(loaded)?;
    let km = work::km_meanwhile();

    // Connect to all hosts, create the bundle if there is none, and inspect them.
    let inspection = InspectOptions { wait: Wait::All, reset_scale: options.reset_scale };
    let (desired, mut inspection) =
        inspect::inspect(session, loaded, bundle, &Limits::default(), inspection, None).await?;

    // Plan.
    let (_, km) = work::taken(km).await?;
    let allowed = planning::Allowed { remove: options.allow_remove, begin_anew: options.begin_anew };
    let plan = planning::plan(session, loaded, &mut inspection, &km, allowed).await?;
    let saved = SavedPlan::new(&loaded.cluster.metadata.name, &km, &desired.manifests, &plan);
    Ok((saved, plan, failures::of_inspection(session, inspection, desired.manifests.len())))
}

/// How `down` ended.
pub enum Down {
    /// Nothing was installed on the hosts that could be reached. Holds the failure of those that could not.
    NotInstalled(Option<Failure>),
    /// This was removed from every host.
    Done(Removal),
    /// The operator did not approve it.
    Declined,
}

/// `kmctl down`.
///
/// # Errors
/// Why nothing was started, or what failed on which hosts.
pub async fn down(
    session: &Session,
    operator: &dyn Operator,
    loaded: &mut Loaded,
    removal: Removal,
    drain: bool,
) -> Result<Down, Failure> {
    // Connect to all hosts, and inspect them.
    let limits = Limits::default();
    let (desired, inspection) = teardown::inspect(session, loaded, &limits).await?;
    planning::check_identity(loaded, &inspection)?;
    let all = desired.manifests.len();
    if !inspection.inspected.iter().any(|one| teardown::is_installed(&one.found, removal)) {
        return Ok(Down::NotInstalled(failures::of_inspection(session, inspection, all)));
    }

    // Ask for confirmation.
    if !operator.approve_teardown(&Teardown::new(loaded, &inspection, removal, drain)).await? {
        return Ok(Down::Declined);
    }

    // Install the `km` that removes things, if the host has a different one.
    let work = work::work(session, &desired, work::taken(work::km_meanwhile()).await?, "kmctl down", limits);
    let (hosts, mut errors) = teardown::prepare(inspection.inspected, removal, &work).await;
    errors.extend(inspection.failed);

    // Stop the nodes and the framework's scheduler, and remove the framework.
    if drain || removal == Removal::Everything {
        teardown::end_nodes(session, &hosts).await;
    }
    teardown::stop_schedulers(session, &hosts, !errors.is_empty()).await;
    if drain && removal == Removal::Programs {
        teardown::allow_nodes(session, &hosts).await;
    }
    let framework = teardown::end_framework(session, &hosts).await;

    // Remove what was installed. A framework that could not be removed needs the files that the next run removes it
    // with.
    let removal = if framework.is_ok() { removal } else { Removal::Programs };
    let removing = Removing { removal, keep_framework: framework.is_err(), holder: work.holder.clone() };
    errors.extend(apply::remove_hosts(&hosts, &removing, &session.progress).await);
    framework?;
    failures::of_some(session, errors, all).map_or(Ok(Down::Done(removal)), Err)
}

/// `kmctl check`: inspects hosts and Mesos, and judges what was found. Its steps are in `check.rs`.
pub async fn check(session: &Session, loaded: &Loaded) -> CheckReport {
    check::inspect(session, loaded).await
}
