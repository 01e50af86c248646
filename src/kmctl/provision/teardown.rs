//! Takes a cluster down: its nodes, its framework, and what was installed on its hosts.
use std::sync::Arc;
use std::time::Duration;

use super::desired_state::{DesiredState, desired_state, desired_state_with, empty_bundle, open_bundle};
use super::inspect::{self, InspectedHost, Inspection, Wait};
use super::session::Session;
use crate::apply::{ApplyError, Limits, Work, forget_purge, install, purge_nodes};
use crate::failure::{Code, Failure};
use crate::host::{Command, Host};
use crate::inventory::{Bare, Found};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::{FRAMEWORK, HostManifest, Item, KM, Removal};

/// What is about to be taken down, for the operator's confirmation.
pub struct Teardown {
    /// The cluster's name.
    pub cluster: String,
    /// Hosts, with the units that stop on each, without `.service`.
    pub hosts: Vec<(String, Vec<String>)>,
    /// Hosts that cannot be reached.
    pub unreachable: Vec<String>,
    /// What is removed.
    pub removal: Removal,
    /// Whether nodes are drained before.
    pub drain: bool,
}

impl Teardown {
    pub(super) fn new(loaded: &Loaded, inspection: &Inspection, removal: Removal, drain: bool) -> Self {
        let units = |manifest: &HostManifest| {
            let units = manifest.items.iter().filter_map(Item::unit);
            units.map(|unit| unit.name.trim_end_matches(".service").to_owned()).collect()
        };
        Teardown {
            cluster: loaded.cluster.metadata.name.clone(),
            hosts: inspection.inspected.iter().map(|one| (one.host.name().to_owned(), units(&one.manifest))).collect(),
            unreachable: inspection.failed.iter().map(|(host, _)| host.clone()).collect(),
            removal,
            drain,
        }
    }
}

/// Seconds. Executors get 90 seconds to stop their pods, and agents take some more to notice.
const EXECUTORS_END: u64 = 120;

/// Hosts from which something must be removed.
type Installed = Vec<(Arc<dyn Host>, HostManifest)>;

/// Inspects every host that can be reached, with what is known of its manifest.
pub(super) async fn inspect(
    session: &Session,
    loaded: &mut Loaded,
    limits: &Limits,
) -> Result<(DesiredState, Inspection), Failure> {
    let bundle = open_bundle(loaded)?;
    let connections = inspect::connect(session, loaded, limits, Wait::All, None).await;
    let here = inspect::connected(&connections);
    if here.is_empty() {
        return Err(inspect::unreachable_hosts_error(session, connections));
    }
    let desired = match desired_state(loaded, bundle, &here).await {
        Ok(desired) => desired,
        // If neither this machine nor a host has a bundle, there is nothing of one to remove.
        Err(failure) if failure.code() == Code::Invalid => {
            let empty = empty_bundle(loaded);
            desired_state_with(loaded, None, empty, String::new())?
        }
        Err(failure) => return Err(failure),
    };
    let inspection = inspect::inspect_connected(session, connections, &desired, Wait::All).await;
    Ok((desired, inspection))
}

/// Hosts with something to remove, with `km` installed on each, and those where that failed.
pub(super) async fn prepare(
    inspected: Vec<InspectedHost>,
    removal: Removal,
    work: &Work,
) -> (Installed, Vec<(String, ApplyError)>) {
    let (mut hosts, mut errors) = (Installed::new(), Vec::new());
    for InspectedHost { host, manifest, found } in inspected.into_iter().filter(|one| is_installed(&one.found, removal))
    {
        let lacks_km = match &found {
            Found::Bare(_) => true,
            Found::Observed(found) => found.km.as_ref() != Some(&work.km.1),
        };
        match if lacks_km { install(host.as_ref(), work).await } else { Ok(()) } {
            Ok(()) => hosts.push((host, manifest)),
            Err(error) => errors.push((host.name().to_owned(), error)),
        }
    }
    (hosts, errors)
}

/// Whether there is something to remove. After `down`, a purge still finds the data, and any run finds a framework that
/// could not be removed.
pub(super) fn is_installed(found: &Found, removal: Removal) -> bool {
    match found {
        Found::Observed(_) => true,
        Found::Bare(Bare { existing, .. }) => {
            existing.contains(FRAMEWORK)
                || removal == Removal::Everything && existing.iter().any(|path| path != "/etc/kubernetes")
        }
    }
}

