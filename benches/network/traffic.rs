//! Pod to Service to pod, on another node and on the same, against the same two processes in the nodes' own network.
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kmctl_core::cluster::ProxyMode;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::figures;
use crate::namespaces::{Namespace, Program};
use crate::nodes::{Node, api, create, node, switch};
use crate::peers::program;
use crate::server::Server;

/// How long one turn lasts, in seconds.
const TURN: &str = "1";

/// Ours and theirs take turns, so that what else the machine does meets both. The ratio of one turn to the next varies by a
/// tenth; with so many the median is within a fiftieth.
const ROUNDS: usize = 25;

/// Port of the servers in the nodes' own network.
const HOST_PORT: u16 = 9000;

/// Within this time the rules have to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two nodes; `a1` calls `a2` beside it and `b1` on the other one.
struct World {
    near: SocketAddr,
    far: SocketAddr,
    _hosts: [Program; 2],
    a: Node,
    b: Node,
    _stop: DropGuard,
    _switch: Namespace,
    _folder: tempfile::TempDir,
    _server: Server,
}

pub async fn measure() {
    let world = World::new().await;
    let caller = &world.a.pods[0].namespace;
    let host = |node: &Node| SocketAddr::new(node.address.parse().unwrap(), HOST_PORT);
    for (place, service, host) in [("other", world.far, host(&world.b)), ("same", world.near, host(&world.a))] {
        for (what, role, unit) in [("bytes", "send", 1e9), ("connections", "call", 1.0)] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(turn(caller, role, service) / unit);
                theirs.push(turn(&world.a.namespace, role, host) / unit);
                // Lets Ctrl-C in.
                tokio::task::yield_now().await;
            }
            let unit = if role == "send" { "Gbit/s" } else { "1/s" };
            let name = format!("network: {what}, pod by a Service to a pod on the {place} node, against host network");
            figures::print(&name, ours, theirs, unit);
        }
    }
}

/// What the caller reports.
fn turn(from: &Namespace, role: &str, to: SocketAddr) -> f64 {
    let program = program();
    tokio::task::block_in_place(|| from.run(&[&program, role, &to.to_string(), TURN])).trim().parse().unwrap()
}

impl World {
    async fn new() -> World {
        let server = Server::start().await;
        let client = server.client();
        let folder = tempfile::tempdir().unwrap();
        let switch = switch();
        let program = program();
        let serve = [program.as_str(), "serve", "80"];
        let mut a = node(&client, folder.path(), &switch, "na", "10.88.0.1", ProxyMode::Iptables).await;
        a.start_pod(&client, ("a1", "172.30.0.5", 31001), &serve).await;
        a.start_pod(&client, ("a2", "172.30.0.6", 31002), &serve).await;
        let mut b = node(&client, folder.path(), &switch, "nb", "10.88.0.2", ProxyMode::Iptables).await;
        b.start_pod(&client, ("b1", "172.30.0.5", 31001), &serve).await;
        let host_port = HOST_PORT.to_string();
        let hosts = [&a, &b].map(|node| node.namespace.start(&[&program, "serve", &host_port]));

        let stop = CancellationToken::new();
        let (writing, stopped) = (client.clone(), stop.clone());
        tokio::spawn(async move { km::endpoints::run::serve(writing, "bench", stopped).await });
        let mut services = Vec::new();
        for (name, pod) in [("near", "a2"), ("far", "b1")] {
            let spec = json!({ "selector": { "name": pod }, "ports": [{ "port": 8080, "targetPort": "tcp" }] });
            create(&client, "services", "Service", json!({ "metadata": { "name": name }, "spec": spec })).await;
            let made = api(&client, "services", "Service").get(name).await.unwrap();
            let address = made.data["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
            ruled(&a, name).await;
            services.push(SocketAddr::new(address, 8080));
        }
        World {
            near: services[0],
            far: services[1],
            _hosts: hosts,
            a,
            b,
            _stop: stop.drop_guard(),
            _switch: switch,
            _folder: folder,
            _server: server,
        }
    }
}

/// Waits until the node has a rule for the Service. Not by calling it: what the kernel notes of a call that no rule has
/// met stays for two minutes, and misleads the next one from the same port.
async fn ruled(node: &Node, service: &str) {
    let began = Instant::now();
    let comment = format!("default/{service}");
    let leads = |line: &str| line.contains(&comment) && line.contains("--to-destination");
    while !node.namespace.run(&["iptables-save", "-t", "nat"]).lines().any(leads) {
        assert!(began.elapsed() < PATIENCE, "kube-proxy has no rule for {service}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
