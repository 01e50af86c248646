//! From every client to every kind of Service, by way of `km endpoints`, `km cni`, the local view, a stock kube-proxy
//! and the node's DNS, on two nodes whose pods have the same addresses.
use std::time::{Duration, Instant};

use kmctl_core::cluster::ProxyMode;
use kube::Client;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cni::SERVER;
use crate::namespaces::Namespace;
use crate::nodes::{Node, PodPlan, api, attach, connect, create, detach, node, switch};
use crate::server::Server;

/// Within this time everything that was changed has to be true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls and prints the answer, or `-`. The address may be a name that has an SRV record, then the port is of no use.
const CLIENT: &str = r#"
import socket, struct, sys
kind, address, port = sys.argv[1:]
def skip(data, at):
    while data[at]:
        if data[at] >= 192: return at + 2
        at += data[at] + 1
    return at + 1
def srv(name):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    s.sendto(struct.pack("!6H", 1, 256, 1, 0, 0, 0) + labels + b"\0\0\x21\0\1", ("172.30.0.1", 53))
    data = s.recv(4096)
    counts = struct.unpack("!4H", data[4:12])
    at = skip(data, 12) + 4
    port = address = None
    for _ in range(counts[1] + counts[2] + counts[3]):
        at = skip(data, at)
        rtype, _, _, size = struct.unpack("!HHIH", data[at:at + 10])
        at += 10
        if rtype == 33: port = struct.unpack("!H", data[at + 4:at + 6])[0]
        if rtype == 1: address = socket.inet_ntoa(data[at:at + 4])
        at += size
    return address, port
try:
    if address.startswith("_"): address, port = srv(address)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "TCP" else socket.SOCK_DGRAM); s.settimeout(2)
    s.connect((address, int(port)))
    if kind == "UDP": s.send(b"?")
    print(s.recv(100).decode() or "-")
except (OSError, TypeError):
    print("-")
"#;

struct World {
    client: Client,
    outside: Namespace,
    nodes: Vec<Node>,
    _switch: Namespace,
    _folder: tempfile::TempDir,
    _server: Server,
}

impl World {
    async fn new(mode: ProxyMode) -> World {
        let server = Server::start().await;
        let client = server.client();
        let folder = tempfile::tempdir().unwrap();
        let switch = switch();
        let outside = Namespace::new("out");
        connect(&switch, &outside, "out", "10.88.0.9");
        let mut nodes = Vec::new();
        // The same pod addresses on both, and a host port that both granted.
        let pods: [(&str, &str, &[PodPlan]); 2] = [
            ("na", "10.88.0.1", &[("a1", "172.30.0.5", 31001), ("a2", "172.30.0.6", 31002)]),
            ("nb", "10.88.0.2", &[("b1", "172.30.0.5", 31001)]),
        ];
        for (name, address, pods) in pods {
            let mut made = node(&client, folder.path(), &switch, name, address, mode).await;
            for plan in pods {
                made.start_pod(&client, *plan, &["python3", "-c", SERVER, plan.0, "80"]).await;
            }
            nodes.push(made);
        }
        World { client, outside, nodes, _switch: switch, _folder: folder, _server: server }
    }

    async fn create(&self, plural: &str, kind: &str, object: Value) {
        create(&self.client, plural, kind, object).await;
    }

