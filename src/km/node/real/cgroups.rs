//! The bound of all pods: a cgroup of their own below the Mesos container's, limited to the sum of the current tasks
//! and strictly below the container's limit. A pod that exceeds its memory is killed inside that cgroup. Mesos sees no
//! OOM in its container, so it destroys neither the executor nor the other pods.
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use super::super::deps::{Cgroups, DepError};
use super::cgroup_tree::Tree;
use super::signals;
use kmctl_core::node::spec::CgroupsSpec;
use kmctl_core::protocol::launch::Grant;
use kmctl_core::text::count;

/// The lowest bound in bytes: what the kernel needs to create an empty cgroup.
const LEAST_MEMORY: u64 = 4 << 20;
/// Above this value a v1 limit means "none".
const UNLIMITED: u64 = 1 << 60;
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// The node's cgroups on this machine.
pub struct RealCgroups {
    tree: Tree,
    overhead: Grant,
    total: Mutex<Option<Grant>>,
    created: std::sync::atomic::AtomicBool,
}

impl RealCgroups {
    /// In the tree that the process is in.
    pub fn new(tree: Tree, spec: &CgroupsSpec) -> Self {
        RealCgroups { tree, overhead: spec.overhead, total: Mutex::new(None), created: Default::default() }
    }

    fn apply(&self, total: Grant) -> Result<(), DepError> {
        let memory = bound_memory(total, self.overhead, self.tree.container_memory());
        if self.tree.unified.is_some() {
            let pods = self.tree.pods_of("memory").unwrap_or_default();
            write(&pods.join("memory.max"), &memory.to_string())?;
            // The kernel's default weight of 100 corresponds to 1024 shares.
            let weight = (total.cpus * 100.0).round().clamp(1.0, 10_000.0) as u64;
            write(&pods.join("cpu.weight"), &weight.to_string())?;
            return write(&pods.join("cpu.max"), &format!("{} 100000", quota(total.cpus, 100_000, None)));
        }
        if let Some(pods) = self.tree.pods_of("memory") {
            write(&pods.join("memory.limit_in_bytes"), &memory.to_string())?;
        }
        if let Some(pods) = self.tree.pods_of("cpu") {
            let shares = (total.cpus * 1024.0).round().max(2.0) as u64;
            write(&pods.join("cpu.shares"), &shares.to_string())?;
            // A hard limit only if Mesos itself has set one: pods are limited like every other task of the agent.
            if let Some((allowed, period)) = self.tree.container_quota() {
                write(&pods.join("cpu.cfs_period_us"), &period.to_string())?;
                write(&pods.join("cpu.cfs_quota_us"), &quota(total.cpus, period, Some(allowed)).to_string())?;
            }
        }
        Ok(())
    }
}

/// The sum of the tasks, without exceeding what the container has beyond the executor's own share.
fn bound_memory(total: Grant, overhead: Grant, container: Option<u64>) -> u64 {
    let wanted = bytes(total.mem);
    let most = container
        .filter(|limit| *limit < UNLIMITED)
        .map_or(u64::MAX, |limit| limit.saturating_sub(bytes(overhead.mem)));
    wanted.min(most).max(LEAST_MEMORY)
}

fn bytes(megabytes: f64) -> u64 {
    (megabytes.max(0.0) * f64::from(1 << 20)) as u64
}

/// Microseconds per period; the kernel refuses less than 1000 and more than the parent's.
fn quota(cpus: f64, period: u64, allowed: Option<u64>) -> u64 {
    ((cpus * period as f64).round() as u64).max(1000).min(allowed.unwrap_or(u64::MAX))
}

fn write(file: &Path, value: &str) -> Result<(), DepError> {
    std::fs::write(file, value).map_err(DepError::io(format!("write {value} to {}", file.display())))
}

#[async_trait]
impl Cgroups for RealCgroups {
    async fn create(&self) -> Result<String, DepError> {
        self.tree.create()?;
        self.created.store(true, std::sync::atomic::Ordering::SeqCst);
        let total = self.total.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
        self.apply(total)?;
        Ok(self.tree.kubelet_root())
    }

