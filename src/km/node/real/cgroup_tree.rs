//! The node's position in this machine's cgroup tree: read from the text of /proc/self/mountinfo and /proc/self/cgroup.
use std::path::{Path, PathBuf};

use super::super::deps::DepError;
use kmctl_core::node::spec::{CgroupsSpec, below};

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// `memory`, or `cpu` and `cpuacct` together, or `name=systemd`.
    pub controllers: Vec<String>,
    /// The mount point.
    pub mount: PathBuf,
    /// Whether Mesos has put the executor into the container's cgroup in this hierarchy.
    pub given: bool,
}

/// The machine's tree, and the node's position in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Every mounted v1 hierarchy.
    pub hierarchies: Vec<Hierarchy>,
    /// The v2 mount, if there is no v1 memory hierarchy.
    pub unified: Option<PathBuf>,
    /// The v2 mount beside v1 hierarchies: it limits nothing, but runtimes create their cgroups in it, too.
    pub beside: Option<PathBuf>,
    /// The node's cgroup below each mount: the Mesos container's, or one of the node's own.
    pub base: String,
    /// Whether Mesos gave the node a container cgroup that limits it.
    pub contained: bool,
}

/// Controllers that a kubelet requires in its `cgroupRoot` if the root has them (`getSupportedUnifiedControllers` in
/// pkg/kubelet/cm, Kubernetes 1.36).
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "hugetlb", "memory", "pids"];

impl Tree {
    /// Determines the node's position from the kernel's own description.
    pub fn read(mountinfo: &str, own_cgroups: &str, spec: &CgroupsSpec) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        let mut container = None;
        for mount in mountinfo.lines().filter_map(parse_mount) {
            if mount.kind == "cgroup2" {
                unified.get_or_insert(PathBuf::from(&mount.point));
                continue;
            }
            let controllers = controllers(&mount.options);
            if controllers.is_empty() || hierarchies.iter().any(|known| known.controllers == controllers) {
                continue;
            }
            let place = container_path(own_cgroups, &controllers, &mount.root, &spec.container_id);
            let bounds = controllers.iter().any(|name| name == "memory");
            if bounds && container.is_none() {
                container = place.clone();
            }
            hierarchies.push(Hierarchy { controllers, mount: mount.point.into(), given: place.is_some() });
        }
        let has_v1_memory = hierarchies.iter().any(|one| one.controllers.iter().any(|name| name == "memory"));
        let contained = container.is_some();
        let (beside, unified) = if has_v1_memory { (unified, None) } else { (None, unified) };
        Tree {
            unified,
            beside,
            base: container.unwrap_or_else(|| spec.own.clone()),
            contained,
            hierarchies: if has_v1_memory { hierarchies } else { Vec::new() },
        }
    }

    /// The kubelet's `cgroupRoot`.
    pub fn kubelet_root(&self) -> String {
        format!("{}/pods", self.base)
    }

    /// The directory of the pods in a controller's hierarchy.
    pub fn pods_of(&self, controller: &str) -> Option<PathBuf> {
        self.mount_of(controller).map(|mount| below(&mount, &self.kubelet_root()))
    }

    fn mount_of(&self, controller: &str) -> Option<PathBuf> {
        let v1 = self.hierarchies.iter().find(|one| one.controllers.iter().any(|name| name == controller));
        v1.map(|one| one.mount.clone()).or_else(|| self.unified.clone())
    }

    /// The container's memory limit in bytes.
    pub fn container_memory(&self) -> Option<u64> {
        let folder = below(&self.mount_of("memory").filter(|_| self.contained)?, &self.base);
        std::fs::read_to_string(folder.join("memory.limit_in_bytes")).ok()?.trim().parse().ok()
    }

    /// The container's CPU quota and period in microseconds, if there is a quota.
    pub fn container_quota(&self) -> Option<(u64, u64)> {
        let folder = below(&self.mount_of("cpu").filter(|_| self.contained)?, &self.base);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<i64>().ok();
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        (quota > 0 && period > 0).then_some((quota as u64, period as u64))
    }

    /// Creates the pods' cgroup in every mounted controller: the kubelet requires its `cgroupRoot` in all of them.
    pub fn create(&self) -> Result<(), DepError> {
        if let Some(mount) = &self.unified {
            for folder in ["", self.base.as_str()] {
                let folder = below(mount, folder);
                make(&folder)?;
                let file = folder.join("cgroup.subtree_control");
                let what = format!("delegate controllers in {}", file.display());
                // The controllers that the kubelet requires below its `cgroupRoot`, as far as this level has them. Some
                // kernels lack cpuset or hugetlb, and naming a missing controller makes the whole write fail.
                let there = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
                let wanted: Vec<String> = there
                    .split_whitespace()
                    .filter(|name| DELEGATED.contains(name))
                    .map(|name| format!("+{name}"))
                    .collect();
                std::fs::write(&file, wanted.join(" ")).map_err(DepError::io(what))?;
            }
            return make(&below(mount, &self.kubelet_root()));
        }
        for hierarchy in &self.hierarchies {
            let mut folder = hierarchy.mount.clone();
            for part in self.kubelet_root().split('/').filter(|part| !part.is_empty()) {
                let parent = folder.clone();
                folder = folder.join(part);
                make(&folder)?;
                if hierarchy.controllers.iter().any(|name| name == "cpuset") {
                    inherit_cpuset(&parent, &folder)?;
                }
            }
        }
        Ok(())
    }

    /// What the node creates and Mesos does not remove: cgroups to remove with everything in them, and then their
    /// parents, to remove if they are empty.
    pub fn leftovers(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut whole, mut if_empty) = (Vec::new(), Vec::new());
        if let Some(mount) = &self.unified {
            return (vec![below(mount, &self.base)], if_empty);
        }
        let given = |hierarchy: &Hierarchy| (hierarchy.mount.clone(), hierarchy.given);
        let beside = self.beside.iter().map(|mount| (mount.clone(), false));
        for (mount, given) in self.hierarchies.iter().map(given).chain(beside) {
            if given {
                whole.push(below(&mount, &self.kubelet_root()));
                continue;
            }
            whole.push(below(&mount, &self.base));
            // In a controller that Mesos does not isolate, Mesos does not own its root cgroup either.
            let mut parent = Path::new(self.base.trim_start_matches('/')).parent();
            while let Some(path) = parent.filter(|path| !path.as_os_str().is_empty()) {
                if_empty.push(mount.join(path));
                parent = path.parent();
            }
        }
        (whole, if_empty)
    }
}

