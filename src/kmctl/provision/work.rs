//! What a run on any host needs: the `km` to install, the lock's owner, limits.
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::JoinHandle;

use super::desired_state::DesiredState;
use super::session::Session;
use crate::apply::{Limits, Work, km_beside_kmctl};
use crate::failure::Failure;
use kmctl_core::protocol::host::LockOwner;

/// What the runs on all hosts have in common. The cluster's id is a new one until it is known that the hosts have one.
pub(super) fn work(session: &Session, desired: &DesiredState, km: Km, command: &str, limits: Limits) -> Work {
    Work {
        bundle: desired.bundle.clone(),
        secrets: desired.secrets.clone(),
        km,
        cluster_id: uuid::Uuid::new_v4().simple().to_string(),
        begin_anew: false,
        holder: holder(command),
        progress: session.progress.clone(),
        limits,
        verified: Arc::default(),
    }
}

/// A binary's path and its sha256.
pub(super) type Km = (PathBuf, String);

/// The `km` that belongs to this kmctl.
fn km() -> Result<Km, Failure> {
    km_beside_kmctl().map_err(|error| Failure::from(error).hint("install `km` in the same directory as `kmctl`"))
}

/// [`km`] on a separate thread: the hashed file has tens of megabytes, and the hosts answer meanwhile.
pub(super) fn km_meanwhile() -> JoinHandle<Result<Km, Failure>> {
    tokio::task::spawn_blocking(km)
}

/// The result of [`km_meanwhile`].
pub(super) async fn taken(km: JoinHandle<Result<Km, Failure>>) -> Result<Km, Failure> {
    km.await.context("failed to hash km")?
}

/// Who runs this, for the lock.
pub(super) fn holder(command: &str) -> LockOwner {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let machine = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    LockOwner { operator: format!("{user}@{machine}"), command: command.to_owned(), ..LockOwner::default() }
}
