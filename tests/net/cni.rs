//! `km cni` between a host, its pods and a machine outside.
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use km::cni::wire::{PortsRequest, Sandbox};
use km::node::cni::{GrantedPorts, listen, serve};
use km::node::deps::PortAllocator;
use km::node::real::RealPorts;
use kmctl_core::cluster::ProxyMode;
use kmctl_core::protocol::launch::{FORMAT, PodLaunch, PortMapping};
use serde_json::{Value, json};

use crate::namespaces::{Namespace, Program};
use crate::nodes::{attach, attached};

/// Prints who called, over TCP and UDP.
pub const SERVER: &str = r#"
import socket, sys, threading
name, port = sys.argv[1], int(sys.argv[2])
tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("", port)); tcp.listen(16)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("", port))
def answer_udp():
    while True:
        _, peer = udp.recvfrom(100)
        udp.sendto(f"{name} {peer[0]}".encode(), peer)
threading.Thread(target=answer_udp, daemon=True).start()
while True:
    connection, peer = tcp.accept()
    connection.sendall(f"{name} {peer[0]}".encode()); connection.close()
"#;

/// Calls and prints the answer, or `-`.
const CLIENT: &str = r#"
import socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == "TCP" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET, kind); s.settimeout(2)
try:
    s.connect((sys.argv[2], int(sys.argv[3])))
    if sys.argv[1] == "UDP": s.send(b"?")
    print(s.recv(100).decode() or "-")
except OSError:
    print("-")
"#;

struct Pods;

impl GrantedPorts for Pods {
    fn granted(&self, pod: &PortsRequest) -> Option<Vec<PortMapping>> {
        let both = |host_port| {
            let mapping = |protocol: &str| PortMapping { container_port: 80, host_port, protocol: protocol.to_owned() };
            vec![mapping("TCP"), mapping("UDP")]
        };
        match pod.uid.as_deref()? {
            "a" => Some(both(31001)),
            "b" => Some(both(31002)),
            _ => None,
        }
    }

    fn attach(&self, _: &PortsRequest, _: Sandbox) {}

    fn detach(&self, _: &str) {}
}

/// A host with two pods, and a machine outside.
struct World {
    host: Namespace,
    outside: Namespace,
    pods: Vec<(Namespace, Program)>,
    configuration: Value,
}