fn make(folder: &Path) -> Result<(), DepError> {
    match std::fs::create_dir(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            let what = match source.raw_os_error() {
                Some(30) => format!("create cgroup {} (cgroups are mounted read-only)", folder.display()),
                _ => format!("create cgroup {}", folder.display()),
            };
            Err(DepError::Io { what, source })
        }
        _ => Ok(()),
    }
}

/// A new cpuset has no CPUs and no memory nodes, and then accepts no process.
fn inherit_cpuset(parent: &Path, folder: &Path) -> Result<(), DepError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        if own.trim().is_empty() {
            let what = format!("set {file} of {}", folder.display());
            let value = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
            std::fs::write(folder.join(file), value.trim()).map_err(DepError::io(what))?;
        }
    }
    Ok(())
}

struct Mount {
    root: String,
    point: String,
    kind: String,
    options: String,
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let mut rest = after.split(' ');
    let kind = rest.next()?;
    if kind != "cgroup" && kind != "cgroup2" {
        return None;
    }
    Some(Mount {
        root: (*fields.get(3)?).to_owned(),
        point: (*fields.get(4)?).to_owned(),
        kind: kind.to_owned(),
        options: rest.nth(1)?.to_owned(),
    })
}

/// The controllers of a hierarchy: its mount options, except those that every mount has.
fn controllers(options: &str) -> Vec<String> {
    const OTHERS: [&str; 6] = ["rw", "ro", "xattr", "noprefix", "clone_children", "seclabel"];
    options
        .split(',')
        .filter(|option| !OTHERS.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect()
}

/// The executor's cgroup in a hierarchy, up to the component that is the Mesos container's id.
fn container_path(own_cgroups: &str, controllers: &[String], mount_root: &str, container_id: &str) -> Option<String> {
    if container_id.is_empty() {
        return None;
    }
    let path = own_cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        names.split(',').any(|name| controllers.iter().any(|one| one == name)).then(|| fields.next())?
    })?;
    let seen = path.strip_prefix(mount_root.trim_end_matches('/')).unwrap_or(path);
    let (before, _) =
        format!("{seen}/").split_once(&format!("/{container_id}/")).map(|(a, b)| (a.to_owned(), b.to_owned()))?;
    Some(format!("{before}/{container_id}"))
}

/// A fake tree in a temporary directory.
#[cfg(test)]
pub(super) mod fake {
    use super::*;

    pub struct Machine {
        folder: tempfile::TempDir,
        mountinfo: String,
        cgroups: String,
    }

