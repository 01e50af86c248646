//! The directories and mounts of a run. Requires the private mount namespace that `km node` enters first.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use tracing::info;

use super::super::deps::{DepError, Mounter};
use super::super::ledger::{self, Held, Ledger};
use super::cgroup_tree::Tree;
use super::proxy_lock::ProxySlot;
use super::{cleanup, root_dir, sysctls};
use kmctl_core::node::spec::{DepsSpec, Folders};

/// Marks a directory that exists only as a mount point of nodes.
pub(super) const MARKER: &str = ".kmctl-mount-point";

/// The run's directories and mounts on this machine.
pub struct RealMounter {
    spec: DepsSpec,
    tree: Tree,
    held: Mutex<Option<Held>>,
    lock: ProxySlot,
    /// Shared locks on the mount points: another node's end must not remove what this one has mounted.
    used: Mutex<Vec<Flock<std::fs::File>>>,
}

impl RealMounter {
    /// For one run, whose kube-proxy keeps its lock in `lock`.
    pub fn new(spec: DepsSpec, tree: Tree, lock: ProxySlot) -> Self {
        RealMounter { spec, tree, lock, held: Mutex::new(None), used: Mutex::new(Vec::new()) }
    }

    /// Moves the logs to a directory that survives the end of the run.
    fn keep_logs(&self) -> Result<(), DepError> {
        let folders = &self.spec.folders;
        let kept = folders.kept().join(&self.spec.node.executor_id);
        make(&kept)?;
        for (from, name) in [(folders.pod_logs(), "pods"), (self.spec.logs(), "node")] {
            let what = format!("keep {}", from.display());
            match std::fs::rename(&from, kept.join(name)) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DepError::Io { what, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn ledger(&self, sysctls: BTreeMap<String, String>) -> Ledger {
        let spec = &self.spec;
        let (cgroups, cgroup_parents) = self.tree.leftovers();
        Ledger {
            format: ledger::FORMAT,
            cluster: spec.node.cluster.clone(),
            executor_id: spec.node.executor_id.clone(),
            pid: std::process::id(),
            mark: spec.folders.short.display().to_string(),
            run: spec.folders.run.clone(),
            mount_points: spec.folders.mounts().into_iter().map(|(point, _)| point).collect(),
            cgroups,
            cgroup_parents,
            links: vec![spec.network.bridge.clone()],
            network: spec.network.name.clone(),
            sysctls,
        }
    }
}

#[async_trait]
impl Mounter for RealMounter {
    async fn open(&self) -> Result<(), DepError> {
        let folders = &self.spec.folders;
        let root = &folders.root;
        let in_use = root_dir::make_root(root, self.spec.once.is_some())?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).push(in_use);
        refuse_overlay(root)?;
        // What a killed run left here would conflict with this run.
        for dead in ledger::list(&folders.ledgers()) {
            if let Some(held) = Held::take(&dead).map_err(DepError::other("read the ledger of a dead run"))? {
                info!(run = held.ledger.executor_id, "removing the files of a dead run");
                cleanup::remove(held, None).await?;
            }
        }
        let held = Held::write(&folders.ledgers(), self.ledger(sysctls::read()))
            .map_err(DepError::other("write the ledger"))?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        for folder in ["bin", "cni", "cni.d", "net.d", "containerd", "etc", "images", "ipam", "opt"] {
            make(&folders.run.join(folder))?;
        }
        if self.spec.once.is_some() {
            // Pods' secrets are among these files: they must never be written to a disk.
            let etc = folders.run.join("etc");
            let what = format!("mount a tmpfs on {}", etc.display());
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("tmpfs"), &etc, Some("tmpfs"), flags, Some("mode=0700,size=64m")).map_err(DepError::io(what))?;
            make(&self.spec.logs())?;
        }
        for (point, source) in folders.mounts() {
            make(&source)?;
            let lock = make_mount_point(&point)?;
            self.used.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            let what = format!("mount {} on {}", source.display(), point.display());
            mount(Some(&source), &point, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(DepError::io(what))?;
            let what = format!("share {}", point.display());
            mount(None::<&str>, &point, None::<&str>, MsFlags::MS_SHARED, None::<&str>).map_err(DepError::io(what))?;
        }
        Ok(())
    }

    async fn close(&self) -> Result<(), DepError> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(held) = held else { return Ok(()) };
        let Folders { root, .. } = &self.spec.folders;
        if self.spec.once.as_ref().is_some_and(|once| once.keep) {
            self.keep_logs()?;
        }
        cleanup::remove(held, self.lock.take()).await?;
        root_dir::remove_root(root)
    }
}

fn make(folder: &Path) -> Result<(), DepError> {
    std::fs::create_dir_all(folder).map_err(DepError::io(format!("create {}", folder.display())))
}

/// Creates a directory to mount on, marks it if this call created it, and locks it as used.
fn make_mount_point(point: &PathBuf) -> Result<Flock<std::fs::File>, DepError> {
    let what = format!("create {}", point.display());
    if !point.exists() {
        std::fs::create_dir_all(point).map_err(DepError::io(what.clone()))?;
        std::fs::write(point.join(MARKER), "").map_err(DepError::io(what.clone()))?;
    }
    let folder = std::fs::File::open(point).map_err(DepError::io(what))?;
    Flock::lock(folder, FlockArg::LockSharedNonblock)
        .map_err(|(_, errno)| DepError::io(format!("lock {}", point.display()))(errno))
}

/// Overlays cannot be stacked: containerd's snapshots would fail for each pod.
fn refuse_overlay(root: &Path) -> Result<(), DepError> {
    let what = format!("inspect the file system of {}", root.display());
    let found = nix::sys::statfs::statfs(root).map_err(DepError::io(what))?;
    if found.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC {
        return Err(DepError::Refused(format!(
            "{} is on an overlay file system, which does not support containers; set nodes.rootDir to a directory \
             on ext4 or xfs",
            root.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_there_is_not_marked_as_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("a/new"));
        std::fs::create_dir(&old).unwrap();
        let _locks = (make_mount_point(&old).unwrap(), make_mount_point(&new).unwrap());
        assert!(!old.join(MARKER).exists());
        assert!(new.join(MARKER).exists());
    }
}
