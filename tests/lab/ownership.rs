//! Hosts of another cluster, or of another tool, are refused and left exactly as they are.
use crate::support::*;

/// Everything that kmctl or another tool could have changed: files of the system and of its state by content, and which
/// units exist, run, and since when. What running services write by themselves is left out.
fn fingerprint(lab: &Lab, host: &str) -> String {
    let script = r"
find /etc /var/lib /usr/local -xdev \( -path /var/lib/etcd/member -o -path /var/lib/mesos -o -path /var/lib/systemd \
  -o -path /var/lib/kmctl/scheduler -o -path /var/lib/kubelet -o -path /var/lib/containerd \) -prune \
  -o -type f -printf '%p %i %m %s %T@\n' -o -type l -printf '%p -> %l\n' -o -type d -printf '%p %m\n' | sort
find /etc -xdev -type f | sort | xargs -d '\n' sha256sum
systemctl list-unit-files --no-legend --no-pager | sort
systemctl show -p Id,ActiveState,InvocationID etcd kube-apiserver kube-scheduler km-scheduler
";
    lab.ssh(host, script).success()
}

/// The lab's cluster.yaml with changed text, beside it.
fn edited(lab: &Lab, ending: &str, change: impl Fn(String) -> String) -> Lab {
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let other = Lab { cluster: format!("{}.{ending}", lab.cluster), ..Lab::bare() };
    std::fs::write(&other.cluster, change(text)).expect("written");
    other
}

/// Every command that compares or changes hosts refuses, says why, and leaves the host as it is.
fn refused_by_all(lab: &Lab, other: &Lab, host: &str, name: &str, reason: &str) {
    let before = fingerprint(lab, host);
    let purge = format!("--purge={name}");
    for arguments in [
        &["check"][..],
        &["plan"],
        &["up", "--yes"],
        &["up", "--yes", "--allow-remove"],
        &["down", "--yes"],
        &["down", "--yes", &purge],
    ] {
        let refused = other.kmctl(arguments);
        let said = format!("{}{}", refused.stdout, refused.stderr);
        let expected = if arguments == ["check"] { 1 } else { 3 };
        assert_eq!(refused.status, expected, "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
        assert_eq!(fingerprint(lab, host), before, "{arguments:?}: {said}");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_copied_cluster_yaml_under_another_name_changes_nothing_on_the_cluster() {
    let lab = Lab::ready();
    let host = lab.hosts("control-plane").remove(0);
    let renamed = edited(&lab, "renamed", |text| text.replace("name: lab }", "name: copy }"));
    refused_by_all(&lab, &renamed, &host, "copy", "belongs to cluster lab, not to copy");
    let member = edited(&lab, "member", |text| text.replace("name: cp1 }", "name: cp7 }"));
    refused_by_all(&lab, &member, &host, "lab", "is cp1 of cluster lab");
    for other in [renamed, member] {
        std::fs::remove_file(&other.cluster).expect("removed");
    }
    lab.kmctl(&["up", "--yes"]).success();
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_host_with_another_tools_control_plane_or_etcd_is_left_as_it_is() {
    let lab = Lab::ready();
    let host = lab.hosts("agent").pop().expect("an agent");
    let address = lab.address(&host);
    let elsewhere = edited(&lab, "elsewhere", |text| {
        let other = text.replace("name: lab }", "name: elsewhere }").replace("name: cp1 }", "name: cp9 }");
        other.replace(&lab.address("cp1"), &address)
    });
    let tools = [
        ("/var/lib/etcd/default.etcd/member/wal/0.wal", "rm -r /var/lib/etcd"),
        ("/etc/systemd/system/etcd.service", "rm /etc/systemd/system/etcd.service"),
        ("/etc/kubernetes/manifests/kube-apiserver.yaml", "rm -r /etc/kubernetes"),
        ("/etc/rancher/k3s/k3s.yaml", "rm -r /etc/rancher"),
        ("/var/lib/rancher/rke2/server/token", "rm -r /var/lib/rancher"),
    ];
    for (trace, remove) in tools {
        let make = format!("mkdir -p $(dirname {trace}) && echo theirs >{trace}");
        lab.ssh(&host, &make).success();
        refused_by_all(&lab, &elsewhere, &host, "elsewhere", "is in use by another installation");
        lab.ssh(&host, remove).success();
    }
    std::fs::remove_file(&elsewhere.cluster).expect("removed");
}
