//! `kmctl down`: ends the framework, stops the control plane, and removes what `up` installed.
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::failure::{Code, Failure};
use super::gather::{self, Sight, Slot, Wait};
use super::provision::{self, Seen, Wanted};
use super::question;
use crate::apply::{ApplyError, Limits, Removing, Work, forget_purge, install, purge_nodes, remove_hosts};
use crate::host::{Command, Host};
use crate::inventory::Found;
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::{FRAMEWORK, HostManifest, KM, Removal};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Remove everything: also etcd's data, keys, settings, and what nodes keep on agents. Asks for the cluster's name
    /// unless it is given (--purge=NAME) or --yes is
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    purge: Option<Option<String>>,
    /// End every node before, so that pods stop within their own grace periods
    #[arg(long)]
    drain: bool,
}

/// Executors get 90 seconds to end their pods; agents take some more to notice.
const EXECUTORS_END: u64 = 120;

/// Hosts on which something is to be removed.
type Installed = Vec<(Arc<dyn Host>, HostManifest)>;

/// Runs `kmctl down`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { purge, drain } = args;
    let mut loaded = context.cluster()?;
    let name = loaded.cluster.metadata.name.clone();
    let limits = Limits::default();
    let (wanted, sight) = look(context, &mut loaded, &limits).await?;
    let removal = if purge.is_some() { Removal::Everything } else { Removal::Programs };
    let Sight { seen, late: _, failed } = sight;
    if !seen.iter().any(|(_, _, found)| is_installed(found, removal)) {
        let text = if failed.is_empty() { "Nothing is installed" } else { "Nothing is installed on the others" };
        context.talk(&format!("{text}: nothing to do.\n"));
        return ended(context, failed, wanted.manifests.len());
    }
    context.talk(&describe(&name, &seen, &failed, removal, drain));
    let agreed = match &purge {
        Some(given) => {
            let what = format!("Everything is lost, etcd's data too. Type the cluster's name ({name}) to go on");
            question::confirm_name(context, &what, &name, given.as_deref()).await?
        }
        None => question::confirm(context, "Go on?").await?,
    };
    if !agreed {
        return Ok(Code::Usage);
    }
    let work = provision::work(context, &wanted, provision::km()?, "kmctl down", limits);
    let (hosts, mut errors) = ready(seen, removal, &work).await;
    errors.extend(failed);
    if drain || removal == Removal::Everything {
        end_nodes(context, &hosts).await;
    }
    stop_schedulers(context, &hosts, !errors.is_empty()).await;
    if drain && removal == Removal::Programs {
        allow_nodes(context, &hosts).await;
    }
    let ended_framework = end_framework(context, &hosts).await;
    // Without Mesos the framework ends later: what that takes stays.
    let removal = if ended_framework.is_ok() { removal } else { Removal::Programs };
    let removing = Removing { removal, keep_framework: ended_framework.is_err(), holder: work.holder.clone() };
    errors.extend(remove_hosts(&hosts, &removing, &context.progress).await);
    ended_framework?;
    let code = ended(context, errors, wanted.manifests.len())?;
    let left = match removal {
        Removal::Programs => "etcd's data, keys and settings stay on the hosts: `kmctl up` goes on with them.",
        Removal::Everything => "Nothing of it is left on the hosts.",
    };
    context.talk(&format!("\nCluster {name} is down. {left}\n"));
    Ok(code)
}

/// Looks at every host that can be reached, with what is known of its manifest.
async fn look(context: &Context, loaded: &mut Loaded, limits: &Limits) -> Result<(Wanted, Sight), Failure> {
    let bundle = provision::open_bundle(loaded)?;
    let connections = gather::connect(context, loaded, limits, Wait::All, None).await;
    let here: Vec<Arc<dyn Host>> = connections
        .iter()
        .filter_map(|(_, slot)| match slot {
            Slot::Here(host) => Some(host.clone()),
            Slot::Failed(_) | Slot::Late(_) => None,
        })
        .collect();
    if here.is_empty() {
        return Err(gather::nobody(context, connections));
    }
    let wanted = match provision::wanted(loaded, bundle, &here).await {
        Ok(wanted) => wanted,
        // Without a bundle here or there nothing of one is left to remove.
        Err(failure) if failure.code() == Code::Invalid => {
            let empty = provision::empty_bundle(loaded);
            provision::wanted_with(loaded, None, empty, String::new())?
        }
        Err(failure) => return Err(failure),
    };
    let sight = gather::look_at(context, connections, &wanted, Wait::All).await;
    Ok((wanted, sight))
}

/// Hosts with something to remove, `km` on each of them; and those that could not be made ready.
async fn ready(seen: Vec<Seen>, removal: Removal, work: &Work) -> (Installed, Vec<(String, ApplyError)>) {
    let (mut hosts, mut errors) = (Installed::new(), Vec::new());
    for (host, manifest, found) in seen.into_iter().filter(|(_, _, found)| is_installed(found, removal)) {
        let lacks_km = match &found {
            Found::Bare { .. } => true,
            Found::Observed(found) => found.km.as_ref() != Some(&work.km.1),
        };
        match if lacks_km { install(host.as_ref(), work).await } else { Ok(()) } {
            Ok(()) => hosts.push((host, manifest)),
            Err(error) => errors.push((host.name().to_owned(), error)),
        }
    }
    (hosts, errors)
}

/// How the command ends when all has been done that can be.
fn ended(context: &Context, errors: Vec<(String, ApplyError)>, hosts: usize) -> Result<Code, Failure> {
    if errors.is_empty() {
        return Ok(Code::Ok);
    }
    Err(provision::failed(context, errors.into_iter().map(|(_, error)| error).collect(), hosts))
}

