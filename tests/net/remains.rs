//! What the stock plugins and kube-proxy wrote for a node that died, removed as a sweep does it.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use km::node::ledger::{self, Held, Ledger};
use km::node::real;
use serde_json::{Value, json};

use crate::namespaces::Namespace;
use crate::server::programs;

/// A host with a pod of the node, and one of somebody else's network.
struct Host {
    namespace: Namespace,
    ours: Namespace,
    others: Namespace,
    folder: tempfile::TempDir,
}

/// A container in a network, with a port of the host.
struct Attached<'a> {
    network: &'a str,
    container: &'a str,
    subnet: &'a str,
    leases: &'a Path,
    port: u16,
}

impl Host {
    /// Both pods are connected, with a port of the host each, by the real plugins.
    fn new(backend: &str) -> Host {
        let [namespace, ours, others] = ["host", "ours", "others"].map(Namespace::new);
        let host = Host { namespace, ours, others, folder: tempfile::tempdir().unwrap() };
        host.namespace.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
        host.namespace.run(&["ip", "address", "add", "10.88.0.1/24", "dev", "eth0"]);
        host.namespace.run(&["ip", "link", "set", "eth0", "up"]);
        let (ours, others) = (host.run().join("ipam"), host.folder.path().join("ipam"));
        for (pod, attached) in [
            (
                &host.ours,
                Attached {
                    network: "kmctl-demo",
                    container: "c1",
                    subnet: "172.30.0.0/24",
                    leases: &ours,
                    port: 30080,
                },
            ),
            (
                &host.others,
                Attached { network: "other", container: "c2", subnet: "172.30.1.0/24", leases: &others, port: 30081 },
            ),
        ] {
            host.connect(pod, &attached, backend);
        }
        host
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn connect(&self, pod: &Namespace, attached: &Attached<'_>, backend: &str) {
        let Attached { network, container, subnet, leases, port } = *attached;
        let plugins = programs().join("../cni").canonicalize().unwrap();
        let call = |plugin: &str, mut configuration: Value| {
            (configuration["cniVersion"], configuration["name"]) = (json!("0.4.0"), json!(network));
            let (path, place) = (plugins.display().to_string(), format!("/run/netns/{}", pod.name));
            let environment = [
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", container),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", place.as_str()),
                ("CNI_PATH", path.as_str()),
            ];
            let program = plugins.join(plugin).display().to_string();
            let (good, printed) = self.namespace.try_run(&[&program], &environment, &configuration.to_string());
            assert!(good, "{plugin}: {printed}");
            printed
        };
        let address = json!({ "type": "host-local", "ranges": [[{ "subnet": subnet }]], "dataDir": leases,
            "routes": [{ "dst": "0.0.0.0/0" }] });
        let connected =
            call("ptp", json!({ "type": "ptp", "ipMasq": true, "ipMasqBackend": backend, "ipam": address }));
        let ports = json!([{ "hostPort": port, "containerPort": 80, "protocol": "tcp" }]);
        let connected: Value = serde_json::from_str(&connected).unwrap();
        call(
            "portmap",
            json!({ "type": "portmap", "snat": true, "backend": backend, "capabilities": { "portMappings": true },
                "runtimeConfig": { "portMappings": ports }, "prevResult": connected }),
        );
    }

    /// All rules by whatever wrote them.
    fn rules(&self) -> String {
        let programs = [["nft", "list", "ruleset"].as_slice(), &["iptables-save"], &["iptables-legacy-save"]];
        programs.iter().map(|program| self.namespace.run(program)).collect()
    }

    /// What the next run, or a sweep, does.
    fn sweep(&self) {
        let ledger = Ledger {
            format: ledger::FORMAT,
            cluster: "demo".to_owned(),
            executor_id: "agent-1.0123abcd".to_owned(),
            pid: 1,
            mark: format!("/run/{}-nobody", self.namespace.name),
            run: self.run(),
            mount_points: Vec::new(),
            cgroups: Vec::new(),
            cgroup_parents: Vec::new(),
            links: Vec::new(),
            network: "kmctl-demo".to_owned(),
            sysctls: BTreeMap::new(),
        };
        let folder = self.folder.path().join("ledger");
        self.namespace.inside_thread(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let held = Held::write(&folder, ledger).unwrap();
            runtime.block_on(real::remove(held, None)).unwrap();
        });
    }
}

#[test]
#[ignore = "needs root, ip, iptables, nft and KMCTL_TEST_BIN"]
fn what_a_dead_node_left_is_removed_whatever_wrote_it_and_others_rules_stay() {
    for backend in ["nftables", "iptables"] {
        let host = Host::new(backend);
        for family in ["ip", "ip6"] {
            host.namespace.run(&["nft", "add", "table", family, "kube-proxy"]);
            host.namespace.run(&["nft", "add", "map", family, "kube-proxy", "m", "{ type mark : verdict ; }"]);
        }
        // Of a kube-proxy that was there by the other variant.
        host.namespace.run(&["iptables-legacy", "-t", "nat", "-N", "KUBE-SERVICES"]);
        host.namespace.run(&["iptables-legacy", "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES"]);
        let before = host.rules();
        let ours = ["table ip kube-proxy", "table ip6 kube-proxy", "KUBE-SERVICES", "dport 30080", "kmctl-demo"];
        let others = ["dport 30081", "172.30.1."];
        for expected in ours.iter().chain(&others) {
            assert!(before.contains(expected), "{backend}: no {expected} in\n{before}");
        }
        host.sweep();
        let after = host.rules();
        for gone in ours {
            assert!(!after.contains(gone), "{backend}: still {gone} in\n{after}");
        }
        for there in others {
            assert!(after.contains(there), "{backend}: no {there} any more in\n{after}");
        }
    }
}
