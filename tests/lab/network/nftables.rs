//! kube-proxy in nftables mode: the same matrix, on nodes that started after the setting had changed.
use std::path::Path;

use super::matrix::{Mode, try_everything};
use crate::support::*;

/// The cluster with `network.proxyMode: nftables`; the usual setting comes back at the end.
struct WithNftables {
    usual: Lab,
    changed: Lab,
}

impl WithNftables {
    fn new() -> WithNftables {
        let usual = Lab::ready();
        let text = std::fs::read_to_string(&usual.cluster).expect("cluster.yaml");
        // Other files are named relative to it.
        let file = Path::new(&usual.cluster).with_file_name("with-nftables.yaml");
        std::fs::write(&file, text + "  network: { proxyMode: nftables }\n").expect("written");
        let changed = Lab { cluster: file.display().to_string(), ..Lab::bare() };
        // Nodes keep what they were started with.
        usual.wait_for_zero_nodes();
        changed.kmctl(&["up", "--yes"]).success();
        WithNftables { usual, changed }
    }
}

impl Drop for WithNftables {
    fn drop(&mut self) {
        let back = self.usual.kmctl(&["up", "--yes"]);
        let _ = std::fs::remove_file(&self.changed.cluster);
        if !std::thread::panicking() {
            back.success();
        }
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn with_kube_proxy_in_nftables_mode_every_client_reaches_every_kind_of_service_and_nothing_of_it_stays() {
    let with_nftables = WithNftables::new();
    let lab = &with_nftables.changed;
    let agents = lab.hosts("agent");
    // One line of what kube-proxy needs; a kernel without nft's NAT refuses it.
    let chain = "add table ip t; add chain ip t c { type nat hook prerouting priority dstnat; }";
    let able = lab.ssh(&agents[0], &format!("nft --check '{chain}'")).ok();
    try_everything(lab, &Mode { dns: "172.30.0.1", routed: false });

    let nodes = lab.nodes();
    assert!(nodes.len() >= 2, "{}", nodes.len());
    let status: serde_json::Value =
        serde_json::from_str(&lab.kmctl(&["status", "-o", "json"]).success()).expect("JSON");
    for node in &nodes {
        let name = name_of(node);
        let told = |what: &str| node["metadata"]["annotations"][format!("kmctl.io/proxy-mode{what}")].as_str();
        let shown = status["nodes"].as_array().and_then(|all| all.iter().find(|one| one["name"] == *name));
        assert_eq!(shown.and_then(|one| one["proxy"].as_str()), told(""), "{status}");
        if !able {
            assert!(told("").is_some_and(|mode| mode.starts_with("iptables (")) && told("-reason").is_some());
            assert!(lab.kmctl(&["why", "node", &name]).success().contains("network.proxyMode"));
            continue;
        }
        assert_eq!((told(""), told("-reason")), (Some("nftables"), None));
        lab.ssh(&name, "nft list table ip kube-proxy | grep -q service-ips").success();
        lab.ssh(&name, "nft list table inet cni_plugins_masquerade").success();
        let iptables = lab.ssh(&name, "iptables-save").success();
        assert!(!iptables.contains("KUBE-SERVICES") && !iptables.contains("CNI-"), "{iptables}");
    }
    // They go before their setting does.
    lab.wait_for_zero_nodes();
    for agent in &agents {
        let tables = lab.ssh(agent, "nft list tables").success();
        assert!(!tables.contains("kube-proxy") && !tables.contains(" cni_"), "{agent}: {tables}");
        let iptables = lab.ssh(agent, "iptables-save").success();
        assert!(!iptables.contains("KM-"), "{agent}: {iptables}");
    }
}
