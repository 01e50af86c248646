//! Removes what a run's ledger lists: at the run's own end, by the next run, or by a sweep.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use tokio::process::Command;
use tracing::{info, warn};

use super::super::deps::DepError;
use super::super::ledger::{Held, Ledger};
use super::folders::MARKER;
use super::proxy_lock::{self, ProxyLock};
use super::{cgroups, firewall, forward, nft_remains, signals, sysctls};
use crate::cni::rules::Chains;

/// How long processes of the run may take to disappear after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Removes everything, continues after errors, and deletes the ledger only when nothing is left. `lock`: the run's own.
pub async fn remove(held: Held, lock: Option<ProxyLock>) -> Result<(), DepError> {
    let Ledger { format: _, cluster, executor_id, pid: _, mark, run, mount_points, .. } = &held.ledger;
    let Ledger { cgroups: whole, cgroup_parents, links, network, sysctls: before, .. } = &held.ledger;
    let mut left = Vec::new();
    for cgroup in whole {
        // Pods first: their processes hold all other resources.
        note(&mut left, cgroups::remove(cgroup).await);
    }
    kill_strays(mark).await;
    for parent in cgroup_parents {
        // Fails if the cgroup contains another container; then it must not be removed.
        let _ = std::fs::remove_dir(parent);
    }
    for link in links {
        note(&mut left, remove_link(link).await);
    }
    // The holder of the lock is the only node here, so the common chains and settings have no other user.
    let alone = lock.or_else(|| proxy_lock::take().ok());
    let containers = cni_containers(run, network);
    clean_firewall(cluster, network, alone.is_some(), &containers, &mut left).await;
    clean_nft(network, alone.is_some(), &containers, &mut left).await;
    sysctls::restore(before, alone.is_some());
    let mut points = mount_points.clone();
    points.push(run.clone());
    note(&mut left, unmount(&points));
    for point in mount_points {
        note(&mut left, remove_mount_point(point));
    }
    if left.is_empty() {
        note(&mut left, remove_folder(run));
    }
    if !left.is_empty() {
        return Err(DepError::NotNow(left.join("; ")));
    }
    info!(run = executor_id, "removed the run");
    held.forget().map_err(DepError::other("remove the ledger"))
}

fn note(left: &mut Vec<String>, result: Result<(), DepError>) {
    if let Err(error) = result {
        warn!("{}", error.chain());
        left.push(error.chain());
    }
}

/// Shims and children that survived the run: the run's short directory is in their command line.
async fn kill_strays(mark: &str) {
    let end = tokio::time::Instant::now() + KILL_LIMIT;
    loop {
        let strays = signals::naming(mark);
        if strays.is_empty() || tokio::time::Instant::now() >= end {
            return;
        }
        strays.into_iter().for_each(signals::kill);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn remove_link(link: &str) -> Result<(), DepError> {
    if !Path::new("/sys/class/net").join(link).exists() {
        return Ok(());
    }
    run_program("ip", &["link", "delete", "dev", link], None).await.map(|_| ())
}

/// Containers that CNI plugins were connecting or disconnecting: those with an address (`host-local` records its
/// owner), and those in libcni's own records, `<network>-<container>-<interface>`.
fn cni_containers(run: &Path, network: &str) -> BTreeSet<String> {
    let names = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned())).collect::<Vec<_>>()
    };
    let leases = names(run.join("ipam").join(network)).into_iter();
    let with_address =
        leases.filter_map(|(path, _)| Some(std::fs::read_to_string(path).ok()?.lines().next()?.to_owned()));
    let noted = names(run.join("cni-cache/results")).into_iter().filter_map(|(_, name)| {
        let rest = name.strip_prefix(network)?.strip_prefix('-')?;
        rest.rsplit_once('-').map(|(container, _)| container.to_owned())
    });
    with_address.chain(noted).collect()
}

/// With every existing variant: the variant of a dead run is not recorded, and may have been another one.
async fn clean_firewall(
    cluster: &str,
    network: &str,
    proxy: bool,
    containers: &BTreeSet<String>,
    left: &mut Vec<String>,
) {
    let chains = containers.iter().flat_map(|id| firewall::chains_of(network, id)).collect();
    for family in ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"] {
        let Ok(saved) = run_program(&format!("{family}-save"), &[], None).await else {
            // Without the binary no node could have written rules.
            continue;
        };
        let scripts = [
            Chains::new(cluster).purge(&saved),
            firewall::removal(&saved, network, proxy, &chains),
            proxy.then(|| forward::removal(cluster, &saved)).flatten(),
        ];
        for script in scripts.into_iter().flatten() {
            let restored = run_program(&format!("{family}-restore"), &["--noflush", "--wait"], Some(script)).await;
            note(left, restored.map(drop));
        }
    }
}

