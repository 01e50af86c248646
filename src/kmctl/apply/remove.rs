//! Removes what was installed on hosts.
use std::sync::Arc;
use std::time::Duration;

use super::ApplyError;
use super::host::{Act, StepText, tell};
use crate::host::{Command, Host};
use kmctl_core::progress::Progress;
use kmctl_core::protocol::host::{HostManifest, KM, LockOwner, Removal, RemoveRequest};
use kmctl_core::text::count;

/// Stopping a unit may take systemd's whole stop timeout.
const REMOVE: Duration = Duration::from_secs(180);

/// What is removed.
#[derive(Clone, Debug)]
pub struct Removing {
    /// How much is removed.
    pub removal: Removal,
    /// The framework could not be removed: keep its id for the run that will remove it.
    pub keep_framework: bool,
    /// Who runs this, for the lock.
    pub holder: LockOwner,
}

/// Removes what the manifests name, host by host, starting with the last because the first created the keys. Continues
/// after an error and returns all errors, by host.
pub async fn remove_hosts(
    hosts: &[(Arc<dyn Host>, HostManifest)],
    removing: &Removing,
    progress: &Progress,
) -> Vec<(String, ApplyError)> {
    let mut errors = Vec::new();
    for (host, manifest) in hosts.iter().rev() {
        if let Err(error) = remove_host(host.as_ref(), manifest, removing, progress).await {
            errors.push((host.name().to_owned(), error));
        }
    }
    errors
}

const REMOVE_ACT: Act = Act {
    what: "remove binaries and units",
    text: StepText { running: "Removing binaries and units", done: "Removed binaries and units" },
};

async fn remove_host(
    host: &dyn Host,
    manifest: &HostManifest,
    removing: &Removing,
    progress: &Progress,
) -> Result<(), ApplyError> {
    let Removing { removal, keep_framework, holder } = removing.clone();
    let request = RemoveRequest { manifest: manifest.clone(), removal, keep_framework, holder };
    let stdin = serde_json::to_vec(&request).unwrap_or_default();
    let command = Command::new([KM, "host", "remove"]).privileged().stdin(stdin).timeout(REMOVE);
    let counts = tell(host, command, progress, REMOVE_ACT).await?;
    progress.note(host.name(), &format!("removed {}", count(counts.changed, "item")));
    Ok(())
}

/// The host gives up by itself before this time is over.
const PURGE: Duration = Duration::from_secs(660);

const PURGE_ACT: Act = Act {
    what: "remove nodes",
    text: StepText { running: "Removing nodes and cleaning up agents", done: "Removed nodes and cleaned up agents" },
};

/// Has the km scheduler stop all nodes, with their pods stopping within their own grace periods, and sweep the agents.
pub async fn purge_nodes(host: &dyn Host, progress: &Progress) -> Result<(), ApplyError> {
    let command = Command::new([KM, "host", "purge-nodes"]).privileged().timeout(PURGE);
    tell(host, command, progress, PURGE_ACT).await.map(drop)
}

/// Allows nodes to be launched again after a purge.
pub async fn forget_purge(host: &dyn Host) -> Result<(), ApplyError> {
    let what = "allow nodes again";
    let name = || host.name().to_owned();
    let command = Command::new([KM, "host", "forget-purge"]).privileged();
    let output = host.run(command).await.map_err(|source| ApplyError::Host { what, host: name(), source })?;
    if output.success() {
        return Ok(());
    }
    Err(ApplyError::Refused { what, host: name(), answer: output.last_words() })
}