/// Nodes can be stopped, and agents swept, only while the framework is running and the API answers. A broken cluster is
/// taken down all the same.
pub(super) async fn end_nodes(session: &Session, hosts: &Installed) {
    for (host, _) in hosts {
        let command = Command::new(["systemctl", "is-active", "--quiet", "km-scheduler.service"]);
        if !host.run(command).await.is_ok_and(|output| output.success()) {
            continue;
        }
        match purge_nodes(host.as_ref(), &session.progress).await {
            Ok(()) => return,
            Err(error) => session.progress.note(host.name(), &format!("failed to remove nodes: {error}")),
        }
    }
    session.progress.note("", "nodes were not drained, and files may be left in nodes.rootDir on agents");
}

/// Reverts what a drain has set, while the API still answers.
pub(super) async fn allow_nodes(session: &Session, hosts: &Installed) {
    let mut last = None;
    for (host, _) in hosts {
        match forget_purge(host.as_ref()).await {
            Ok(()) => return,
            Err(error) => last = Some(error),
        }
    }
    if let Some(error) = last {
        session
            .progress
            .note("", &format!("{error}; after the next `kmctl up`, set the node limits with `kmctl scale`"));
    }
}

/// Stops the km scheduler first: otherwise it would treat the removal of its framework as a loss and create a new one.
/// If a host cannot be reached, etcd is stopped on the others as well: without etcd's quorum, a km scheduler on that
/// host cannot lead and thus cannot create a framework.
pub(super) async fn stop_schedulers(session: &Session, hosts: &Installed, unreached: bool) {
    let units = if unreached { ["km-scheduler.service", "etcd.service"].as_slice() } else { &["km-scheduler.service"] };
    for (host, _) in hosts {
        let argv = ["systemctl", "stop"].iter().chain(units).copied();
        // If the unit does not exist, there is nothing to stop.
        let stopped = host.run(Command::new(argv).privileged().timeout(Duration::from_secs(100))).await;
        if let Err(error) = stopped {
            session.progress.note(host.name(), &format!("failed to stop km-scheduler: {error}"));
        }
    }
}

/// Removes the framework from the first host that can. Its executors stop with it.
pub(super) async fn end_framework(session: &Session, hosts: &Installed) -> Result<(), Failure> {
    let config = "/etc/kmctl/scheduler.yaml";
    // A run that was killed before the settings were written has no framework either.
    let script = r#"[ -e "$2" ] || exit 0; exec "$1" mesos teardown --config "$2" --wait "$3""#;
    let wait = EXECUTORS_END.to_string();
    let argv = ["sh", "-c", script, "sh", KM, config, wait.as_str()];
    let mut last = None;
    for (host, _) in hosts {
        let step = session.progress.step(host.name(), "Stopping the Mesos framework and its executors");
        let command = Command::new(argv).privileged().timeout(Duration::from_secs(EXECUTORS_END + 30));
        match host.run(command).await {
            Ok(output) if output.success() => {
                step.done(&output.last_words());
                return Ok(());
            }
            Ok(output) => {
                step.failed("failed");
                last = Some(anyhow::anyhow!(
                    "failed to stop the Mesos framework from {}: {}",
                    host.name(),
                    output.last_words()
                ));
            }
            Err(error) => {
                step.failed("failed");
                last = Some(
                    anyhow::Error::new(error)
                        .context(format!("failed to stop the Mesos framework from {}", host.name())),
                );
            }
        }
    }
    let Some(error) = last else { return Ok(()) };
    Err(Failure::new(Code::Failed, error).hint(
        "the control plane is stopped, but pods still run; run `kmctl down` again when Mesos responds (Mesos \
         removes the framework after 7d)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framework_that_could_not_be_ended_is_found_by_the_next_run() {
        let bare = |paths: &[&str]| {
            Found::Bare(Bare { existing: paths.iter().map(|path| (*path).to_owned()).collect(), ..Bare::default() })
        };
        let kept = bare(&["/etc/kubernetes", "/etc/kmctl", "/var/lib/etcd"]);
        assert!(!is_installed(&kept, Removal::Programs));
        assert!(is_installed(&kept, Removal::Everything));
        let pending = bare(&["/etc/kubernetes", "/etc/kmctl", "/var/lib/etcd", "/var/lib/kmctl/scheduler"]);
        assert!(is_installed(&pending, Removal::Programs));
        assert!(!is_installed(&bare(&[]), Removal::Everything));
    }
}