impl World {
    fn new(socket: &Path) -> World {
        let host = Namespace::new("host");
        let outside = Namespace::new("out");
        host.run(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &outside.name]);
        for (namespace, address) in [(&host, "10.88.0.1/24"), (&outside, "10.88.0.9/24")] {
            namespace.run(&["ip", "address", "add", address, "dev", "eth0"]);
            namespace.run(&["ip", "link", "set", "eth0", "up"]);
        }
        host.run(&["ip", "link", "add", "km0", "type", "bridge"]);
        host.run(&["ip", "address", "add", "172.30.0.1/16", "dev", "km0"]);
        host.run(&["ip", "link", "set", "km0", "up"]);
        host.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        // As Docker leaves a host.
        host.run(&["iptables", "-P", "FORWARD", "DROP"]);
        let pods = [("a", "172.30.0.5"), ("b", "172.30.0.6")].map(|(name, address)| {
            let pod = Namespace::new(name);
            attach(&host, &pod, name, address, ProxyMode::Iptables);
            let server = pod.start(&["python3", "-c", SERVER, name, "80"]);
            (pod, server)
        });
        let configuration = json!({
            "cniVersion": "0.4.0", "name": "kmctl-demo", "type": "km-cni",
            "cluster": "demo", "socket": socket,
        });
        World { host, outside, pods: pods.into(), configuration }
    }

    fn plugin(&self, command: &str, pod: &str) -> (bool, String) {
        self.plugin_at(command, pod, if pod == "a" { "172.30.0.5" } else { "172.30.0.6" })
    }

    fn plugin_at(&self, command: &str, pod: &str, address: &str) -> (bool, String) {
        let mut configuration = self.configuration.clone();
        configuration["prevResult"] = attached(if address == "172.30.0.5" { "a" } else { "b" }, address);
        let container = format!("container-{pod}");
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME={pod};K8S_POD_UID={pod}");
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container.as_str()),
            ("CNI_ARGS", arguments.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/unused"),
        ];
        self.host.try_run(&[env!("CARGO_BIN_EXE_km"), "cni"], &environment, &configuration.to_string())
    }

    fn call(&self, from: &Namespace, protocol: &str, address: &str, port: &str) -> String {
        from.run(&["python3", "-c", CLIENT, protocol, address, port]).trim().to_owned()
    }

    fn wait_for_servers(&self) {
        let begin = Instant::now();
        for (address, name) in [("172.30.0.5", "a"), ("172.30.0.6", "b")] {
            while !self.call(&self.host, "TCP", address, "80").starts_with(name) {
                assert!(begin.elapsed() < Duration::from_secs(20), "the server of pod {name} does not start");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, ip and iptables"]
async fn granted_ports_lead_to_pods_from_everywhere_and_are_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ports.sock");
    let server = tokio::spawn(serve(listen(&socket).unwrap(), Arc::new(Pods)));
    tokio::task::spawn_blocking(move || everything(&socket)).await.unwrap();
    server.abort();
}

fn rules(world: &World) -> String {
    let saved = world.host.run(&["iptables-save"]);
    saved.lines().filter(|line| line.contains("KM-")).map(|line| format!("{line}\n")).collect()
}

fn everything(socket: &Path) {
    let world = World::new(socket);
    world.wait_for_servers();
    assert_eq!(world.call(&world.outside, "TCP", "10.88.0.1", "31001"), "-", "nothing is mapped yet");

    for pod in ["a", "b"] {
        let (good, printed) = world.plugin("ADD", pod);
        assert!(good, "{printed}");
        let printed: Value = serde_json::from_str(&printed).unwrap();
        assert!(printed["ips"][0]["address"].is_string(), "the result of the plugin before is passed on: {printed}");
    }
    let (a, b) = (&world.pods[0].0, &world.pods[1].0);
    // Who calls whom by which address, and whom the pod sees.
    let calls = [
        (&world.outside, "10.88.0.1", "31001", "a 10.88.0.9"),
        (&world.outside, "10.88.0.1", "31002", "b 10.88.0.9"),
        (&world.host, "10.88.0.1", "31001", "a 10.88.0.1"),
        (&world.host, "127.0.0.1", "31001", "a 172.30.0.1"),
        (b, "10.88.0.1", "31001", "a 172.30.0.6"),
        (a, "10.88.0.1", "31001", "a 172.30.0.1"),
        (b, "172.30.0.5", "80", "a 172.30.0.6"),
        (&world.outside, "10.88.0.1", "31003", "-"),
    ];
    for protocol in ["TCP", "UDP"] {
        for (from, address, port, expected) in calls {
            let answer = world.call(from, protocol, address, port);
            assert_eq!(answer, expected, "{protocol} from {} to {address}:{port}", from.name);
        }
    }

    for pod in ["a", "b"] {
        assert_eq!(world.plugin("CHECK", pod), (true, "\n".to_owned()));
    }
    let before = rules(&world);
    assert!(world.plugin("ADD", "a").0, "adding twice is no error");
    assert_eq!(sorted(&rules(&world)), sorted(&before), "and changes nothing");

    let (good, printed) = world.plugin("ADD", "stranger");
    let error: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((good, &error["code"]), (false, &json!(11)), "{printed}");

    assert_eq!(world.plugin("DEL", "a"), (true, "\n".to_owned()));
    assert_eq!(world.call(&world.outside, "TCP", "10.88.0.1", "31001"), "-");
    assert_eq!(world.call(&world.outside, "TCP", "10.88.0.1", "31002"), "b 10.88.0.9");
    let (good, printed) = world.plugin("CHECK", "a");
    assert!(!good && printed.contains("rules instead of"), "{printed}");
    for pod in ["a", "b", "b"] {
        assert_eq!(world.plugin("DEL", pod), (true, "\n".to_owned()));
    }
    assert_eq!(rules(&world), "", "the last pod takes everything along");
}

/// Two hundred pods one after the other on one host port. Every tenth loses its task before its sandbox, which is taken
/// down when others have the port.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, ip and iptables"]
async fn ports_are_free_again_after_two_hundred_pods() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ports.sock");
    let ports = Arc::new(RealPorts::new([10, 88, 0, 1].into()));
    let server = tokio::spawn(serve(listen(&socket).unwrap(), ports.clone()));
    tokio::task::spawn_blocking(move || come_and_go(&socket, &ports)).await.unwrap();
    server.abort();
}

fn come_and_go(socket: &Path, ports: &RealPorts) {
    let world = World::new(socket);
    world.wait_for_servers();
    let launch = |uid: &str| PodLaunch {
        format: FORMAT,
        namespace: "ns".to_owned(),
        name: uid.to_owned(),
        uid: uid.to_owned(),
        ports: ["TCP", "UDP"]
            .map(|protocol| PortMapping { container_port: 80, host_port: 31001, protocol: protocol.to_owned() })
            .to_vec(),
    };
    let mut late = Vec::new();
    for round in 0..200 {
        let uid = format!("pod-{round}");
        ports.assign(&launch(&uid)).unwrap();
        let (good, printed) = world.plugin_at("ADD", &uid, "172.30.0.5");
        assert!(good, "{round}: {printed}");
        let other = ports.assign(&launch("other")).unwrap_err().to_string();
        assert!(other.contains(&format!("31001/TCP is allocated to pod {uid}")), "{other}");
        if round % 10 == 9 {
            ports.release(&uid);
            late.push(uid);
        } else {
            assert!(world.plugin_at("DEL", &uid, "172.30.0.5").0);
            ports.release(&uid);
        }
        if round % 50 == 0 {
            let free = world.call(&world.outside, "TCP", "10.88.0.1", "31001");
            assert_eq!(free, "-", "round {round}: nobody has the port");
        }
    }
    for uid in late {
        assert!(world.plugin_at("DEL", &uid, "172.30.0.5").0);
    }
    assert_eq!(rules(&world), "");
    // And it leads to whoever has it next.
    ports.assign(&launch("last")).unwrap();
    assert!(world.plugin_at("ADD", "last", "172.30.0.6").0);
    assert_eq!(world.call(&world.outside, "TCP", "10.88.0.1", "31001"), "b 10.88.0.9");
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}
