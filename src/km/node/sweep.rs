//! A sweep: removes what dead runs left on this agent, and with `purge` everything that nodes keep there.
use std::path::Path;

use tracing::info;

use super::deps::DepError;
use super::ledger::{self, Held};
use super::real;
use kmctl_core::protocol::launch::SweepLaunch;
use kmctl_core::text::count;

/// Carries out a sweep; returns a text for the task's message.
pub async fn sweep(launch: &SweepLaunch) -> Result<String, DepError> {
    let SweepLaunch { format: _, cluster, root_dir, purge } = launch;
    let (mut removed, mut alive, mut failed) = (0u32, Vec::new(), Vec::new());
    for path in ledger::list(&root_dir.join("ledger")) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match Held::take(&path) {
            Ok(None) => alive.push(name),
            Ok(Some(held)) if held.ledger.cluster != *cluster => {
                failed.push(format!("{name} belongs to another cluster"))
            }
            Ok(Some(held)) => match real::remove(held, None).await {
                Ok(()) => removed += 1,
                Err(error) => failed.push(format!("{name}: {}", error.chain())),
            },
            Err(error) => failed.push(DepError::other(format!("open ledger {name}"))(error).chain()),
        }
    }
    info!(removed, ?alive, ?failed, "swept");
    if *purge && !alive.is_empty() {
        failed.push(format!("still running: {}", alive.join(", ")));
    }
    if !failed.is_empty() {
        return Err(DepError::NotNow(failed.join("; ")));
    }
    if *purge {
        remove_root(root_dir, cluster)?;
    }
    Ok(format!("removed {}", count(removed, "dead run")))
}

/// Removes the root directory. If it is the default one, also removes the parent directory of all clusters, if empty.
fn remove_root(root: &Path, cluster: &str) -> Result<(), DepError> {
    let what = format!("remove {}", root.display());
    for known in ["store", "ledger", "runs"] {
        match std::fs::remove_dir_all(root.join(known)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(DepError::Io { what: format!("remove {}", root.join(known).display()), source });
            }
            _ => {}
        }
    }
    // Not the whole tree: other files in it are not kmctl's, and then the directory remains.
    match std::fs::remove_dir(root) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(DepError::Io { what, source }),
        _ => {}
    }
    if let Some(parent) = root.parent().filter(|parent| parent.ends_with("kmctl") && root.ends_with(cluster)) {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::protocol::launch::FORMAT;

    fn launch(root: &Path, purge: bool) -> SweepLaunch {
        SweepLaunch { format: FORMAT, cluster: "demo".to_owned(), root_dir: root.to_owned(), purge }
    }

    #[tokio::test]
    async fn a_purge_removes_what_nodes_made_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("kmctl/demo");
        std::fs::create_dir_all(root.join("store")).unwrap();
        std::fs::write(root.join("store/abc"), "x").unwrap();
        sweep(&launch(&root, false)).await.unwrap();
        assert!(root.join("store/abc").exists(), "a sweep keeps the store");
        std::fs::write(root.join("mine"), "x").unwrap();
        assert!(sweep(&launch(&root, true)).await.is_err());
        assert!(root.join("mine").exists());
        std::fs::remove_file(root.join("mine")).unwrap();
        sweep(&launch(&root, true)).await.unwrap();
        assert!(!folder.path().join("kmctl").exists());
        sweep(&launch(&root, true)).await.unwrap();
    }
}
