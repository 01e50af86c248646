//! The plan, and why there is none.
use super::clients;
use super::inspect::{InspectedHost, Inspection};
use super::session::Session;
use crate::failure::{Code, Failure};
use crate::inventory::Found;
use crate::plan::preflight::ownership_hint;
use crate::plan::{self, Plan, PlanContext, PlanError};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::{ETCD_DATA, HostManifest, Loss};

/// What the operator has allowed in addition.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// To remove etcd members that cluster.yaml does not name.
    pub(super) remove: bool,
    /// To bootstrap a new cluster although there was, or may be, an older one.
    pub(super) begin_anew: bool,
}

/// Decides what must be done. If only late hosts can determine whether there is a cluster, waits for them.
///
/// # Errors
/// Why there is no plan, after a line for each host that failed.
pub(super) async fn plan(
    session: &Session,
    loaded: &Loaded,
    inspection: &mut Inspection,
    km: &str,
    allowed: Allowed,
) -> Result<Plan, Failure> {
    loop {
        let Allowed { remove: allow_remove, begin_anew } = allowed;
        let mut context =
            PlanContext { unseen: inspection.unseen(), allow_remove, begin_anew, ..PlanContext::default() };
        let mut decided = decide_for(&inspection.inspected, km, &context);
        let may_begin = match &decided {
            Ok(plan) => plan.begins(),
            Err(error) => matches!(error, PlanError::MayHaveData { .. }),
        };
        if may_begin && !begin_anew {
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
        let (text, hint) = match inspection.is_complete() {
            true => (
                format!("preflight check failed: Mesos query failed: {text}; nothing was changed"),
                format!("{hint}; check again with `kmctl check`"),
            ),
            false => (
                format!("some hosts are unreachable, and the Mesos query for an existing cluster failed: {text}"),
                hint,
            ),
        };
        Failure::message(Code::Failed, text).hint(hint)
    })?;
    Ok(master.frameworks.into_iter().next().map(|framework| framework.id))
}

/// Fails if a host is not this cluster's, before anything on it is changed.
///
/// # Errors
/// Whose the host is.
pub(super) fn check_identity(loaded: &Loaded, inspection: &Inspection) -> Result<(), Failure> {
    let hosts = inspection.inspected.iter().map(|one| (one.manifest.clone(), one.found.clone())).collect::<Vec<_>>();
    plan::identify(&hosts, None).map(drop).map_err(|error| failure(loaded, error))
}

fn failure(loaded: &Loaded, error: PlanError) -> Failure {
    let (code, hint) = match &error {
        PlanError::Ownership(error) => (Code::Invalid, ownership_hint(error)),
        PlanError::TwoIds { .. } => (
            Code::Invalid,
            "two clusters have the same name: list only the hosts of one of them in cluster.yaml".to_owned(),
        ),
        PlanError::AddressOfMember { host, member } => (
            Code::Invalid,
            format!(
                "if the machine replaces {member}, name it {member}; else take {host} out of cluster.yaml, run `kmctl up \
                 --allow-remove`, and add it afterwards"
            ),
        ),
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
        PlanError::DataAway { host, loss } => (
            Code::Failed,
            match loss {
                Loss::OtherData => {
                    format!("give {host} its own disk back, or empty {ETCD_DATA}: it then joins as a new member")
                }
                _ => format!(
                    "mount the disk of {host} again; if it is lost, mount an empty one there: {host} then joins as a new member"
                ),
            },
        ),
        PlanError::DataLost { .. } => (
            Code::Failed,
            format!(
                "get the data back (/var/lib/kmctl/snapshots has copies); to give them up and bootstrap an empty cluster, in \
                 which no pod of the old one exists: `kmctl up --begin-anew {}`",
                loaded.cluster.metadata.name
            ),
        ),
        PlanError::MayHaveData { unseen } => (
            Code::SomeHosts,
            format!(
                "make {} reachable, or take what is lost out of cluster.yaml; if no cluster ever existed on these hosts: `kmctl \
                 up --begin-anew {}`",
                unseen.join(", "),
                loaded.cluster.metadata.name
            ),
        ),
        PlanError::Elsewhere { framework, unseen } if unseen.is_empty() => (
            Code::Failed,
            format!(
                "get etcd's data back; to give them up: `kmctl up --begin-anew {}`, and end the old framework: `curl -d \
                 frameworkId={framework} {}/teardown`",
                loaded.cluster.metadata.name,
                loaded.cluster.spec.mesos.master.0.first().map(String::as_str).unwrap_or_default()
            ),
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