    async fn resize(&self, total: Grant) -> Result<(), DepError> {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(total);
        if !self.created.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(());
        }
        self.apply(total)
    }

    async fn is_empty(&self, uid: &str) -> bool {
        let Some(pods) = self.tree.pods_of("memory") else { return true };
        // With the cgroupfs driver: one directory per quality of service, none for guaranteed pods.
        ["kubepods", "kubepods/burstable", "kubepods/besteffort"]
            .iter()
            .all(|parent| processes(&pods.join(parent).join(format!("pod{uid}"))).is_empty())
    }

    async fn stop(&self, grace: Duration) -> Result<(), DepError> {
        let Some(pods) = self.tree.pods_of("memory") else { return Ok(()) };
        if processes(&pods).is_empty() {
            return Ok(());
        }
        if !grace.is_zero() {
            for pid in inits(&pods) {
                signals::terminate(pid);
            }
            wait_empty(&pods, grace).await;
        }
        kill_all(&pods).await
    }
}

/// Kills until nothing is left: a fork may be faster than one round.
pub(super) async fn kill_all(cgroup: &Path) -> Result<(), DepError> {
    let end = tokio::time::Instant::now() + KILL_LIMIT;
    loop {
        let pids = processes(cgroup);
        if pids.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() >= end {
            return Err(DepError::NotNow(format!(
                "{} still running in {}",
                count(pids.len(), "process"),
                cgroup.display()
            )));
        }
        // On v2 one write also reaches processes that are forked meanwhile.
        if std::fs::write(cgroup.join("cgroup.kill"), "1").is_err() {
            pids.into_iter().for_each(signals::kill);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn wait_empty(cgroup: &Path, limit: Duration) {
    let end = tokio::time::Instant::now() + limit;
    while !processes(cgroup).is_empty() && tokio::time::Instant::now() < end {
        tokio::time::sleep(POLL).await;
    }
}

/// Every process in a cgroup and below it.
pub(super) fn processes(cgroup: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
        folders.extend(children(&folder));
    }
    found
}

/// The first processes of the containers, to which a runtime would send SIGTERM. For a container that shares the host's
/// process ids, all of its processes.
fn inits(cgroup: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        let here: Vec<i32> = listed.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let first: Vec<i32> = here.iter().copied().filter(|pid| is_init(*pid)).collect();
        found.extend(if first.is_empty() { here } else { first });
        folders.extend(children(&folder));
    }
    found
}

fn is_init(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a cgroup and those below it, deepest first, after killing their processes.
pub(super) async fn remove(cgroup: &Path) -> Result<(), DepError> {
    if !cgroup.exists() {
        return Ok(());
    }
    kill_all(cgroup).await?;
    let mut order = vec![cgroup.to_owned()];
    let mut next = 0;
    while next < order.len() {
        let below = children(&order[next]);
        order.extend(below);
        next += 1;
    }
    for folder in order.iter().rev() {
        // A killed process leaves its cgroup a moment after it has left the list.
        let mut attempts = 0;
        while let Err(source) = std::fs::remove_dir(folder) {
            if source.kind() == std::io::ErrorKind::NotFound {
                break;
            }
            attempts += 1;
            if attempts > 20 {
                warn!("cgroup {} not removed: {source}", folder.display());
                return Err(DepError::Io { what: format!("remove {}", folder.display()), source });
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cgroup_tree::fake;
    use super::*;

    fn grant(cpus: f64, mem: f64) -> Grant {
        Grant { cpus, mem }
    }

    fn cgroups(tree: Tree) -> RealCgroups {
        let spec = CgroupsSpec {
            container_id: "c1".to_owned(),
            own: "/kmctl-demo-0123abcd".to_owned(),
            overhead: grant(0.25, 512.0),
        };
        RealCgroups::new(tree, &spec)
    }

    fn read(folder: &Path, file: &str) -> String {
        std::fs::read_to_string(folder.join(file)).unwrap_or_default()
    }

    #[test]
    fn pods_get_the_sum_of_the_tasks_but_never_the_executors_share() {
        let (mib, overhead) = (1u64 << 20, grant(0.25, 512.0));
        for (total, container, expected) in [
            (64.0, None, 64 * mib),
            (64.0, Some(600 * mib), 64 * mib),
            (200.0, Some(600 * mib), 88 * mib),
            (200.0, Some(UNLIMITED), 200 * mib),
            (0.0, Some(600 * mib), LEAST_MEMORY),
            (64.0, Some(100 * mib), LEAST_MEMORY),
        ] {
            assert_eq!(bound_memory(grant(1.0, total), overhead, container), expected, "{total} in {container:?}");
        }
    }

    #[tokio::test]
    async fn the_bound_follows_the_tasks_up_and_down() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let cgroups = cgroups(machine.tree("c1"));
        cgroups.resize(grant(0.5, 128.0)).await.unwrap();
        assert_eq!(cgroups.create().await.unwrap(), "/mesos/c1/pods");
        let memory = machine.path("memory/mesos/c1/pods");
        let cpu = machine.path("cpu/mesos/c1/pods");
        assert_eq!(read(&memory, "memory.limit_in_bytes"), (128 << 20).to_string());
        assert_eq!(read(&cpu, "cpu.shares"), "512");
        cgroups.resize(grant(1.0, 256.0)).await.unwrap();
        assert_eq!(read(&memory, "memory.limit_in_bytes"), (256 << 20).to_string());
        cgroups.resize(grant(0.25, 64.0)).await.unwrap();
        assert_eq!(read(&memory, "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "", "Mesos sets no hard limit, so neither do we");
    }

    #[tokio::test]
    async fn a_hard_cpu_limit_is_set_where_mesos_sets_one() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        machine.write("cpu/mesos/c1/cpu.cfs_quota_us", "80000");
        machine.write("cpu/mesos/c1/cpu.cfs_period_us", "100000");
        let cgroups = cgroups(machine.tree("c1"));
        cgroups.create().await.unwrap();
        cgroups.resize(grant(0.5, 64.0)).await.unwrap();
        let cpu = machine.path("cpu/mesos/c1/pods");
        assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "50000");
        cgroups.resize(grant(3.0, 64.0)).await.unwrap();
        assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "80000", "the parent's is the most");
    }

    #[tokio::test]
    async fn on_cgroup_v2_the_node_makes_its_own_and_bounds_the_pods_there() {
        let machine = fake::v2();
        let cgroups = cgroups(machine.tree("c1"));
        assert_eq!(cgroups.create().await.unwrap(), "/kmctl-demo-0123abcd/pods");
        cgroups.resize(grant(0.5, 64.0)).await.unwrap();
        let pods = machine.path("unified/kmctl-demo-0123abcd/pods");
        assert_eq!(read(&pods, "memory.max"), (64 << 20).to_string());
        assert_eq!(read(&pods, "cpu.max"), "50000 100000");
        assert_eq!(read(&pods, "cpu.weight"), "50");
        for level in ["unified", "unified/kmctl-demo-0123abcd"] {
            let delegated = read(&machine.path(level), "cgroup.subtree_control");
            assert_eq!(delegated, "+cpu +memory +pids", "what the kubelet wants and this kernel has");
        }
    }

    #[tokio::test]
    async fn a_pod_is_empty_when_none_of_its_containers_has_a_process() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let cgroups = cgroups(machine.tree("c1"));
        cgroups.create().await.unwrap();
        machine.write("memory/mesos/c1/pods/kubepods/burstable/podu1/a/cgroup.procs", "12345\n");
        machine.write("memory/mesos/c1/pods/kubepods/podu2/a/cgroup.procs", "");
        assert!(!cgroups.is_empty("u1").await);
        assert!(cgroups.is_empty("u2").await);
        assert!(cgroups.is_empty("u3").await, "a pod that was never started");
    }

    #[tokio::test]
    async fn a_refused_write_names_the_file() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let cgroups = cgroups(machine.tree("c1"));
        cgroups.create().await.unwrap();
        let file = machine.path("memory/mesos/c1/pods/memory.limit_in_bytes");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let error = cgroups.resize(grant(1.0, 64.0)).await.unwrap_err();
        assert!(error.to_string().contains("memory.limit_in_bytes"), "{error}");
    }
}
