//! Whether a machine can be a control-plane host.
use super::finding::Finding;
use crate::inventory::machine::{Machine, PORTS};
use kmctl_core::cluster::{Cluster, Network, NetworkMode, clash};
use kmctl_core::node::spec::bridge_name;
use kmctl_core::protocol::host::OwnershipError;

/// What the control plane's binaries and a new etcd need. With less, the first `up` already fails.
const LEAST_FREE_KIB: u64 = 1 << 20;

/// Enough for etcd's backups and growth.
const GOOD_FREE_KIB: u64 = 4 << 20;

/// etcd, the API server and the controllers use about 1 GiB together when idle.
const GOOD_MEMORY_KIB: u64 = 3 << 19;

/// Seconds. Certificates and leases compare clocks, and etcd warns from one second on.
const CLOCK_SKEW: f64 = 1.0;

/// Seconds. A certificate created here would not be valid there yet.
const CLOCK_BROKEN: f64 = 60.0;

/// What is wrong with `host`.
pub fn judge_machine(host: &str, machine: &Machine) -> Vec<Finding> {
    let mut found = Vec::new();
    if machine.uid != Some(0) {
        let cure = "set ssh.user to root, or ssh.sudo to nopasswd with a sudoers rule for that user";
        found.push(Finding::error(host, "commands do not run as root", cure));
    }
    if machine.systemd.is_empty() || machine.init != "systemd" {
        let text = format!("systemd is not the init system (process 1 is `{}`)", machine.init);
        found.push(Finding::error(host, text, "use a host that runs systemd"));
    }
    if machine.architecture != "x86_64" {
        let text = format!("architecture is {}, but bundles are for x86_64", machine.architecture);
        found.push(Finding::error(host, text, "use an x86_64 host"));
    }
    for folder in &machine.readonly {
        found.push(Finding::error(host, format!("{folder} is not writable"), "remount it read-write"));
    }
    let free = |folder: &str| machine.free_kib.get(folder).copied();
    let text = |free: u64, folder: &str| match free {
        ..LEAST_FREE_KIB => format!("{} MiB free in {folder}", free >> 10),
        _ => format!("{:.1} GiB free in {folder}", gib(free)),
    };
    match free("/var/lib") {
        Some(kib) if kib < LEAST_FREE_KIB => {
            found.push(Finding::error(host, text(kib, "/var/lib"), "free at least 1 GiB, preferably 4 GiB"));
        }
        Some(kib) if kib < GOOD_FREE_KIB => {
            let cure = "free 4 GiB for etcd data, snapshots and binaries";
            found.push(Finding::warning(host, text(kib, "/var/lib"), cure));
        }
        _ => {}
    }
    // On most machines it is the same file system, and was reported already.
    if let Some(kib) = free("/usr/local/lib").filter(|kib| *kib < LEAST_FREE_KIB && free("/var/lib") != Some(*kib)) {
        found.push(Finding::error(host, text(kib, "/usr/local/lib"), "free at least 1 GiB for binaries"));
    }
    if machine.memory_kib < GOOD_MEMORY_KIB {
        let text = format!("{:.1} GiB memory", gib(machine.memory_kib));
        found.push(Finding::warning(host, text, "use a host with at least 1.5 GiB for etcd and the API server"));
    }
    for (port, program) in &machine.ports {
        let ours = PORTS.iter().any(|(known, ours)| known == port && program.starts_with(ours));
        if !ours {
            let text = format!("port {port} is in use by {program}");
            found.push(Finding::error(host, text, "stop it or move it to another port"));
        }
    }
    found
}

/// Whether the machine may become a host of this cluster.
pub fn judge_ownership(cluster: &str, host: &str, machine: &Machine) -> Option<Finding> {
    let error = machine.ownership.judge(cluster, host).err()?;
    // The finding names the host already.
    let text = error.to_string();
    let text = text.strip_prefix(host).map_or(text.as_str(), str::trim_start);
    Some(Finding::error(host, text, ownership_hint(&error)))
}

