//! The mode `cni`: a plugin that comes with the bundle.
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::matrix::{Mode, try_everything};
use super::roll::failures_of_a_rolling_update;
use crate::support::*;

/// The plugin of the lab's operator: the stock bridge, on a subnet that follows from the agent's address.
const PLUGIN: &str = r#"#!/bin/sh
number=$(ip -4 -o address show dev host0 | sed 's|.* inet [0-9.]*[.]\([0-9]*\)/.*|\1|')
exec "${0%/*}/bridge" <<END
$(sed "s|@SUBNET@|172.30.$number.0/24|; s|\"lab-bridge\"|\"bridge\"|")
END
"#;

/// The cluster of the lab with its operator's plugin, in the place of the usual one; that comes back at the end.
struct WithPlugin {
    usual: Lab,
    changed: Lab,
    routes: Vec<(String, String)>,
    _folder: tempfile::TempDir,
}

impl WithPlugin {
    fn new() -> WithPlugin {
        let usual = Lab::ready();
        // Beside the bundle's other files, which it may link to.
        let files = run(Command::new(usual.root.join("scripts/build/bundle-files")).arg(&usual.kubernetes)).success();
        let files = Path::new(files.trim());
        let folder = tempfile::tempdir_in(files.parent().expect("a folder")).expect("a folder");
        let parts = folder.path().join("parts");
        run(Command::new("cp").args(["-rl"]).args([files, &parts])).success();
        std::fs::create_dir(parts.join("cni.d")).expect("made");
        std::fs::write(parts.join("cni/lab-bridge"), PLUGIN).expect("written");
        let network = json!({
            "cniVersion": "0.3.1", "name": "lab", "plugins": [
                {
                    "type": "lab-bridge", "bridge": "lab0", "isGateway": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "ranges": [[{ "subnet": "@SUBNET@" }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            ],
        });
        std::fs::write(parts.join("cni.d/10-lab.conflist"), network.to_string()).expect("written");
        let bundle = folder.path().join("bundle");
        run(Command::new(usual.program("kmctl"))
            .args(["bundle", "create", "--kubernetes", &usual.kubernetes, "--out"])
            .args([&bundle, &parts]))
        .success();

        let text = std::fs::read_to_string(&usual.cluster).expect("cluster.yaml");
        let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("bundle:")).collect();
        let bundle = bundle.display();
        let text = format!("{}\n  bundle: {bundle}\n  network: {{ mode: cni }}\n", kept.join("\n"));
        // Other files are named relative to it.
        let file = Path::new(&usual.cluster).with_file_name("with-plugin.yaml");
        std::fs::write(&file, text).expect("written");
        let changed = Lab { cluster: file.display().to_string(), ..Lab::bare() };

        let agents = usual.hosts("agent").into_iter().map(|host| (usual.address(&host), host));
        let routes = agents.map(|(address, host)| (host, address)).collect();
        let made = WithPlugin { usual, changed, routes, _folder: folder };
        made.purge(&made.usual);
        made.changed.kmctl(&["up", "--yes"]).success();
        made.changed.kmctl(&["kubeconfig", "--out", &made.changed.kubeconfig]).success();
        for (host, command) in made.route_commands("replace") {
            made.usual.ssh(&host, &command).success();
        }
        made
    }

    /// From every agent to every other one's pods.
    fn route_commands(&self, action: &str) -> Vec<(String, String)> {
        let to = |address: &str| {
            let number = address.rsplit('.').next().expect("an address");
            format!("ip route {action} 172.30.{number}.0/24 via {address}")
        };
        let pairs = self.routes.iter().flat_map(|(from, _)| self.routes.iter().map(move |other| (from, other)));
        pairs
            .filter(|(from, (host, _))| *from != host)
            .map(|(from, (_, address))| (from.clone(), to(address)))
            .collect()
    }

    fn purge(&self, lab: &Lab) {
        lab.kmctl(&["down", "--yes", "--purge=lab"]).success();
    }
}

impl Drop for WithPlugin {
    fn drop(&mut self) {
        let purged = self.changed.kmctl(&["down", "--yes", "--purge=lab"]);
        for (host, command) in self.route_commands("del") {
            let _ = self.usual.ssh(&host, &command);
        }
        for (host, _) in &self.routes {
            // The plugin's own bridge, of which nobody but its operator knows.
            let _ = self.usual.ssh(host, "ip link del lab0");
        }
        let _ = std::fs::remove_file(&self.changed.cluster);
        let back = self.usual.kmctl(&["up", "--yes"]);
        let _ = self.usual.kmctl(&["kubeconfig", "--out", &self.usual.kubeconfig]);
        if !std::thread::panicking() {
            purged.success();
            back.success();
        }
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn with_a_plugin_of_the_users_own_every_client_reaches_every_kind_of_service_and_no_more_connections_fail_without() {
    let (by_host_ports, how) = failures_of_a_rolling_update(&Lab::ready());
    let with_plugin = WithPlugin::new();
    let lab = &with_plugin.changed;
    let (stock, _) = failures_of_a_rolling_update(lab);
    println!(
        "failed connections during a rolling update: {by_host_ports} by host ports, {stock} with stock controllers"
    );
    assert!(by_host_ports <= stock, "{by_host_ports} connections failed, with stock controllers {stock}:\n{how}");
    try_everything(lab, &Mode { dns: "10.96.0.10", routed: true });
    // It came with the bundle and was verified on the way; nobody put it on the agents before.
    let node = lab.nodes().first().map(name_of).expect("a node is awake");
    lab.ssh(&node, "test ! -e /opt/cni/bin/lab-bridge && ls /var/lib/kmctl/lab/runs/*/cni/lab-bridge").success();
    assert!(lab.ssh(&lab.hosts("control-plane")[0], "systemctl is-active km-endpoints").stdout.trim() != "active");
}
