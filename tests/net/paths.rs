//! From every client to every kind of Service, by way of `km endpoints`, `km cni`, the local view, a stock kube-proxy
//! and the node's DNS, on two nodes whose pods have the same addresses.
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kmctl::node::cni::{listen, serve};
use kmctl::node::deps::{DepError, PortAllocator};
use kmctl::node::dns::{answer::Zone, forward::Forward, serve::NameServer};
use kmctl::node::launch::{self, PodLaunch, PortMapping};
use kmctl::node::real::{RealPorts, User, for_own_authority, proxy_flags};
use kmctl::node::spec::{DepsSpec, Place};
use kmctl::node::view::api::{ApiUpstream, Clients};
use kmctl::node::view::lists::Lists;
use kmctl::node::view::serve::Door;
use kmctl::node::view::translate::Resource;
use kmctl::node::view::upstream::ListOf;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::cni::{SERVER, masquerade};
use crate::namespaces::{Namespace, Program};
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

struct Fixed(Client);

#[async_trait]
impl Clients for Fixed {
    async fn client(&self) -> Result<Client, DepError> {
        Ok(self.0.clone())
    }
}

/// A pod's name, its address, and the host port granted for its port 80.
type PodPlan = (&'static str, &'static str, u16);

struct Pod {
    name: &'static str,
    address: &'static str,
    port: u16,
    namespace: Namespace,
    _server: Program,
}

/// A node: its namespace, its part of km node, a kube-proxy, and its pods.
struct Node {
    name: &'static str,
    address: &'static str,
    namespace: Namespace,
    ports: Arc<RealPorts>,
    pods: Vec<Pod>,
    socket: PathBuf,
    _serving: Vec<AbortOnDropHandle<()>>,
    _proxy: Program,
}

struct World {
    client: Client,
    outside: Namespace,
    nodes: Vec<Node>,
    _switch: Namespace,
    _folder: tempfile::TempDir,
    _server: Server,
}

/// Connects a namespace to the switch.
fn connect(switch: &Namespace, namespace: &Namespace, link: &str, address: &str) {
    switch.run(&["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &namespace.name]);
    switch.run(&["ip", "link", "set", link, "master", "sw0", "up"]);
    namespace.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]);
    namespace.run(&["ip", "link", "set", "eth0", "up"]);
}

fn pod(node: &Namespace, name: &'static str, address: &'static str, port: u16) -> Pod {
    let namespace = Namespace::new(name);
    let link = format!("v{name}");
    node.run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace.name]);
    node.run(&["ip", "link", "set", &link, "master", "km0", "up"]);
    node.run(&["sh", "-c", &format!("echo 1 > /sys/class/net/{link}/brport/hairpin_mode")]);
    namespace.run(&["ip", "address", "add", &format!("{address}/16"), "dev", "eth0"]);
    namespace.run(&["ip", "link", "set", "eth0", "up"]);
    namespace.run(&["ip", "route", "add", "default", "via", "172.30.0.1"]);
    masquerade(node, name, address);
    let server = namespace.start(&["python3", "-c", SERVER, name, "80"]);
    Pod { name, address, port, namespace, _server: server }
}

