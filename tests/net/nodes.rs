//! Nodes with pods: a network namespace each, with a bridge as the node agent makes it, its answers to `km cni`, its local
//! view, its DNS and a stock kube-proxy in either mode. The kubelet's and the ptp plugin's part is played.
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use km::node::cni::{listen, serve};
use km::node::deps::{DepError, PortAllocator};
use km::node::dns::answer::Zone;
use km::node::dns::forward::Forward;
use km::node::dns::serve::NameServer;
use km::node::real::{RealPorts, User, for_own_authority, proxy_forwarding};
use km::node::view::api::{ApiUpstream, Clients};
use km::node::view::lists::Lists;
use km::node::view::serve::LocalApiServer;
use km::node::view::translate::Resource;
use km::node::view::upstream::ListOf;
use kmctl_core::cluster::ProxyMode;
use kmctl_core::node::kube_proxy;
use kmctl_core::node::spec::{DepsSpec, Place};
use kmctl_core::protocol::launch::{self, PodLaunch, PortMapping};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::namespaces::{Namespace, Program};
use crate::server::programs;

struct Fixed(Client);

#[async_trait]
impl Clients for Fixed {
    async fn client(&self) -> Result<Client, DepError> {
        Ok(self.0.clone())
    }
}

/// Within this time a kube-proxy has to work.
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod's name, its address, and the host port granted for its port 80.
pub type PodPlan = (&'static str, &'static str, u16);

/// A pod on a node.
pub struct Pod {
    pub name: &'static str,
    pub address: &'static str,
    pub port: u16,
    pub namespace: Namespace,
    _server: Program,
}

/// A node: its namespace, its part of km node, a kube-proxy, and its pods.
pub struct Node {
    pub name: &'static str,
    pub address: &'static str,
    pub namespace: Namespace,
    ports: Arc<RealPorts>,
    pub pods: Vec<Pod>,
    mode: ProxyMode,
    socket: PathBuf,
    _serving: Vec<AbortOnDropHandle<()>>,
    _proxy: Program,
}

/// What the ptp plugin does: a link with the gateway's address at the host's end, over which all of the pod's packets go.
pub fn attach(host: &Namespace, pod: &Namespace, name: &str, address: &str, mode: ProxyMode) {
    let link = link(name);
    host.run(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pod.name]);
    pod.run(&["ip", "address", "add", &format!("{address}/16"), "dev", "eth0"]);
    pod.run(&["ip", "link", "set", "eth0", "up"]);
    pod.run(&["ip", "route", "del", "172.30.0.0/16", "dev", "eth0"]);
    pod.run(&["ip", "route", "add", "172.30.0.1", "dev", "eth0"]);
    pod.run(&["ip", "route", "add", "172.30.0.0/16", "via", "172.30.0.1", "src", address]);
    pod.run(&["ip", "route", "add", "default", "via", "172.30.0.1"]);
    host.run(&["ip", "address", "add", "172.30.0.1/32", "dev", &link]);
    host.run(&["ip", "link", "set", &link, "up"]);
    host.run(&["ip", "route", "add", address, "dev", &link]);
    match mode {
        ProxyMode::Iptables => masquerade(host, name, address),
        ProxyMode::Nftables => masquerade_by_nft(host, name, address),
    }
}

/// What it does when the pod is gone.
pub fn detach(host: &Namespace, name: &str, address: &str, mode: ProxyMode) {
    host.run(&["ip", "link", "delete", &link(name)]);
    if mode == ProxyMode::Nftables {
        let chain = ["inet", "cni_plugins_masquerade", "masq_checks"];
        let listed = host.run(&[&["nft", "--handle", "list", "chain"], &chain[..]].concat());
        let rule = listed.lines().find(|line| line.contains(&format!("\"{name}\""))).unwrap();
        let handle = rule.rsplit(' ').next().unwrap();
        host.run(&[&["nft", "delete", "rule"], &chain[..], &["handle", handle]].concat());
        return;
    }
    let (nat, chain) = (["iptables", "-t", "nat"], format!("CNI-{name}"));
    let rules: [&[&str]; 3] = [&["-D", "POSTROUTING", "-s", address, "-j", &chain], &["-F", &chain], &["-X", &chain]];
    for rule in rules {
        host.run(&[&nat, rule].concat());
    }
}

/// The host's end of a pod's link.
fn link(name: &str) -> String {
    format!("v{name}")
}

/// What the ptp plugin says that it did.
pub fn attached(name: &str, address: &str) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "interfaces": [{ "name": link(name) }, { "name": "eth0", "sandbox": "/run/netns/unused" }],
        "ips": [{ "version": "4", "interface": 1, "address": format!("{address}/16") }],
    })
}

/// What the ptp plugin does for a pod's way out: nothing to its own network, and all else by the host's address.
fn masquerade(host: &Namespace, name: &str, address: &str) {
    let (nat, chain) = (["iptables", "-t", "nat"], format!("CNI-{name}"));
    let rules: [&[&str]; 4] = [
        &["-N", &chain],
        &["-A", &chain, "-d", "172.30.0.0/16", "-j", "ACCEPT"],
        &["-A", &chain, "!", "-d", "224.0.0.0/4", "-j", "MASQUERADE"],
        &["-A", "POSTROUTING", "-s", address, "-j", &chain],
    ];
    for rule in rules {
        host.run(&[&nat, rule].concat());
    }
}

