//! Client × kind of Service × protocol × named or numbered target port.
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::roll::failures_of_a_rolling_update;
use super::{apply_speaker, beside, heard, host_of, node_of, service, text};
use crate::support::*;

/// Seconds within which everything that was made has to be reachable.
const PATIENCE: u32 = 60;

/// What differs between the modes.
struct Mode {
    /// Where every node's DNS answers: the first address of the default `network.podCIDR`, or the tenth of the default
    /// `kubernetes.serviceCIDR`.
    dns: &'static str,
    /// Pods have addresses of the whole cluster, so that a headless Service's plain A record is enough.
    routed: bool,
}

/// Where a caller runs.
enum Client<'a> {
    /// In a pod, which resolves names as it is told to.
    Pod(&'a str),
    /// On a lab host; it asks this name server.
    Host(&'a str, &'a str),
}

/// Protocol, address, port, and how the answer begins.
type Call = (&'static str, String, u64, String);

/// Runs all calls in one process of the client and compares.
fn expect(namespace: &Namespace, client: &Client, calls: &[Call]) {
    let line = |(protocol, address, port, expected): &Call| format!("{protocol} {address} {port} {expected}\n");
    let server = if let Client::Host(_, server) = client { *server } else { "" };
    let lines: String = calls.iter().map(line).collect();
    let script = format!("{}call('{server}', '''{lines}''', {PATIENCE})\n", include_str!("call.py"));
    let answers = match client {
        Client::Pod(pod) => {
            let command = ["-n", &namespace.name, "exec", "-i", pod, "--", "/usr/bin/python3", "-"];
            run_with(&mut namespace.lab.kubectl_command(&command), &script)
        }
        Client::Host(host, _) => namespace.lab.ssh_with(host, "python3 -", &script),
    }
    .success();
    let who = match client {
        Client::Pod(name) | Client::Host(name, _) => name,
    };
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!(answers.len(), calls.len(), "{who}: {answers:?}");
    let wrong: Vec<String> = calls
        .iter()
        .zip(answers)
        .filter(|((.., expected), answer)| !format!("{answer} ").starts_with(&format!("{expected} ")))
        .map(|((protocol, address, port, expected), answer)| {
            format!("{protocol} {address}:{port}: {answer:?} instead of {expected:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "from {who}:\n{}", wrong.join("\n"));
}

/// Routes on a lab host that go with the test: a network, and the gateway to it.
struct Routes<'a>(&'a Lab, &'a str, Vec<(String, String)>);

impl<'a> Routes<'a> {
    fn new(lab: &'a Lab, host: &'a str, wanted: Vec<(String, String)>) -> Self {
        let routes = Routes(lab, host, wanted);
        for (network, gateway) in &routes.2 {
            lab.ssh(host, &format!("ip route replace {network} via {gateway}")).success();
        }
        routes
    }
}

impl Drop for Routes<'_> {
    fn drop(&mut self) {
        for (network, _) in &self.2 {
            let _ = self.0.ssh(self.1, &format!("ip route del {network}"));
        }
    }
}

/// The Services of the matrix, all of them in front of the pod `web`: the node ports for TCP and UDP, of the one with
/// named and the one with numbered target ports.
fn services(namespace: &Namespace) -> [[u64; 2]; 2] {
    let selector = json!({ "app": "web" });
    [("named", json!("tcp"), json!("udp")), ("numbered", json!(80), json!(80))].map(|(name, tcp, udp)| {
        let ports = json!([
            { "name": "tcp", "protocol": "TCP", "port": 8080, "targetPort": tcp },
            { "name": "udp", "protocol": "UDP", "port": 8080, "targetPort": udp },
        ]);
        let made =
            service(namespace, name, &json!({ "type": "NodePort", "selector": selector, "ports": ports.clone() }));
        let headless = json!({ "clusterIP": "None", "selector": selector, "ports": ports });
        service(namespace, &format!("headless-{name}"), &headless);
        let target = format!("{name}.{}.svc.cluster.local", namespace.name);
        service(namespace, &format!("alias-{name}"), &json!({ "type": "ExternalName", "externalName": target }));
        [0, 1].map(|index: usize| made["spec"]["ports"][index]["nodePort"].as_u64().expect("allocated"))
    })
}

/// The cells of one client. `domain` is what it has to add to names of the cluster, `nodes` are addresses of the
/// endpoint's node and of another one.
fn cells(namespace: &Namespace, mode: &Mode, domain: &str, nodes: &[String], node_ports: &[[u64; 2]; 2]) -> Vec<Call> {
    let mut calls = Vec::new();
    for (kind, node_ports) in ["named", "numbered"].iter().zip(node_ports) {
        for (protocol, label, node_port) in [("TCP", "tcp", node_ports[0]), ("UDP", "udp", node_ports[1])] {
            let full = format!("headless-{kind}.{}.svc.cluster.local", namespace.name);
            let web = "web".to_owned();
            calls.push((protocol, format!("{kind}{domain}"), 8080, web.clone()));
            calls.push((protocol, format!("alias-{kind}{domain}"), 8080, web.clone()));
            calls.push((protocol, format!("_{label}._{label}.{full}"), 0, web.clone()));
            if mode.routed {
                calls.push((protocol, format!("headless-{kind}{domain}"), 80, web.clone()));
            }
            calls.extend(nodes.iter().map(|node| (protocol, node.clone(), node_port, web.clone())));
        }
    }
    calls
}

/// The whole matrix, on a living cluster.
fn try_everything(lab: &Lab, mode: &Mode) {
    let namespace = Namespace::new(lab, "network");
    apply_speaker(&namespace, "web", &json!({}));
    namespace.wait("web", NODE_START);
    apply_speaker(&namespace, "near", &beside("podAffinity", "web"));
    apply_speaker(&namespace, "far", &beside("podAntiAffinity", "web"));
    let (near, far) = (namespace.wait("near", NODE_START), namespace.wait("far", NODE_START));
    let web = namespace.wait("web", SETTLE);
    assert_eq!(node_of(&near), node_of(&web));
    assert_ne!(node_of(&far), node_of(&web));

    let node_ports = services(&namespace);
    let nodes = [host_of(&web), host_of(&far)];
    let within = cells(&namespace, mode, "", &nodes, &node_ports);
    for pod in ["web", "near", "far"] {
        expect(&namespace, &Client::Pod(pod), &within);
    }
    let domain = format!(".{}.svc.cluster.local", namespace.name);
    let by_full_name = cells(&namespace, mode, &domain, &nodes, &node_ports);
    for pod in [&web, &far] {
        expect(&namespace, &Client::Host(&node_of(pod), mode.dns), &by_full_name);
    }
    // Node ports need nothing outside. All else needs what the network's operator gives: a way to Services' addresses,
    // and to some node's DNS.
    let outside = lab.hosts("mesos-master").remove(0);
    let mut routes =
        vec![("10.96.0.0/16".to_owned(), nodes[1].clone()), (format!("{}/32", mode.dns), nodes[0].clone())];
    if mode.routed {
        routes.push((format!("{}/32", text(&web, "/status/podIP")), nodes[0].clone()));
    }
    let _routes = Routes::new(lab, &outside, routes);
    expect(&namespace, &Client::Host(&outside, mode.dns), &by_full_name);

    // The local policy keeps the caller's address, and answers only where the endpoint is.
    let spec = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local", "selector": { "app": "web" },
        "ports": [{ "name": "tcp", "port": 8080, "targetPort": "tcp" }],
    });
    let local = service(&namespace, "local", &spec);
    let node_port = local["spec"]["ports"][0]["nodePort"].as_u64().expect("allocated");
    let caller = format!("web {}", lab.address(&outside));
    expect(&namespace, &Client::Host(&outside, ""), &[("TCP", nodes[0].clone(), node_port, caller)]);
    assert!(heard(&nodes[1], node_port).is_err(), "a node without an endpoint answers");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn every_client_reaches_every_kind_of_service_by_host_ports() {
    try_everything(&Lab::ready(), &Mode { dns: "172.30.0.1", routed: false });
}

/// The plugin of the lab's operator: the stock bridge, on a subnet that follows from the agent's address.
const PLUGIN: &str = r#"#!/bin/sh
number=$(ip -4 -o address show dev host0 | sed 's|.*10[.]88[.]0[.]\([0-9]*\)/.*|\1|')
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
        let files = run(&mut Command::new(usual.root.join("scripts/build/bundle-files"))).success();
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
            .args(["bundle", "create", "--kubernetes", "v1.20.2", "--out"])
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
    let node = lab.nodes().first().map(super::super::support::name_of).expect("a node is awake");
    lab.ssh(&node, "test ! -e /opt/cni/bin/lab-bridge && ls /var/lib/kmctl/lab/runs/*/cni/lab-bridge").success();
    assert!(lab.ssh(&lab.hosts("control-plane")[0], "systemctl is-active km-endpoints").stdout.trim() != "active");
}