    /// A Service of the pods with this label, reached from outside, too; its address and node ports.
    async fn service(&self, name: &str, selector: &Value, extra: Value) -> (String, u16, u16) {
        let target = |port: &str| if name.contains("numbered") { json!(80) } else { json!(port) };
        let mut spec = json!({
            "type": "NodePort", "selector": selector, "ports": [
                { "name": "tcp", "protocol": "TCP", "port": 8080, "targetPort": target("tcp") },
                { "name": "udp", "protocol": "UDP", "port": 8080, "targetPort": target("udp") },
            ],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.create("services", "Service", json!({ "metadata": { "name": name }, "spec": spec })).await;
        let made = api(&self.client, "services", "Service").get(name).await.unwrap();
        let port =
            |index: usize| u16::try_from(made.data["spec"]["ports"][index]["nodePort"].as_u64().unwrap_or(0)).unwrap();
        (made.data["spec"]["clusterIP"].as_str().unwrap().to_owned(), port(0), port(1))
    }
}

fn call(from: &Namespace, protocol: &str, address: &str, port: u16) -> String {
    from.run(&["python3", "-c", CLIENT, protocol, address, &port.to_string()]).trim().to_owned()
}

/// Calls until the answer is right: rules follow within seconds, and UDP's connections are remembered for half a minute.
fn expect(from: &Namespace, protocol: &str, address: &str, port: u16, expected: &str) {
    let begin = Instant::now();
    loop {
        let answer = call(from, protocol, address, port);
        if answer == expected {
            return;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "{protocol} from {} to {address}:{port}: {answer:?} instead of {expected:?}",
            from.name
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, ip, iptables and KMCTL_TEST_BIN"]
async fn every_client_reaches_every_kind_of_service() {
    everything(ProxyMode::Iptables).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, ip, iptables, nft and KMCTL_TEST_BIN"]
async fn every_client_reaches_every_kind_of_service_with_kube_proxy_in_nftables_mode() {
    everything(ProxyMode::Nftables).await;
}

async fn everything(mode: ProxyMode) {
    let mut world = World::new(mode).await;
    let stop = CancellationToken::new();
    let (client, stopped) = (world.client.clone(), stop.clone());
    let endpoints = tokio::spawn(async move { km::endpoints::run::serve(client, "test", stopped).await });

    let one = json!({ "name": "a1" });
    let named = world.service("named", &one, json!({})).await;
    let numbered = world.service("numbered", &one, json!({})).await;
    let local = world.service("local", &one, json!({ "externalTrafficPolicy": "Local" })).await;
    let sticky = world.service("sticky", &json!({ "app": "web" }), json!({ "sessionAffinity": "ClientIP" })).await;
    world.service("headless", &one, json!({ "type": "ClusterIP", "clusterIP": "None" })).await;

    let (na, nb) = (&world.nodes[0], &world.nodes[1]);
    let (a1, a2, b1) = (&na.pods[0].namespace, &na.pods[1].namespace, &nb.pods[0].namespace);
    // The endpoint is a1. Whom it sees: the caller itself where no node has to stand in for it.
    let inside = [
        (a1, "a1 172.30.0.1"),
        (a2, "a1 172.30.0.6"),
        (b1, "a1 10.88.0.2"),
        (&na.namespace, "a1 172.30.0.1"),
        (&nb.namespace, "a1 10.88.0.2"),
    ];
    for (address, tcp, udp) in [&named, &numbered] {
        for (protocol, node_port) in [("TCP", *tcp), ("UDP", *udp)] {
            for (from, expected) in inside {
                expect(from, protocol, address, 8080, expected);
            }
            expect(&world.outside, protocol, na.address, node_port, "a1 172.30.0.1");
            expect(&world.outside, protocol, nb.address, node_port, "a1 10.88.0.2");
            for from in [a1, a2, b1] {
                for node in [na, nb] {
                    assert!(call(from, protocol, node.address, node_port).starts_with("a1 "), "{}", from.name);
                }
            }
        }
    }
    for (protocol, label) in [("TCP", "_tcp._tcp"), ("UDP", "_udp._udp")] {
        let name = format!("{label}.headless.default.svc.cluster.local");
        for from in [a1, a2, b1, &na.namespace, &nb.namespace] {
            let answer = call(from, protocol, &name, 0);
            assert!(answer.starts_with("a1 "), "{protocol} from {} by SRV: {answer}", from.name);
        }
    }
    // NodePorts are the node's own address's, and with iptables also loopback's: nftables has no such way.
    for (protocol, node_port) in [("TCP", named.1), ("UDP", named.2)] {
        assert_eq!(call(a2, protocol, "172.30.0.1", node_port), "-", "{protocol} at the gateway");
        let loopback = call(&na.namespace, protocol, "127.0.0.1", node_port);
        let expected = if mode == ProxyMode::Iptables { "a1 172.30.0.1" } else { "-" };
        assert_eq!(loopback, expected, "{protocol} at 127.0.0.1");
    }
    // With the local policy the caller's address arrives, and only where the endpoint is.
    expect(&world.outside, "TCP", na.address, local.1, "a1 10.88.0.9");
    expect(&world.outside, "UDP", na.address, local.2, "a1 10.88.0.9");
    assert_eq!(call(&world.outside, "TCP", nb.address, local.1), "-");
    // One of three, and then always the same.
    let first = call(a2, "TCP", &sticky.0, 8080);
    for _ in 0..8 {
        assert_eq!(call(a2, "TCP", &sticky.0, 8080), first);
    }

    // A port that Mesos granted to somebody else on this agent is nobody's NodePort.
    let foreign = na.namespace.start(&["python3", "-c", SERVER, "foreign", "31000"]);
    expect(&world.outside, "TCP", na.address, 31000, "foreign 10.88.0.9");
    drop(foreign);

    // The pod's sandbox dies and comes back with another address: nothing changes in the API, and all goes on.
    let pod = &na.pods[0];
    na.plugin("DEL", "c-a1", pod, pod.address);
    detach(&na.namespace, pod.name, pod.address, mode);
    attach(&na.namespace, &pod.namespace, pod.name, "172.30.0.7", mode);
    na.plugin("ADD", "c-a1-again", pod, "172.30.0.7");
    for (from, expected) in [(a1, "a1 172.30.0.1"), (a2, "a1 172.30.0.6"), (b1, "a1 10.88.0.2")] {
        expect(from, "TCP", &named.0, 8080, expected);
    }
    stop.cancel();
    endpoints.await.unwrap().unwrap();
    world.nodes.clear();
}