/// The same with its other back end.
fn masquerade_by_nft(host: &Namespace, name: &str, address: &str) {
    let script = format!(
        "add table inet cni_plugins_masquerade
add chain inet cni_plugins_masquerade masq_checks
add chain inet cni_plugins_masquerade postrouting {{ type nat hook postrouting priority 100 ; }}
flush chain inet cni_plugins_masquerade postrouting
add rule inet cni_plugins_masquerade postrouting ip daddr == 224.0.0.0/4 return
add rule inet cni_plugins_masquerade postrouting goto masq_checks
add rule inet cni_plugins_masquerade masq_checks ip saddr == {address} ip daddr != 172.30.0.0/16 masquerade comment \"{name}\"
"
    );
    assert!(host.try_run(&["nft", "-f", "-"], &[], &script).0);
}

/// What nodes and machines are connected to.
pub fn switch() -> Namespace {
    let switch = Namespace::new("sw");
    switch.run(&["ip", "link", "add", "sw0", "type", "bridge"]);
    switch.run(&["ip", "link", "set", "sw0", "up"]);
    switch
}

/// Connects a namespace to the switch.
pub fn connect(switch: &Namespace, namespace: &Namespace, link: &str, address: &str) {
    switch.run(&["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &namespace.name]);
    switch.run(&["ip", "link", "set", link, "master", "sw0", "up"]);
    namespace.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "eth0"]);
    namespace.run(&["ip", "link", "set", "eth0", "up"]);
}

fn pod(node: &Namespace, (name, address, port): PodPlan, server: &[&str], mode: ProxyMode) -> Pod {
    let namespace = Namespace::new(name);
    attach(node, &namespace, name, address, mode);
    let server = namespace.start(server);
    Pod { name, address, port, namespace, _server: server }
}

/// Objects of the core group.
pub fn api(client: &Client, plural: &str, kind: &str) -> Api<DynamicObject> {
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

/// Creates an object, and gives it its status.
pub async fn create(client: &Client, plural: &str, kind: &str, mut object: Value) {
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

/// A node without pods, with a kube-proxy that reads its local view.
pub async fn node(
    client: &Client,
    folder: &Path,
    switch: &Namespace,
    name: &'static str,
    address: &'static str,
    mode: ProxyMode,
) -> Node {
    let namespace = Namespace::new(name);
    connect(switch, &namespace, name, address);
    namespace.run(&["ip", "route", "add", "default", "via", "10.88.0.9"]);
    namespace.run(&["ip", "link", "add", "km0", "type", "bridge"]);
    namespace.run(&["ip", "address", "add", "172.30.0.1/16", "dev", "km0"]);
    namespace.run(&["ip", "link", "set", "km0", "up"]);
    namespace.run(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
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
    let door = LocalApiServer::on(namespace.inside_thread(|| TcpListener::bind("127.0.0.1:0").unwrap())).unwrap();
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
    let slices = ListOf::rewritten(Resource::EndpointSlices, "v1");
    let names = NameServer::on(udp, tcp).unwrap().serve(zone, Forward::new("", gateway).unwrap(), slices, upstream);
    let names = AbortOnDropHandle::new(tokio::spawn(names));

    let proxy = proxy(&namespace, name, ip, &kubeconfig, mode);
    // On a node it has long been there when pods come.
    let began = Instant::now();
    let works = || match mode {
        ProxyMode::Iptables => namespace.run(&["iptables-save", "-t", "filter"]).contains("-j KUBE-FORWARD"),
        ProxyMode::Nftables => namespace.run(&["nft", "list", "ruleset"]).contains("map service-ips"),
    };
    while !works() {
        assert!(began.elapsed() < PATIENCE, "kube-proxy writes no rules");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Node {
        name,
        address,
        ports,
        pods: Vec::new(),
        mode,
        socket,
        _serving: vec![questions, view, names],
        _proxy: proxy,
        namespace,
    }
}

/// A stock kube-proxy with the flags of the node agent, and its log beside the kubeconfig.
pub fn proxy(namespace: &Namespace, name: &str, ip: IpAddr, kubeconfig: &Path, mode: ProxyMode) -> Program {
    if mode == ProxyMode::Nftables {
        let script = proxy_forwarding("demo", &namespace.run(&["iptables-save", "-t", "filter"])).unwrap();
        assert!(namespace.try_run(&["iptables-restore", "--noflush", "--wait"], &[], &script).0);
    }
    let mut launch = launch::example();
    (launch.node_name, launch.node_ip) = (name.to_owned(), ip);
    let program = programs().join("kube-proxy");
    let mut argv = vec![program.display().to_string(), format!("--kubeconfig={}", kubeconfig.display())];
    argv.extend(kube_proxy::flags(&DepsSpec::for_launch(&launch, &Place::example()), mode, 10256, 10249));
    let log = kubeconfig.with_extension("log").display().to_string();
    let line = format!("exec \"$@\" >{log} 2>&1");
    let argv: Vec<&str> = ["sh", "-c", &line, "sh"].into_iter().chain(argv.iter().map(String::as_str)).collect();
    namespace.start(&argv)
}

impl Node {
    /// As km scheduler, km node and the kubelet do it: bind with granted ports, network, then status. The server
    /// listens on port 80.
    pub async fn start_pod(&mut self, client: &Client, plan: PodPlan, server: &[&str]) {
        let pod = pod(&self.namespace, plan, server, self.mode);
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

    /// Runs the real plugin as containerd does.
    pub fn plugin(&self, command: &str, container: &str, pod: &Pod, address: &str) {
        let configuration = json!({
            "cniVersion": "0.4.0", "name": "kmctl-demo", "type": "km-cni",
            "cluster": "demo", "socket": self.socket, "prevResult": attached(pod.name, address),
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