/// What the operator can do about a host that must not be changed.
pub fn ownership_hint(error: &OwnershipError) -> String {
    match error {
        OwnershipError::OtherCluster { found, wanted, .. } => format!(
            "if the cluster was renamed in cluster.yaml, set metadata.name back to {found}: a cluster keeps its name; if {wanted} \
             is another cluster, it needs other hosts"
        ),
        OwnershipError::OtherMember { member, .. } => {
            format!("set its name back to {member}; to rename it, remove it from the cluster and add it again")
        }
        OwnershipError::Foreign { .. } => {
            "use another host, or uninstall what uses this one (for example with `kubeadm \
             reset`) and remove what is left: kmctl changes nothing that it has not installed"
                .to_owned()
        }
    }
}

/// Whether the pods' network clashes with this machine's own. No pod runs on a control-plane host, but agents are
/// mostly in the same networks, and only these hosts can be inspected.
pub fn judge_routes(cluster: &Cluster, host: &str, machine: &Machine) -> Option<Finding> {
    let spec = &cluster.spec;
    if spec.network.mode != NetworkMode::HostPorts {
        return None;
    }
    let pods: Network = spec.network.pod_cidr.parse().ok()?;
    let (route, free) = clash(&pods, &machine.routes, &bridge_name(&cluster.metadata.name))?;
    let text = format!("route to {} on {} overlaps network.podCIDR {pods}", route.network, route.device);
    let cure = match free {
        Some(free) => format!("set network.podCIDR to {free} if it is unused on the agents too"),
        None => "set network.podCIDR to a network without routes on any machine".to_owned(),
    };
    Some(Finding::warning(host, text, cure))
}