impl World {
    async fn new() -> World {
        let server = Server::start().await;
        let client = server.client();
        let folder = tempfile::tempdir().unwrap();
        let switch = Namespace::new("sw");
        switch.run(&["ip", "link", "add", "sw0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "sw0", "up"]);
        let outside = Namespace::new("out");
        connect(&switch, &outside, "out", "10.88.0.9");
        let mut nodes = Vec::new();
        // The same pod addresses on both, and a host port that both granted.
        let pods: [(&str, &str, &[PodPlan]); 2] = [
            ("na", "10.88.0.1", &[("a1", "172.30.0.5", 31001), ("a2", "172.30.0.6", 31002)]),
            ("nb", "10.88.0.2", &[("b1", "172.30.0.5", 31001)]),
        ];
        for (name, address, pods) in pods {
            nodes.push(node(&client, folder.path(), &switch, name, address, pods).await);
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

fn api(client: &Client, plural: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    if plural == "nodes" {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), "default", &resource)
    }
}

async fn create(client: &Client, plural: &str, kind: &str, mut object: Value) {
    object["apiVersion"] = json!("v1");
    object["kind"] = json!(kind);
    let status = object.get("status").cloned();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let object = serde_json::from_value(object).unwrap();
    let api = api(client, plural, kind);
    api.create(&PostParams::default(), &object).await.unwrap();
    if let Some(status) = status {
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    }
}

async fn node(
    client: &Client,
    folder: &Path,
    switch: &Namespace,
    name: &'static str,
    address: &'static str,
    pods: &[PodPlan],
) -> Node {
    let namespace = Namespace::new(name);
    connect(switch, &namespace, name, address);
    namespace.run(&["ip", "route", "add", "default", "via", "10.88.0.9"]);
    namespace.run(&["ip", "link", "add", "km0", "address", "0a:58:ac:1e:00:01", "type", "bridge"]);
    namespace.run(&["ip", "address", "add", "172.30.0.1/16", "dev", "km0"]);
    namespace.run(&["ip", "link", "set", "km0", "up"]);
    namespace.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    namespace.run(&["sh", "-c", "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables"]);
    // As Docker leaves a host.
    namespace.run(&["iptables", "-P", "FORWARD", "DROP"]);
    create(
        client,
        "nodes",
        "Node",
        json!({ "metadata": { "name": name }, "status": { "addresses": [{ "type": "InternalIP", "address": address }] } }),
    )
    .await;

    let ip: IpAddr = address.parse().unwrap();
    let ports = Arc::new(RealPorts::new(ip));
    let socket = folder.join(format!("{name}.sock"));
    let questions = AbortOnDropHandle::new(tokio::spawn(serve(listen(&socket).unwrap(), ports.clone())));

    let upstream = Arc::new(ApiUpstream::new(Arc::new(Fixed(client.clone()))));
    let door = Door::on(namespace.inside_thread(|| TcpListener::bind("127.0.0.1:0").unwrap())).unwrap();
    let kubeconfig = folder.join(format!("{name}.kubeconfig"));
    let text = for_own_authority(&door.url, &door.certificate, &User::Token(&door.token));
    std::fs::write(&kubeconfig, text).unwrap();
    std::fs::set_permissions(&kubeconfig, PermissionsExt::from_mode(0o600)).unwrap();
    let lists = Lists::new(ip, ports.translations(), upstream.clone());
    let view = AbortOnDropHandle::new(tokio::spawn(door.serve(lists, upstream.clone())));

    let (udp, tcp) = namespace
        .inside_thread(|| (UdpSocket::bind("172.30.0.1:53").unwrap(), TcpListener::bind("172.30.0.1:53").unwrap()));
    let gateway = IpAddr::from([172, 30, 0, 1]);
    let zone = Zone::new("cluster.local", gateway).unwrap();
    let slices = ListOf::rewritten(Resource::EndpointSlices, "v1beta1");
    let names = NameServer::on(udp, tcp).unwrap().serve(zone, Forward::new("", gateway).unwrap(), slices, upstream);
    let names = AbortOnDropHandle::new(tokio::spawn(names));

    let mut launch = launch::example();
    (launch.node_name, launch.node_ip) = (name.to_owned(), ip);
    let program = PathBuf::from(std::env::var_os("KMCTL_TEST_BIN").unwrap()).join("kube-proxy");
    let mut argv = vec![program.display().to_string(), format!("--kubeconfig={}", kubeconfig.display())];
    argv.extend(proxy_flags(&DepsSpec::for_launch(&launch, &Place::example()), 10256, 10249));
    let log = folder.join(format!("{name}.log")).display().to_string();
    let line = format!("exec \"$@\" >{log} 2>&1");
    let argv: Vec<&str> = ["sh", "-c", &line, "sh"].into_iter().chain(argv.iter().map(String::as_str)).collect();
    let proxy = namespace.start(&argv);

    let mut made = Node {
        name,
        address,
        ports,
        pods: Vec::new(),
        socket,
        _serving: vec![questions, view, names],
        _proxy: proxy,
        namespace,
    };
    for (name, pod_address, port) in pods {
        let pod = pod(&made.namespace, name, pod_address, *port);
        made.start_pod(client, pod).await;
    }
    made
}

impl Node {
    /// As km scheduler, km node and the kubelet do it: bind with granted ports, network, then status.
    async fn start_pod(&mut self, client: &Client, pod: Pod) {
        let mapping =
            |protocol: &str| PortMapping { container_port: 80, host_port: pod.port, protocol: protocol.to_owned() };
        let ports = vec![mapping("TCP"), mapping("UDP")];
        let launch = PodLaunch {
            format: launch::FORMAT,
            namespace: "default".to_owned(),
            name: pod.name.to_owned(),
            uid: pod.name.to_owned(),
            ports: ports.clone(),
        };
        self.ports.assign(&launch).unwrap();
        self.plugin("ADD", &format!("c-{}", pod.name), &pod, pod.address);
        let annotation = serde_json::to_string(&ports).unwrap();
        let object = json!({
            "metadata": {
                "name": pod.name, "labels": { "app": "web", "name": pod.name },
                "annotations": { "kmctl.io/ports": annotation },
            },
            "spec": { "nodeName": self.name, "containers": [{ "name": "c", "image": "busybox", "ports": [
                { "name": "tcp", "containerPort": 80, "protocol": "TCP" },
                { "name": "udp", "containerPort": 80, "protocol": "UDP" },
            ] }] },
            "status": {
                "phase": "Running", "hostIP": self.address, "podIP": pod.address, "podIPs": [{ "ip": pod.address }],
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        create(client, "pods", "Pod", object).await;
        self.pods.push(pod);
    }

    fn plugin(&self, command: &str, container: &str, pod: &Pod, address: &str) {
        let configuration = json!({
            "cniVersion": "0.4.0", "name": "kmctl-demo", "type": "km-cni",
            "cluster": "demo", "bridge": "km0", "socket": self.socket,
            "prevResult": { "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": format!("{address}/16") }] },
        });
        let name = pod.name;
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={name}");
        let environment = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container),
            ("CNI_ARGS", arguments.as_str()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/unused"),
        ];
        let argv = [env!("CARGO_BIN_EXE_km"), "cni"];
        let (good, printed) = self.namespace.try_run(&argv, &environment, &configuration.to_string());
        assert!(good, "{printed}");
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
    let mut world = World::new().await;
    let stop = CancellationToken::new();
    let (client, stopped) = (world.client.clone(), stop.clone());
    let endpoints = tokio::spawn(async move { kmctl::endpoints::run::serve(client, "test", stopped).await });

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
    pod.namespace.run(&["ip", "address", "del", "172.30.0.5/16", "dev", "eth0"]);
    pod.namespace.run(&["ip", "address", "add", "172.30.0.7/16", "dev", "eth0"]);
    na.namespace.run(&["iptables", "-t", "nat", "-D", "POSTROUTING", "-s", pod.address, "-j", "CNI-a1"]);
    masquerade(&na.namespace, "a1-again", "172.30.0.7");
    pod.namespace.run(&["ip", "route", "replace", "default", "via", "172.30.0.1"]);
    na.plugin("ADD", "c-a1-again", pod, "172.30.0.7");
    for (from, expected) in [(a1, "a1 172.30.0.1"), (a2, "a1 172.30.0.6"), (b1, "a1 10.88.0.2")] {
        expect(from, "TCP", &named.0, 8080, expected);
    }
    stop.cancel();
    endpoints.await.unwrap().unwrap();
    world.nodes.clear();
}