    impl Machine {
        pub fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        pub fn write(&self, path: &str, text: &str) {
            let file = self.path(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }

        pub fn tree(&self, container_id: &str) -> Tree {
            let spec = CgroupsSpec {
                container_id: container_id.to_owned(),
                own: "/kmctl-demo-0123abcd".to_owned(),
                overhead: Default::default(),
            };
            Tree::read(&self.mountinfo, &self.cgroups, &spec)
        }
    }

    pub fn v1(container: &str, limit: u64) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        let mountinfo = format!(
            "30 25 0:26 / {root}/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
             31 25 0:27 / {root}/cpu rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
             32 25 0:28 / {root}/cpuset rw shared:11 - cgroup cgroup rw,cpuset\n\
             33 25 0:29 / {root}/systemd rw shared:12 - cgroup cgroup rw,xattr,name=systemd\n\
             34 25 0:30 / {root}/unified rw shared:13 - cgroup2 cgroup2 rw\n\
             35 25 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        );
        let cgroups =
            format!("4:memory:{container}\n3:cpuset:/\n2:cpu,cpuacct:{container}\n1:name=systemd:/agent\n0::/\n");
        let machine = Machine { folder, mountinfo, cgroups };
        machine.write("cpuset/cpuset.cpus", "0-1\n");
        machine.write("cpuset/cpuset.mems", "0\n");
        machine.write("systemd/x", "");
        machine.write(&format!("memory{container}/memory.limit_in_bytes"), &format!("{limit}\n"));
        machine.write(&format!("cpu{container}/cpu.cfs_quota_us"), "-1\n");
        machine.write(&format!("cpu{container}/cpu.cfs_period_us"), "100000\n");
        machine
    }

    pub fn v2() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        std::fs::create_dir(folder.path().join("unified")).unwrap();
        let mountinfo = format!("30 25 0:26 / {root}/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
        let machine = Machine { folder, mountinfo, cgroups: "0::/system.slice/mesos-agent.service\n".to_owned() };
        // A kernel creates this file in every cgroup; this one has neither cpuset nor hugetlb.
        for level in ["", "/kmctl-demo-0123abcd"] {
            machine.write(&format!("unified{level}/cgroup.controllers"), "cpu io memory pids\n");
        }
        machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_is_found_below_the_mount_whatever_its_root() {
        for (cgroups, root, expected) in [
            ("4:memory:/mesos-a1/c1\n", "/", Some("/mesos-a1/c1")),
            ("4:memory:/mesos-a1/c1/mesos/c2\n", "/", Some("/mesos-a1/c1")),
            ("4:memory:/host7/mesos/c1\n", "/host7", Some("/mesos/c1")),
            ("4:memory:/system.slice\n", "/", None),
            ("4:cpu:/mesos/c1\n", "/", None),
        ] {
            let found = container_path(cgroups, &["memory".to_owned()], root, "c1");
            assert_eq!(found.as_deref(), expected, "{cgroups}");
        }
    }

    #[test]
    fn pods_get_a_cgroup_in_every_controller_and_cpusets_are_filled() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let tree = machine.tree("c1");
        assert!(tree.contained);
        tree.create().unwrap();
        for controller in ["memory", "cpu", "cpuset", "systemd"] {
            assert!(machine.path(&format!("{controller}/mesos/c1/pods")).is_dir(), "{controller}");
        }
        let cpus = std::fs::read_to_string(machine.path("cpuset/mesos/c1/pods/cpuset.cpus")).unwrap();
        assert_eq!(cpus, "0-1");
    }

    #[test]
    fn only_what_mesos_does_not_own_is_removed_beyond_the_pods() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let (whole, if_empty) = machine.tree("c1").leftovers();
        assert!(whole.contains(&machine.path("memory/mesos/c1/pods")));
        assert!(whole.contains(&machine.path("cpuset/mesos/c1")));
        assert!(!whole.contains(&machine.path("memory/mesos/c1")), "Mesos' own");
        let parents = ["cpuset/mesos", "systemd/mesos", "unified/mesos"].map(|path| machine.path(path));
        assert_eq!(if_empty, parents);
    }

    #[test]
    fn without_a_container_cgroup_the_node_makes_its_own() {
        let machine = fake::v1("/mesos/c1", 1 << 30);
        let tree = machine.tree("another");
        assert!(!tree.contained);
        assert_eq!(tree.kubelet_root(), "/kmctl-demo-0123abcd/pods");
        assert_eq!(tree.container_memory(), None);
    }
}
