//! `kmctl runonce`: the pods of a file, run to completion on Mesos, on a host, or on this machine.
mod artifacts;
mod input;
mod on_machine;
mod on_mesos;
mod output;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::failure::{Code, Failure};
use crate::host::Host;
use crate::provision::clients;
use kmctl_core::cluster::{Loaded, quantity};
use kmctl_core::text::duration;
use runonce::decide::framework::Outcome;

/// The network from which each run takes its pods' subnets. It differs from the defaults for a cluster's pods and
/// Services, whose node may be on the same machine.
const POD_NETWORK: &str = "172.31.0.0/16";

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// File with Pods, ConfigMaps and Secrets (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    pod: PathBuf,
    /// Run on this control-plane host over SSH
    #[arg(long, value_name = "NAME", conflicts_with = "local")]
    host: Option<String>,
    /// Run on this machine (requires root)
    #[arg(long)]
    local: bool,
    /// Stop the run after this time, for example 10m [default: none]
    #[arg(long, value_name = "DURATION", value_parser = quantity::duration)]
    timeout: Option<Duration>,
    /// Keep pod and node logs on the machine and print where they are
    #[arg(long)]
    keep: bool,
    /// URL of binaries and images [default: km scheduler, else kmctl itself]
    #[arg(long, value_name = "URL", conflicts_with = "listen")]
    artifacts: Option<String>,
    /// Address on which kmctl serves them, optionally with a port; agents must be able to connect to it
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = artifacts::listen)]
    listen: Option<std::net::SocketAddr>,
}

/// How the cluster is reached.
struct Reach {
    loaded: Loaded,
    /// A control-plane host, if one answers.
    host: Option<Arc<dyn Host>>,
}

/// Runs the pods. The exit code is theirs. Errors of kmctl itself have [`Code::Runonce`].
pub async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let timeout = args.timeout;
    let interrupted = interruption().context("failed to listen for signals")?;
    let outcome = run_with(args, context, interrupted).await.map_err(|failure| failure.coded(Code::Runonce))?;
    match outcome {
        Outcome::Exit(code) => Ok(code),
        Outcome::TimeUp => {
            let text =
                format!("the pods did not complete within {} and were stopped", duration(timeout.unwrap_or_default()));
            Err(Failure::message(Code::Timeout, text))
        }
        Outcome::Interrupted => Err(Failure::message(Code::Interrupted, "interrupted; the pods were stopped")),
        Outcome::Failed { why, fetch } => {
            let failure = Failure::message(Code::Runonce, why.join("\n"));
            Err(if fetch {
                failure.hint(
                    "set an address that agents can connect to: --listen ADDRESS, or --artifacts URL of another \
                     server",
                )
            } else {
                failure
            })
        }
    }
}

async fn run_with(args: Args, context: &Context, interrupted: CancellationToken) -> Result<Outcome, Failure> {
    let Args { pod, host, local, timeout, keep, artifacts, listen } = args;
    // Before anything is reached or started.
    let given = input::read(&pod, context)?;
    let loaded = context.mesos_cluster()?;
    let pods = input::wanted(&given, &loaded)?;
    if let Some(name) = host {
        let run = on_machine::Run { pods, timeout, keep, artifacts, listen, interrupted };
        return on_machine::on_host(&name, loaded, run, context).await;
    }
    if local {
        let run = on_machine::Run { pods, timeout, keep, artifacts, listen, interrupted };
        return on_machine::here(loaded, run, context).await;
    }
    let reach = reach(loaded, context).await;
    let artifacts = artifacts::choose(&reach, artifacts.as_deref(), listen, None, context).await?;
    on_mesos::run(reach, pods, artifacts, on_mesos::Terms { timeout, keep, interrupted }, context).await
}

/// Connects through a control-plane host if one answers. Mesos alone is enough.
async fn reach(loaded: Loaded, context: &Context) -> Reach {
    if loaded.cluster.spec.control_plane.hosts.is_empty() {
        return Reach { loaded, host: None };
    }
    match clients::connect_ready_host(&context.session, &loaded).await {
        Ok(host) => Reach { loaded, host: Some(host) },
        Err(failure) => {
            context.progress.note("", &format!("{}; connecting to Mesos from this machine", failure.summary().0));
            Reach { loaded, host: None }
        }
    }
}

/// Cancelled by the first SIGINT or SIGTERM. The second one exits the process immediately, and Mesos then cleans up.
fn interruption() -> std::io::Result<CancellationToken> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(i32::from(Code::Interrupted as u8));
            }
            cancel.cancel();
        }
    });
    Ok(token)
}
