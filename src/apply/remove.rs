//! Takes away what was installed on hosts.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::ApplyError;
use super::host::Show;
use crate::host::agent::{Holder, HostManifest, KM, Removal, RemoveRequest};
use crate::host::{Command, Host};
use crate::progress::Progress;

/// Stopping a unit may take systemd's whole patience.
const REMOVE: Duration = Duration::from_secs(180);

/// Removes what the manifests name, host by host from the last: the first made the keys. Carries on after an error.
pub async fn remove_hosts(
    hosts: &[(Arc<dyn Host>, HostManifest)],
    removal: Removal,
    holder: &Holder,
    progress: &Progress,
) -> Vec<ApplyError> {
    let mut errors = Vec::new();
    for (host, manifest) in hosts.iter().rev() {
        let request = RemoveRequest { manifest: manifest.clone(), removal, holder: holder.clone() };
        if let Err(error) = remove_host(host.as_ref(), &request, progress).await {
            errors.push(error);
        }
    }
    errors
}

/// The host gives up by itself before this is over.
const PURGE: Duration = Duration::from_secs(660);

/// Has km scheduler end all nodes and sweep the agents.
pub async fn purge_nodes(host: &dyn Host, progress: &Progress) -> Result<(), ApplyError> {
    run(host, Command::new([KM, "host", "purge-nodes"]).privileged().timeout(PURGE), progress, "sweep the agents").await
}

async fn remove_host(host: &dyn Host, request: &RemoveRequest, progress: &Progress) -> Result<(), ApplyError> {
    let stdin = serde_json::to_vec(request).unwrap_or_default();
    let command = Command::new([KM, "host", "remove"]).privileged().stdin(stdin).timeout(REMOVE);
    run(host, command, progress, "remove what was installed").await
}

async fn run(host: &dyn Host, command: Command, progress: &Progress, what: &'static str) -> Result<(), ApplyError> {
    let (_, moved) = mpsc::channel(1);
    let (lines, events) = mpsc::channel(64);
    let mut show = Show::new(host.name(), progress, what, 0);
    let (output, ()) = tokio::join!(host.run_lines(command, lines), show.follow(moved, events));
    let output = output.map_err(|source| ApplyError::Host { what, host: host.name().to_owned(), source })?;
    show.end(what, &output)
}