/// Whether clocks agree with ours and with each other.
pub fn judge_clocks(machines: &[(&str, &Machine)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let sure = |skew: f64, within: f64, limit: f64| skew.abs() - within > limit;
    for (host, machine) in machines {
        if sure(machine.ahead, machine.within, CLOCK_BROKEN) {
            let text = format!("clock is {} that of this machine", distance(machine.ahead));
            found.push(Finding::error(host, text, "synchronize both clocks, e.g. with chrony or systemd-timesyncd"));
        }
    }
    for (index, (host, machine)) in machines.iter().enumerate() {
        for (other, reference) in &machines[..index] {
            let (skew, within) = (machine.ahead - reference.ahead, machine.within + reference.within);
            if sure(skew, within, CLOCK_SKEW) {
                let text = format!("clock is {} that of {other}", distance(skew));
                found.push(Finding::warning(
                    host,
                    text,
                    "synchronize both clocks, e.g. with chrony or systemd-timesyncd",
                ));
            }
        }
    }
    found
}

fn distance(seconds: f64) -> String {
    let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
    format!("{:.1}s {direction}", seconds.abs())
}

fn gib(kib: u64) -> f64 {
    kib as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::cluster::Route;

    fn good() -> Machine {
        Machine {
            uid: Some(0),
            architecture: "x86_64".to_owned(),
            init: "systemd".to_owned(),
            systemd: "systemd 252".to_owned(),
            memory_kib: 4 << 20,
            free_kib: [("/var/lib".to_owned(), 20 << 20)].into(),
            ..Machine::default()
        }
    }

    #[test]
    fn a_good_machine_has_no_findings_also_when_the_control_plane_runs_on_it() {
        let mut machine = good();
        for (port, program) in [(2379, "etcd"), (6443, "kube-apiserver"), (10257, "kube-controller"), (10271, "km")] {
            machine.ports.insert(port, program.to_owned());
        }
        assert_eq!(judge_machine("cp1", &machine), []);
    }

    #[test]
    fn every_flaw_is_found_with_its_cure() {
        type Spoil = fn(&mut Machine);
        let table: [(Spoil, &str); 8] = [
            (|m| m.uid = Some(1000), "commands do not run as root"),
            (|m| m.init = "runit".to_owned(), "systemd is not the init system (process 1 is `runit`)"),
            (|m| m.architecture = "aarch64".to_owned(), "architecture is aarch64, but bundles are for x86_64"),
            (|m| m.readonly.push("/etc".to_owned()), "/etc is not writable"),
            (|m| *m.free_kib.entry("/var/lib".to_owned()).or_default() = 1 << 19, "512 MiB free in /var/lib"),
            (
                |m| *m.free_kib.entry("/usr/local/lib".to_owned()).or_default() = 1 << 18,
                "256 MiB free in /usr/local/lib",
            ),
            (|m| m.memory_kib = 1 << 20, "1.0 GiB memory"),
            (|m| drop(m.ports.insert(6443, "nginx".to_owned())), "port 6443 is in use by nginx"),
        ];
        for (spoil, expected) in table {
            let mut machine = good();
            spoil(&mut machine);
            let found = judge_machine("cp1", &machine);
            let texts: Vec<_> = found.iter().map(|finding| finding.text.as_str()).collect();
            assert_eq!(texts, [expected]);
            assert!(!found[0].cure.is_empty());
        }
    }

    #[test]
    fn a_machine_that_is_anothers_is_an_error() {
        let mut machine = good();
        assert_eq!(judge_ownership("demo", "cp1", &machine), None);
        machine.ownership.traces.insert("/etc/kubernetes/manifests".to_owned());
        let found = judge_ownership("demo", "cp1", &machine).unwrap();
        assert_eq!(found.level, super::super::finding::Level::Error);
        assert_eq!(found.text, "is in use by another installation: /etc/kubernetes/manifests exists");
    }

    #[test]
    fn a_route_into_the_pods_network_is_told_with_one_that_is_free() {
        let cluster: Cluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "kmctl.io/v1alpha1", "kind": "Cluster", "metadata": { "name": "demo" },
            "spec": {
                "mesos": { "master": "10.0.0.5:5050" },
                "controlPlane": { "endpoint": "10.0.0.11:6443", "hosts": [{ "address": "10.0.0.11" }] },
            },
        }))
        .unwrap();
        let route =
            |network: &str, device: &str| Route { network: network.parse().unwrap(), device: device.to_owned() };
        let mut machine = Machine { routes: vec![route("172.30.4.0/24", "docker0")], ..good() };
        let found = judge_routes(&cluster, "cp1", &machine).unwrap();
        assert_eq!(found.text, "route to 172.30.4.0/24 on docker0 overlaps network.podCIDR 172.30.0.0/16");
        assert_eq!(found.cure, "set network.podCIDR to 172.31.0.0/16 if it is unused on the agents too");
        machine.routes = vec![route("172.30.0.0/16", &bridge_name("demo")), route("10.0.0.0/24", "eth0")];
        assert_eq!(judge_routes(&cluster, "cp1", &machine), None, "the cluster's own bridge, and another network");
    }

    #[test]
    fn clocks_are_only_blamed_for_what_the_round_trip_cannot_explain() {
        let at = |ahead, within| Machine { ahead, within, ..Machine::default() };
        let (one, two, slow) = (at(0.0, 0.1), at(-3.0, 0.1), at(3.0, 4.0));
        let found = judge_clocks(&[("cp1", &one), ("cp2", &two), ("cp3", &slow)]);
        let texts: Vec<_> = found.iter().map(|finding| format!("{}: {}", finding.about, finding.text)).collect();
        assert_eq!(texts, ["cp2: clock is 3.0s behind that of cp1", "cp3: clock is 6.0s ahead of that of cp2"]);
        let broken = at(90.0, 0.1);
        assert_eq!(judge_clocks(&[("cp1", &broken)]).len(), 1);
    }
}
