//! What a run leaves outside its sandbox. It is recorded before any of it exists, so that a later run or a sweep can
//! remove it if the run could not. A run holds a lock on its ledger while it lives, and the kernel releases the lock
//! however the run ends. A process id would not be sufficient: it could belong to another process by then, or mean
//! nothing in another namespace.
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Version of this format.
pub const FORMAT: u32 = 1;

/// `<rootDir>/ledger/<executor id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ledger {
    /// [`FORMAT`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    pub executor_id: String,
    /// The run's process id, informational only.
    pub pid: u32,
    /// Text in the command line of every process of the run that may outlive it.
    pub mark: String,
    /// The run's directory.
    pub run: PathBuf,
    /// Directories outside it that the run uses as mount points.
    pub mount_points: Vec<PathBuf>,
    /// Cgroups that are removed with everything in them.
    pub cgroups: Vec<PathBuf>,
    /// Cgroups that are removed if they are empty.
    pub cgroup_parents: Vec<PathBuf>,
    /// Links (network devices).
    pub links: Vec<String>,
    /// The CNI network, named in its firewall rules.
    pub network: String,
    /// Kernel settings (sysctls) as they were before the run.
    pub sysctls: BTreeMap<String, String>,
}

/// Why a ledger could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The ledger could not be written, read, locked or removed.
    #[error("failed to {what} {path}")]
    File {
        /// The failed operation, e.g. `write`.
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not a valid ledger.
    #[error("failed to parse {path}")]
    Content {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The ledger was written by a newer version.
    #[error("{path} has unsupported format {format}; supported: {FORMAT}")]
    Format {
        path: PathBuf,
        /// The format found in the file.
        format: u32,
    },
}

/// A ledger on disk, locked: no other process treats the run as dead or removes its resources.
pub struct Held {
    /// The ledger's content.
    pub ledger: Ledger,
    path: PathBuf,
    _lock: Flock<std::fs::File>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Held").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Held {
    /// Writes and locks a new ledger. It appears under its name only when it is complete and locked.
    pub fn write(folder: &Path, ledger: Ledger) -> Result<Self, LedgerError> {
        let path = folder.join(format!("{}.json", ledger.executor_id));
        let partial = path.with_extension("part");
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::File { what, path, source }
        };
        std::fs::create_dir_all(folder).map_err(failed("create directory", folder))?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .map_err(failed("write", &partial))?;
        let text =
            serde_json::to_vec_pretty(&ledger).map_err(|source| LedgerError::Content { path: path.clone(), source })?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write", &partial))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed("lock", &partial)(errno.into()))?;
        std::fs::rename(&partial, &path).map_err(failed("write", &path))?;
        Ok(Held { ledger, path, _lock: lock })
    }

    /// Takes over the ledger of a dead run; none while the run lives, or if the ledger is gone.
    pub fn take(path: &Path) -> Result<Option<Self>, LedgerError> {
        let failed = |what| move |source| LedgerError::File { what, path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed("read"))?,
        };
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(failed("lock")(errno.into())),
        };
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed("read"))?,
        };
        let ledger: Ledger =
            serde_json::from_slice(&text).map_err(|source| LedgerError::Content { path: path.to_owned(), source })?;
        if ledger.format != FORMAT {
            return Err(LedgerError::Format { path: path.to_owned(), format: ledger.format });
        }
        Ok(Some(Held { ledger, path: path.to_owned(), _lock: lock }))
    }

    /// Removes the ledger, once everything that it lists is gone.
    pub fn forget(self) -> Result<(), LedgerError> {
        let Held { path, .. } = self;
        std::fs::remove_file(&path).map_err(|source| LedgerError::File { what: "remove", path, source })
    }
}

/// Every ledger in a directory, including those of living runs.
pub fn list(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    found.sort();
    found
}

/// Creates the root directory of all nodes, accessible to root only.
pub fn make_root(root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(executor_id: &str) -> Ledger {
        Ledger {
            format: FORMAT,
            cluster: "demo".to_owned(),
            executor_id: executor_id.to_owned(),
            pid: 1,
            mark: "/run/km-0123abcd".to_owned(),
            run: "/var/lib/kmctl/demo/runs/x".into(),
            mount_points: vec!["/run/km-0123abcd".into()],
            cgroups: vec!["/sys/fs/cgroup/cpuset/mesos/c1".into()],
            cgroup_parents: Vec::new(),
            links: vec!["km0123".to_owned()],
            network: "kmctl-demo".to_owned(),
            sysctls: BTreeMap::new(),
        }
    }

    #[test]
    fn a_living_runs_ledger_cannot_be_taken_a_dead_ones_can() {
        let folder = tempfile::tempdir().unwrap();
        let held = Held::write(folder.path(), ledger("n.1")).unwrap();
        let path = list(folder.path()).pop().unwrap();
        assert!(Held::take(&path).unwrap().is_none(), "it lives");
        drop(held);
        let taken = Held::take(&path).unwrap().expect("it is dead");
        assert_eq!(taken.ledger, ledger("n.1"));
        taken.forget().unwrap();
        assert!(list(folder.path()).is_empty());
        assert!(Held::take(&path).unwrap().is_none());
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Held::write(folder.path(), Ledger { format: FORMAT + 1, ..ledger("n.1") }).unwrap());
        let path = list(folder.path()).pop().unwrap();
        assert!(matches!(Held::take(&path), Err(LedgerError::Format { .. })));
        assert!(path.exists());
    }
}