async fn clean_nft(network: &str, proxy: bool, containers: &BTreeSet<String>, left: &mut Vec<String>) {
    // Without the binary no node could have created tables.
    let Ok(tables) = run_program("nft", &["list", "tables"], None).await else { return };
    let mut scripts = Vec::new();
    scripts.extend(proxy.then(|| nft_remains::proxy_removal(&tables)).flatten());
    for table in nft_remains::PLUGINS.into_iter().filter(|table| nft_remains::is_there(&tables, table)) {
        let arguments: Vec<&str> = ["--json", "list", "table"].into_iter().chain(table.split(' ')).collect();
        match run_program("nft", &arguments, None).await {
            Ok(listed) => {
                scripts.extend(nft_remains::plugin_removal(table, &listed, network, containers, proxy));
            }
            Err(error) => note(left, Err(error)),
        }
    }
    for script in scripts {
        note(left, run_program("nft", &["-f", "-"], Some(script)).await.map(drop));
    }
}

/// Runs a binary of the host until it ends.
pub(super) async fn run_program(name: &str, arguments: &[&str], input: Option<String>) -> Result<String, DepError> {
    let what = || format!("run {name} {}", arguments.join(" "));
    let mut command = Command::new(name);
    command.args(arguments).kill_on_drop(true);
    command.stdin(if input.is_some() { std::process::Stdio::piped() } else { std::process::Stdio::null() });
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().map_err(DepError::io(what()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, text.as_bytes()).await.map_err(DepError::io(what()))?;
    }
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .map_err(|_| DepError::NotNow(format!("{}: not finished within 1m", what())))?
        .map_err(DepError::io(what()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(DepError::NotNow(format!("{}: {}: {}", what(), output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unmounts everything at and below these directories in this mount namespace, topmost mount first.
fn unmount(folders: &[PathBuf]) -> Result<(), DepError> {
    for _ in 0..16 {
        let mounted = mounts_below(folders);
        if mounted.is_empty() {
            return Ok(());
        }
        for point in mounted.iter().rev() {
            // Detached: a process that is about to end may still use a directory there.
            let _ = umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    Err(DepError::NotNow(format!(
        "mounts are left below {}",
        folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    )))
}

fn mounts_below(folders: &[PathBuf]) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| folders.iter().any(|folder| point.starts_with(folder)))
        .collect()
}

/// The kernel writes a space as `\040`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Removes a mount point that was created for nodes, unless another node uses it: removing a directory that is a mount
/// point in another namespace would remove that mount.
fn remove_mount_point(point: &Path) -> Result<(), DepError> {
    if !point.join(MARKER).exists() {
        return Ok(());
    }
    let what = format!("remove {}", point.display());
    let folder = std::fs::File::open(point).map_err(DepError::io(what.clone()))?;
    let Ok(_lock) = Flock::lock(folder, FlockArg::LockExclusiveNonblock) else { return Ok(()) };
    let others = std::fs::read_dir(point).map_err(DepError::io(what.clone()))?.count();
    if others > 1 {
        return Ok(());
    }
    std::fs::remove_file(point.join(MARKER)).map_err(DepError::io(what.clone()))?;
    std::fs::remove_dir(point).map_err(DepError::io(what))
}

/// Removes the run's directory. Only after [`unmount`] succeeded: data below a mount may belong to others.
fn remove_folder(run: &Path) -> Result<(), DepError> {
    if !mounts_below(&[run.to_owned()]).is_empty() {
        return Err(DepError::NotNow(format!("{} still has mounts", run.display())));
    }
    match std::fs::remove_dir_all(run) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DepError::Io { what: format!("remove {}", run.display()), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_goes_only_when_it_is_ours_and_unused() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            files.iter().for_each(|file| std::fs::write(path.join(file), "").unwrap());
            path
        };
        let (ours, theirs, filled) = (make("a", &[MARKER]), make("b", &[]), make("c", &[MARKER, "data"]));
        let used = make("d", &[MARKER]);
        let lock = Flock::lock(std::fs::File::open(&used).unwrap(), FlockArg::LockSharedNonblock);
        for path in [&ours, &theirs, &filled, &used] {
            remove_mount_point(path).unwrap();
        }
        drop(lock);
        assert_eq!([&ours, &theirs, &filled, &used].map(|path| path.exists()), [false, true, true, true]);
    }

    #[test]
    fn containers_that_plugins_were_busy_with_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        file("ipam/kmctl-demo/172.30.0.2", "c1\r\neth0");
        file("ipam/kmctl-demo/last_reserved_ip.0", "172.30.0.2");
        file("cni-cache/results/kmctl-demo-c2-eth0", "{}");
        file("cni-cache/results/cni-loopback-c2-lo", "{}");
        let found = cni_containers(folder.path(), "kmctl-demo");
        assert!(["c1", "c2"].iter().all(|id| found.contains(*id)), "{found:?}");
        assert!(cni_containers(&folder.path().join("none"), "kmctl-demo").is_empty());
    }
}
