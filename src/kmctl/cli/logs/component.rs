//! A component's journal on the control-plane hosts.
use std::time::Duration;

use tokio::sync::mpsc;

use super::source::Wanted;
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::host::{Command, Host};
use kmctl_core::cluster::{HostSpec, Loaded};

/// A component may print nothing for a long time. A lost connection is detected by other means.
const SILENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many lines may wait to be printed.
const QUEUE: usize = 1024;

/// Shows a unit's journal. With several hosts, each line starts with the host's name.
pub(super) async fn show(context: &Context, loaded: &Loaded, unit: &str, wanted: &Wanted) -> Result<(), Failure> {
    let all = &loaded.cluster.spec.control_plane.hosts;
    let hosts: Vec<&HostSpec> =
        all.iter().filter(|host| wanted.host.as_ref().is_none_or(|name| *name == host.name)).collect();
    if hosts.is_empty() {
        let names: Vec<&str> = all.iter().map(|host| host.name.as_str()).collect();
        let text = format!("control-plane host {} not found", wanted.host.as_deref().unwrap_or_default());
        return Err(Failure::message(Code::Usage, text).hint(format!("hosts: {}", names.join(", "))));
    }
    let (sender, mut lines) = mpsc::channel::<String>(QUEUE);
    let several = hosts.len() > 1;
    let reads = hosts.into_iter().map(|host| {
        let prefix = if several { format!("{} | ", host.name) } else { String::new() };
        read(context, loaded, host, unit, wanted, prefix, sender.clone())
    });
    let reads = futures::future::join_all(reads);
    drop(sender);
    let print = async {
        while let Some(line) = lines.recv().await {
            context.stdout(&(line + "\n"))?;
        }
        Ok::<_, Failure>(())
    };
    let (outcomes, printed) = tokio::join!(reads, print);
    printed?;
    outcomes.into_iter().collect()
}

async fn read(
    context: &Context,
    loaded: &Loaded,
    spec: &HostSpec,
    unit: &str,
    wanted: &Wanted,
    prefix: String,
    out: mpsc::Sender<String>,
) -> Result<(), Failure> {
    let host = context.session.connect(loaded, spec).await.map_err(|error| {
        Failure::new(
            Code::SomeHosts,
            anyhow::Error::new(error).context(format!("failed to connect to {} over SSH", spec.name)),
        )
    })?;
    let (unit, count) = (format!("{unit}.service"), wanted.lines.to_string());
    let mut argv =
        vec!["journalctl", "--no-pager", "--quiet", "--output=short-iso", "--unit", &unit, "--lines", &count];
    let mut command = if wanted.follow {
        argv.push("--follow");
        Command::new(argv).timeout(SILENCE)
    } else {
        Command::new(argv)
    };
    command.privileged = true;
    let (sender, mut lines) = mpsc::channel::<String>(QUEUE);
    let pass = async {
        while let Some(line) = lines.recv().await {
            if out.send(format!("{prefix}{line}")).await.is_err() {
                return;
            }
        }
    };
    let (output, ()) = tokio::join!(host.run_lines(command, sender), pass);
    let output = output?;
    if output.success() {
        return Ok(());
    }
    let text = format!("failed to read the journal of {unit} on {}: {}", spec.name, output.last_words());
    Err(Failure::message(Code::Failed, text).hint_status())
}
