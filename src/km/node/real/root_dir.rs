//! The root directory of everything that nodes keep on a machine. A cluster's nodes keep it, since the next node needs
//! the same files. A run that created it removes it at its end, unless a node has used it meanwhile.
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::super::deps::DepError;
use super::super::ledger;

/// Marks a root directory that is removed with the last run.
const MARKER: &str = ".transient";

/// Creates the directory if it does not exist, and returns a lock that marks it as in use. `once`: for a run.
pub fn make_root(root: &Path, once: bool) -> Result<Flock<std::fs::File>, DepError> {
    let what = || format!("create {}", root.display());
    loop {
        let fresh = !root.exists();
        ledger::make_root(root).map_err(DepError::io(what()))?;
        let folder = std::fs::File::open(root).map_err(DepError::io(what()))?;
        let lock = Flock::lock(folder, FlockArg::LockShared)
            .map_err(|(_, errno)| DepError::io(format!("lock {}", root.display()))(errno))?;
        // Another run's end may have removed it before the lock was taken.
        let same = std::fs::metadata(root).and_then(|now| Ok(now.ino() == lock.metadata()?.ino())).unwrap_or(false);
        if !same {
            continue;
        }
        let marker = root.join(MARKER);
        if once && fresh {
            std::fs::write(&marker, "").map_err(DepError::io(what()))?;
        } else if !once {
            let _ = std::fs::remove_file(&marker);
        }
        return Ok(lock);
    }
}

/// Removes the directory if a run created it and it is no longer in use.
pub fn remove_root(root: &Path) -> Result<(), DepError> {
    if !root.join(MARKER).exists() {
        return Ok(());
    }
    let what = format!("remove {}", root.display());
    let folder = std::fs::File::open(root).map_err(DepError::io(what.clone()))?;
    let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    if !ledger::list(&root.join("ledger")).is_empty() {
        return Ok(());
    }
    for known in ["store", "ledger", "runs"] {
        match std::fs::remove_dir_all(root.join(known)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(DepError::Io { what, source }),
            _ => {}
        }
    }
    if root.join("kept").exists() {
        return Ok(());
    }
    std::fs::remove_file(root.join(MARKER)).map_err(DepError::io(what.clone()))?;
    // Other files in it are not kmctl's; then the directory remains.
    if std::fs::remove_dir(root).is_ok()
        && let Some(parent) = root.parent().filter(|parent| parent.ends_with("kmctl"))
    {
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_removes_only_a_root_that_came_with_runs() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("kmctl/demo");
        let first = make_root(&root, true).unwrap();
        std::fs::create_dir(root.join("store")).unwrap();
        let second = make_root(&root, true).unwrap();
        drop(first);
        remove_root(&root).unwrap();
        assert!(root.join("store").exists(), "another run uses it");
        drop(second);
        remove_root(&root).unwrap();
        assert!(!folder.path().join("kmctl").exists());
        remove_root(&root).unwrap();
    }

    #[test]
    fn a_root_that_a_node_uses_stays() {
        let folder = tempfile::tempdir().unwrap();
        for runs_first in [true, false] {
            let root = folder.path().join(format!("{runs_first}"));
            drop(make_root(&root, runs_first).unwrap());
            drop(make_root(&root, !runs_first).unwrap());
            remove_root(&root).unwrap();
            assert!(root.exists(), "{runs_first}");
        }
    }

    #[test]
    fn what_was_kept_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("demo");
        drop(make_root(&root, true).unwrap());
        std::fs::create_dir_all(root.join("kept/x")).unwrap();
        std::fs::create_dir(root.join("store")).unwrap();
        remove_root(&root).unwrap();
        assert!(root.join("kept/x").exists() && !root.join("store").exists());
    }
}
