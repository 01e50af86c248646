//! The plan, and why there is none.
use super::clients;
use super::inspect::{InspectedHost, Inspection};
use super::session::Session;
use crate::failure::{Code, Failure};
use crate::inventory::Found;
use crate::plan::{self, Plan, PlanContext, PlanError};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::HostManifest;

/// Decides what must be done. If only late hosts can determine whether there is a cluster, waits for them.
///
/// # Errors
/// Why there is no plan, after a line for each host that failed.
pub(super) async fn plan(
    session: &Session,
    loaded: &Loaded,
    inspection: &mut Inspection,
    km: &str,
    allow_remove: bool,
) -> Result<Plan, Failure> {
    loop {
        let mut context = PlanContext { unseen: inspection.unseen(), allow_remove, ..PlanContext::default() };
        let mut decided = decide_for(&inspection.inspected, km, &context);
        if decided.as_ref().is_ok_and(Plan::begins) && !context.unseen.is_empty() {
            context.framework = framework(session, loaded, inspection).await?;
            decided = decide_for(&inspection.inspected, km, &context);
        }
        match decided {
            Err(error) if error.needs_others() && !inspection.late.is_empty() => {
                let names: Vec<&str> = inspection.late.iter().map(|(manifest, _)| manifest.host.as_str()).collect();
                session.progress.note("", &format!("waiting for {}: {error}", names.join(", ")));
                let order: Vec<&str> =
                    loaded.cluster.spec.control_plane.hosts.iter().map(|host| host.name.as_str()).collect();
                inspection.wait_for_late(&order).await;
            }
            Err(error) => {
                inspection.report_failures(session);
                return Err(failure(loaded, error));
            }
            Ok(plan) => return Ok(plan),
        }
    }
}

fn decide_for(inspected: &[InspectedHost], km: &str, context: &PlanContext) -> Result<Plan, PlanError> {
    let hosts: Vec<(HostManifest, Found)> =
        inspected.iter().map(|host| (host.manifest.clone(), host.found.clone())).collect();
    plan::decide(&hosts, km, context)
}

/// The id of the cluster's framework, if Mesos has one: then the cluster is running, whatever was seen of it.
async fn framework(session: &Session, loaded: &Loaded, inspection: &Inspection) -> Result<Option<String>, Failure> {
    let Some(first) = inspection.inspected.first() else { return Ok(None) };
    let master = clients::master(first.host.clone(), loaded).await.map_err(|failure| {
        inspection.report_failures(session);
        let (text, hint) = clients::text_and_hint(&failure);
        let text = format!("some hosts are unreachable, and the Mesos query for an existing cluster failed: {text}");
        Failure::message(Code::Failed, text).hint(hint)
    })?;
    Ok(master.frameworks.into_iter().next().map(|framework| framework.id))
}

fn failure(loaded: &Loaded, error: PlanError) -> Failure {
    let (code, hint) = match &error {
        PlanError::Upgrade { .. } => (
            Code::Invalid,
            "run `kmctl down`, then `kmctl up`; etcd data, keys and configuration are kept, all pods stop".to_owned(),
        ),
        PlanError::Network { found, .. } => (
            Code::Invalid,
            format!(
                "set `network: {{ mode: {found} }}`, or recreate the cluster: `kmctl down --purge`, then `kmctl up`"
            ),
        ),
        PlanError::NoSecret { .. } => {
            (Code::Invalid, "write the secret of the principal to the file in mesos.secretFile".to_owned())
        }
        PlanError::NoMajority { unseen, .. } => {
            (Code::SomeHosts, format!("make {} reachable, or remove lost hosts from cluster.yaml", unseen.join(", ")))
        }
        PlanError::Founder { unseen, .. } => (
            Code::SomeHosts,
            format!(
                "make {} reachable; if etcd data is lost, recreate the cluster: `kmctl down --purge`, then `kmctl up`",
                unseen.join(", ")
            ),
        ),
        PlanError::Unnamed { founder } => (
            Code::Invalid,
            format!("add {founder} to cluster.yaml, or recreate the cluster: `kmctl down --purge`, then `kmctl up`"),
        ),
        PlanError::Elsewhere { framework, unseen } => (
            Code::SomeHosts,
            format!(
                "make {} reachable; if etcd data is lost, tear down the framework: `curl -d \
                 frameworkId={framework} {}/teardown`",
                unseen.join(", "),
                loaded.cluster.spec.mesos.master.0.first().map(String::as_str).unwrap_or_default()
            ),
        ),
        PlanError::NoQuorum { lost, .. } => (
            Code::Failed,
            format!(
                "restore the disk of {}; otherwise copy /var/lib/kmctl/snapshots from the other hosts and \
                 recreate the cluster: `kmctl down --purge`, then `kmctl up`",
                lost.join(" or ")
            ),
        ),
        PlanError::TwoClusters { hosts: [one, other] } => (
            Code::Failed,
            format!(
                "choose the data to keep; on the other host, {one} or {other}, run `systemctl stop etcd && rm -r \
                 /var/lib/etcd/member`, then `kmctl up`"
            ),
        ),
    };
    Failure::new(code, error).hint(hint)
}

/// Reports the notes of the hosts' plans to the operator.
pub(super) fn report_notes(session: &Session, plan: &Plan) {
    for (host, note) in plan.hosts.iter().flat_map(|host| host.notes.iter().map(|note| (&host.host, note))) {
        session.progress.note(host, note);
    }
}

/// Reports in every run the members that are kept although cluster.yaml does not name them.
pub(super) fn report_departures(session: &Session, plan: &Plan) {
    for one in plan.departures.iter().filter(|one| !one.remove) {
        let text = "is an etcd member but not in cluster.yaml; remove it with `kmctl up --allow-remove`";
        session.progress.note(&one.member, text);
    }
}
