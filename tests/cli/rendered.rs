//! Everything that differs between versions, cgroup hierarchies and network modes, as golden files: what `kmctl render`
//! writes for the control plane and for a node. tests/api lets the programs themselves judge the same files.
use kmctl_core::k8s::MINORS;

use crate::transcript::golden_text;
use crate::world::Desk;

/// What a version, a hierarchy or a mode may change.
const FILES: [&str; 14] = [
    "cp1/etc/systemd/system/etcd.service",
    "cp1/etc/systemd/system/kube-apiserver.service",
    "cp1/etc/systemd/system/kube-controller-manager.service",
    "cp1/etc/systemd/system/kube-scheduler.service",
    "cp1/etc/systemd/system/km-scheduler.service",
    "cp1/etc/systemd/system/km-endpoints.service",
    "cp1/etc/kubernetes/scheduler.yaml",
    "node/kubelet.yaml",
    "node/kubelet.argv",
    "node/kube-proxy.argv",
    "node/containerd.toml",
    "node/containerd.argv",
    "node/10-kmctl.conflist",
    "node/candidate.yaml",
];

#[test]
fn every_minor_hierarchy_and_mode_renders_what_was_looked_at() {
    for row in &MINORS {
        let desk = Desk::new();
        let version = row.tested.to_string();
        desk.edit("cluster.yaml", "v1.37.2", &version);
        let made =
            desk.kmctl(&["bundle", "create", "--kubernetes", &version, "--out", "kubernetes.bundle", "programs"]);
        assert_eq!(made.code, 0, "{made}");
        for mode in ["hostPorts", "cni"] {
            if mode == "cni" {
                desk.edit("cluster.yaml", "  bundle: ", "  network: { mode: cni }\n  bundle: ");
            }
            for cgroup in ["v1", "v2"] {
                let folder = format!("{mode}-{cgroup}");
                let rendered = desk.kmctl(&["render", "--cgroup", cgroup, "--out", &folder]);
                assert_eq!(rendered.code, 0, "{rendered}");
                let mut text = String::new();
                for file in FILES {
                    let read = std::fs::read_to_string(desk.path(&folder).join(file));
                    let content = read.unwrap_or_else(|_| "(not written in this mode)\n".to_owned());
                    text.push_str(&format!("==> {file} <==\n{content}\n"));
                }
                golden_text(&format!("rendered-1.{}-{cgroup}-{mode}", row.minor), &text);
            }
        }
    }
}

#[test]
fn the_scripts_build_the_versions_of_the_table() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/build/versions")).unwrap();
    let says =
        |line: String| assert!(text.lines().any(|one| one.split_whitespace().next() == Some(line.as_str())), "{line}");
    let tested: Vec<String> = MINORS.iter().map(|row| row.tested.to_string()).collect();
    assert!(text.contains(&format!("kubernetes_versions=({})", tested.join(" "))), "{tested:?}");
    let pairs = MINORS[0].pairs;
    says(format!("etcd_version=v{}", pairs.etcd));
    says(format!("containerd_version=v{}", pairs.containerd));
    says(format!("runc_version=v{}", pairs.runc));
    says(format!("cni_plugins_version=v{}", pairs.cni_plugins));
    says(format!("coredns_version={}", pairs.coredns));
    says(format!("pause_version={}", pairs.pause));
}