/// Whether there is something to remove: after `down`, a purge still finds the data, and any run finds a framework that
/// could not be ended.
fn is_installed(found: &Found, removal: Removal) -> bool {
    match found {
        Found::Observed(_) => true,
        Found::Bare { existing } => {
            existing.contains(FRAMEWORK)
                || removal == Removal::Everything && existing.iter().any(|path| path != "/etc/kubernetes")
        }
    }
}

fn describe(name: &str, seen: &[Seen], failed: &[(String, ApplyError)], removal: Removal, drain: bool) -> String {
    let mut text = format!("Cluster {name} goes down:\n");
    if drain {
        text.push_str("  - every node is drained: its pods end within their own grace periods\n");
    }
    text.push_str("  - the Mesos framework ends, and with it every pod\n");
    for (host, manifest, _) in seen {
        let units: Vec<String> = manifest
            .items
            .iter()
            .filter_map(|item| match item {
                kmctl_core::protocol::host::Item::Unit(spec) => Some(spec.name.trim_end_matches(".service").to_owned()),
                _ => None,
            })
            .collect();
        text.push_str(&format!("  - {}: {} stop, programs and units are removed\n", host.name(), units.join(", ")));
    }
    for (host, _) in failed {
        text.push_str(&format!("  . {host}: cannot be reached, nothing is done there\n"));
    }
    text.push_str(match removal {
        Removal::Programs => {
            "  . etcd's data, keys, settings and the encryption key stay; a later `up` goes on with them\n"
        }
        Removal::Everything => {
            "  - etcd's data, keys, settings and snapshots are removed\n  - every agent that ever had a node is swept\n"
        }
    });
    text
}

/// Nodes can only be ended, and agents swept, while the framework lives and the API answers. A cluster that is broken
/// goes down all the same.
async fn end_nodes(context: &Context, hosts: &Installed) {
    for (host, _) in hosts {
        let command = Command::new(["systemctl", "is-active", "--quiet", "km-scheduler.service"]);
        if !host.run(command).await.is_ok_and(|output| output.success()) {
            continue;
        }
        match purge_nodes(host.as_ref(), &context.progress).await {
            Ok(()) => return,
            Err(error) => context.progress.note(host.name(), &format!("nodes could not be ended from here: {error}")),
        }
    }
    context.progress.note("", "nodes were not drained and agents may keep something in nodes.rootDir");
}

/// What a drain has set is taken back while the API still answers.
async fn allow_nodes(context: &Context, hosts: &Installed) {
    let mut last = None;
    for (host, _) in hosts {
        match forget_purge(host.as_ref()).await {
            Ok(()) => return,
            Err(error) => last = Some(error),
        }
    }
    if let Some(error) = last {
        context.progress.note("", &format!("{error}; after the next `kmctl up` set the bounds: `kmctl scale`"));
    }
}

/// km scheduler stops first: it would take the end of its framework for a loss and make a new one. One on a host that
/// cannot be reached is kept from that by taking etcd's quorum away, without which it cannot lead.
async fn stop_schedulers(context: &Context, hosts: &Installed, unreached: bool) {
    let units = if unreached { ["km-scheduler.service", "etcd.service"].as_slice() } else { &["km-scheduler.service"] };
    for (host, _) in hosts {
        let argv = ["systemctl", "stop"].iter().chain(units).copied();
        // Where the unit is not there, nothing has to stop.
        let stopped = host.run(Command::new(argv).privileged().timeout(Duration::from_secs(100))).await;
        if let Err(error) = stopped {
            context.progress.note(host.name(), &format!("km scheduler could not be stopped: {error}"));
        }
    }
}

/// Ends the framework from the first host that can; with it go its executors.
async fn end_framework(context: &Context, hosts: &Installed) -> Result<(), Failure> {
    let config = "/etc/kmctl/scheduler.yaml";
    // A run that was killed before the settings were written has no framework either.
    let script = r#"[ -e "$2" ] || exit 0; exec "$1" mesos teardown --config "$2" --wait "$3""#;
    let wait = EXECUTORS_END.to_string();
    let argv = ["sh", "-c", script, "sh", KM, config, wait.as_str()];
    let mut last = None;
    for (host, _) in hosts {
        let step = context.progress.step(host.name(), "end the framework and wait for its executors");
        let command = Command::new(argv).privileged().timeout(Duration::from_secs(EXECUTORS_END + 30));
        match host.run(command).await {
            Ok(output) if output.success() => {
                step.done(&output.last_words());
                return Ok(());
            }
            Ok(output) => {
                step.failed("failed");
                last = Some(anyhow::anyhow!("end the framework from {}: {}", host.name(), output.last_words()));
            }
            Err(error) => {
                step.failed("failed");
                last = Some(anyhow::Error::new(error).context(format!("end the framework from {}", host.name())));
            }
        }
    }
    let Some(error) = last else { return Ok(()) };
    Err(Failure::new(Code::Failed, error).hint(
        "the control plane was stopped and pods still run; when Mesos answers, run `kmctl down` again: it ends the \
         framework. By itself Mesos ends it after 7 days",
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_framework_that_could_not_be_ended_is_found_by_the_next_run() {
        let bare = |paths: &[&str]| Found::Bare { existing: paths.iter().map(|path| (*path).to_owned()).collect() };
        let kept = bare(&["/etc/kubernetes", "/etc/kmctl", "/var/lib/etcd"]);
        assert!(!is_installed(&kept, Removal::Programs));
        assert!(is_installed(&kept, Removal::Everything));
        let pending = bare(&["/etc/kubernetes", "/etc/kmctl", "/var/lib/etcd", "/var/lib/kmctl/scheduler"]);
        assert!(is_installed(&pending, Removal::Programs));
        assert!(!is_installed(&Found::Bare { existing: BTreeSet::new() }, Removal::Everything));
    }
}
