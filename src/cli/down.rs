//! `kmctl down`: ends the framework, stops the control plane, and removes what `up` installed.
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::context::Context;
use super::failure::{Code, Failure};
use super::provision::{self, Seen};
use super::question;
use crate::apply::{install, purge_nodes, remove_hosts};
use crate::host::agent::{HostManifest, KM, Removal};
use crate::host::{Command, Host};
use crate::plan::Found;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Remove everything: also etcd's data, keys, settings, and what nodes keep on agents. Asks for the cluster's name
    /// unless it is given (--purge=NAME) or --yes is
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true)]
    purge: Option<Option<String>>,
}

/// Executors get 90 seconds to end their pods; agents take some more to notice.
const EXECUTORS_END: u64 = 120;

/// Runs `kmctl down`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { purge } = args;
    let loaded = context.cluster()?;
    let name = loaded.cluster.metadata.name.clone();
    let bundle = provision::open_bundle(&loaded)?;
    let hosts = provision::connect_all(context, &loaded).await?;
    let wanted = match provision::wanted(&loaded, bundle, &hosts).await {
        Ok(wanted) => wanted,
        // Without a bundle here or there nothing of one is left to remove.
        Err(failure) if failure.code() == Code::Invalid => {
            let empty = provision::empty_bundle(&loaded);
            provision::wanted_with(&loaded, None, empty, String::new())?
        }
        Err(failure) => return Err(failure),
    };
    let seen = provision::look_all(context, hosts, &wanted.manifests).await?;
    let removal = if purge.is_some() { Removal::Everything } else { Removal::Programs };
    let installed = seen.iter().any(|(_, _, found)| is_installed(found, removal));
    if !installed {
        context.talk("Nothing is installed: nothing to do.\n");
        return Ok(Code::Ok);
    }
    context.talk(&describe(&name, &seen, removal));
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
    let work = provision::work(context, &wanted, "kmctl down")?;
    let count = seen.len();
    let mut hosts: Vec<(Arc<dyn Host>, HostManifest)> = Vec::new();
    for (host, manifest, found) in seen {
        if matches!(found, Found::Bare { .. }) && is_installed(&found, removal) {
            install(host.as_ref(), &work).await.map_err(|error| provision::failed(context, vec![error], count))?;
        }
        if is_installed(&found, removal) {
            hosts.push((host, manifest));
        }
    }
    if removal == Removal::Everything {
        purge_agents(context, &hosts).await;
    }
    end_framework(context, &hosts).await?;
    let errors = remove_hosts(&hosts, removal, &work.holder, &context.progress).await;
    if !errors.is_empty() {
        return Err(provision::failed(context, errors, count));
    }
    let left = match removal {
        Removal::Programs => "etcd's data, keys and settings stay on the hosts: `kmctl up` goes on with them.",
        Removal::Everything => "Nothing of it is left on the hosts.",
    };
    context.talk(&format!("\nCluster {name} is down. {left}\n"));
    Ok(Code::Ok)
}

/// Whether there is something to remove: after `down`, a purge still finds the data.
fn is_installed(found: &Found, removal: Removal) -> bool {
    match found {
        Found::Observed(_) => true,
        Found::Bare { existing } => {
            removal == Removal::Everything && existing.iter().any(|path| path != "/etc/kubernetes")
        }
    }
}

fn describe(name: &str, seen: &[Seen], removal: Removal) -> String {
    let mut text = format!("Cluster {name} goes down:\n  - the Mesos framework ends, and with it every pod\n");
    for (host, manifest, _) in seen {
        let units: Vec<String> = manifest
            .items
            .iter()
            .filter_map(|item| match item {
                crate::host::agent::Item::Unit(spec) => Some(spec.name.trim_end_matches(".service").to_owned()),
                _ => None,
            })
            .collect();
        text.push_str(&format!("  - {}: {} stop, programs and units are removed\n", host.name(), units.join(", ")));
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

/// The agents can only be swept while the framework lives. A cluster that is broken is purged all the same.
async fn purge_agents(context: &Context, hosts: &[(Arc<dyn Host>, HostManifest)]) {
    let Some((first, _)) = hosts.first() else { return };
    let command = Command::new(["systemctl", "is-active", "--quiet", "km-scheduler.service"]);
    if !first.run(command).await.is_ok_and(|output| output.success()) {
        context.progress.note(first.name(), "km scheduler does not run: agents are not swept");
        return;
    }
    if let Err(error) = purge_nodes(first.as_ref(), &context.progress).await {
        context.progress.note(first.name(), &format!("agents may keep something in nodes.rootDir: {error}"));
    }
}

/// km scheduler stops first: it would take the end of its framework for a loss and make a new one.
async fn end_framework(context: &Context, hosts: &[(Arc<dyn Host>, HostManifest)]) -> Result<(), Failure> {
    for (host, _) in hosts {
        let command = Command::new(["systemctl", "stop", "km-scheduler.service"]).privileged();
        // Where the unit is not there, nothing has to stop.
        host.run(command.timeout(Duration::from_secs(100)))
            .await
            .with_context(|| format!("stop km scheduler on {}", host.name()))?;
    }
    let Some((first, _)) = hosts.first() else { return Ok(()) };
    let step = context.progress.step(first.name(), "end the framework and wait for its executors");
    let config = "/etc/kmctl/scheduler.yaml";
    // A run that was killed before the settings were written has no framework either.
    let script = r#"[ -e "$2" ] || exit 0; exec "$1" mesos teardown --config "$2" --wait "$3""#;
    let wait = EXECUTORS_END.to_string();
    let argv = ["sh", "-c", script, "sh", KM, config, wait.as_str()];
    let command = Command::new(argv).privileged().timeout(Duration::from_secs(EXECUTORS_END + 30));
    let output = first.run(command).await.with_context(|| format!("end the framework from {}", first.name()))?;
    if !output.success() {
        step.failed("failed");
        let text = format!("end the framework from {}: {}", first.name(), output.last_words());
        return Err(
            Failure::message(Code::Failed, text).hint("nothing was removed; look whether Mesos is up: `kmctl check`")
        );
    }
    step.done(&output.last_words());
    Ok(())
}
