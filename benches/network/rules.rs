//! The time from a pod's readiness to another node's rule: `km endpoints` and a kube-proxy on the local view, against the
//! stock endpoint controllers and a kube-proxy on the API server. Both kube-proxies have the same flags.
//!
//! Each side has its own API server. Pods become ready one at a time, each the only one of its Service; a rule is there
//! when a connection to the Service arrives, which is refused before.
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kmctl_core::cluster::ProxyMode;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::contender::{Contender, OURS, Running, THEIRS};
use crate::figures;
use crate::namespaces::{Namespace, Program};
use crate::nodes::{Node, api, connect, create, node, proxy, switch};
use crate::peers::program;
use crate::server::Server;

/// Pods that become ready on each side.
const SAMPLES: usize = 100;

/// Between two of one side: longer than kube-proxy's own pause, one second.
const PAUSE: Duration = Duration::from_millis(1300);

/// Where the one process is that all endpoints lead to.
const THERE: &str = "10.88.0.9";

/// Its port.
const PORT: u16 = 31001;

/// Between two looks.
const POLL: Duration = Duration::from_millis(1);

/// A connection within one machine takes much less.
const CONNECT: Duration = Duration::from_millis(20);

/// Within this time a rule has to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// One API server, who writes there, and a node.
struct Side {
    client: Client,
    services: Vec<SocketAddr>,
    namespace: Watched,
    _relay: Option<AbortOnDropHandle<()>>,
    _writer: Running,
    _server: Server,
}

/// The node whose rules are looked at.
enum Watched {
    Ours(Node),
    Theirs(Program, Namespace),
}

impl Watched {
    fn namespace(&self) -> &Namespace {
        match self {
            Watched::Ours(node) => &node.namespace,
            Watched::Theirs(_, namespace) => namespace,
        }
    }
}

pub async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let switch = switch();
    let there = Namespace::new("there");
    connect(&switch, &there, "there", THERE);
    let program = program();
    let _there = there.start(&[&program, "serve", &PORT.to_string()]);
    let sides = [&OURS, &THEIRS];
    let mut made = Vec::new();
    for contender in sides {
        made.push(Side::new(contender, folder.path(), &switch).await);
    }
    let mut times = [Vec::new(), Vec::new()];
    for sample in 0..SAMPLES {
        let began = Instant::now();
        for (side, times) in made.iter().zip(&mut times) {
            times.push(side.becomes_ready(sample).await.as_secs_f64());
        }
        // Not in step with anything.
        let jitter = Duration::from_millis((sample * 37 % 100) as u64);
        tokio::time::sleep((PAUSE + jitter).saturating_sub(began.elapsed())).await;
    }
    let [ours, theirs] = times;
    for (what, part) in [("median", 0.5), ("p99", 0.99)] {
        let name = format!("network: from a pod's readiness to another node's rule, {what} of {SAMPLES}");
        let of = |times: &Vec<f64>| figures::quantile(times.clone(), part) * 1000.0;
        figures::compare(&name, of(&ours), of(&theirs), "ms");
    }
}

impl Side {
    async fn new(contender: &Contender, folder: &std::path::Path, switch: &Namespace) -> Side {
        let server = Server::start().await;
        let client = server.client();
        let ours = std::ptr::eq(contender, &OURS);
        create(&client, "nodes", "Node", json!({ "metadata": { "name": "there" } })).await;
        stream::iter(0..SAMPLES).for_each_concurrent(16, |sample| prepare(&client, sample)).await;
        let listed = api(&client, "services", "Service");
        let mut services = Vec::new();
        for sample in 0..SAMPLES {
            let service = listed.get(&name(sample)).await.unwrap();
            let address: IpAddr = service.data["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
            services.push(SocketAddr::new(address, 80));
        }
        let writer = contender.start(&server, folder);
        let (namespace, relay) = if ours {
            (Watched::Ours(node(&client, folder, switch, "na", "10.88.0.1", ProxyMode::Iptables).await), None)
        } else {
            let (namespace, proxy, relay) = stock(&client, &server, folder, switch).await;
            (Watched::Theirs(proxy, namespace), Some(relay))
        };
        let side = Side { client, services, namespace, _relay: relay, _writer: writer, _server: server };
        side.until_all_are_refused().await;
        side
    }

    /// Every Service is known to kube-proxy as one without endpoints.
    async fn until_all_are_refused(&self) {
        let began = Instant::now();
        loop {
            let rules = self.namespace.namespace().run(&["iptables-save", "-t", "filter"]);
            if rules.matches("has no endpoints").count() >= SAMPLES {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "kube-proxy does not know all Services");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes a pod ready, and waits for the first connection that arrives.
    async fn becomes_ready(&self, sample: usize) -> Duration {
        let began = Instant::now();
        let patch = Patch::Merge(json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
        let pods = api(&self.client, "pods", "Pod");
        pods.patch_status(&name(sample), &PatchParams::default(), &patch).await.unwrap();
        let service = self.services[sample];
        let arrives = || {
            while StdStream::connect_timeout(&service, CONNECT).is_err() {
                assert!(began.elapsed() < PATIENCE, "the rule for {service} does not come");
                std::thread::sleep(POLL);
            }
            began.elapsed()
        };
        tokio::task::block_in_place(|| self.namespace.namespace().inside_thread(arrives))
    }
}

fn name(sample: usize) -> String {
    format!("s{sample}")
}

/// A Service and its pod, which is not ready. To the stock controllers the pod's own address is where the process is; to
/// ours it is the node's, with a granted port.
async fn prepare(client: &Client, sample: usize) {
    let name = name(sample);
    let spec = json!({ "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": PORT }] });
    create(client, "services", "Service", json!({ "metadata": { "name": name }, "spec": spec })).await;
    let ports = json!([{ "containerPort": PORT, "hostPort": PORT, "protocol": "TCP" }]);
    let pod = json!({
        "metadata": {
            "name": name, "labels": { "app": name }, "annotations": { "kmctl.io/ports": ports.to_string() },
        },
        "spec": {
            "nodeName": "there",
            "containers": [{ "name": "c", "image": "none", "ports": [{ "containerPort": PORT }] }],
        },
        "status": {
            "phase": "Running", "hostIP": THERE, "podIP": THERE, "podIPs": [{ "ip": THERE }],
            "conditions": [{ "type": "Ready", "status": "False" }],
        },
    });
    create(client, "pods", "Pod", pod).await;
}

/// A node whose kube-proxy reads the API server itself, by a port of its own loopback, as with `network.mode: cni`.
async fn stock(
    client: &Client,
    server: &Server,
    folder: &std::path::Path,
    switch: &Namespace,
) -> (Namespace, Program, AbortOnDropHandle<()>) {
    let (name, address) = ("nb", "10.88.0.2");
    let namespace = Namespace::new(name);
    connect(switch, &namespace, name, address);
    // Where Services' addresses would go, or nobody could send to them.
    namespace.run(&["ip", "route", "add", "default", "via", THERE]);
    create(client, "nodes", "Node", json!({ "metadata": { "name": name } })).await;
    let listener = namespace.inside_thread(|| StdListener::bind("127.0.0.1:0").unwrap());
    let here = listener.local_addr().unwrap();
    let there = server.url.trim_start_matches("https://").to_owned();
    let relay = AbortOnDropHandle::new(tokio::spawn(relay(listener, there)));
    let kubeconfig = folder.join(format!("{name}.kubeconfig"));
    std::fs::write(&kubeconfig, server.kubeconfig().replace(&server.url, &format!("https://{here}"))).unwrap();
    std::fs::set_permissions(&kubeconfig, PermissionsExt::from_mode(0o600)).unwrap();
    let proxy = proxy(&namespace, name, address.parse().unwrap(), &kubeconfig, ProxyMode::Iptables);
    (namespace, proxy, relay)
}

async fn relay(listener: StdListener, to: String) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((mut near, _)) = listener.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await.unwrap();
            for stream in [&near, &far] {
                stream.set_nodelay(true).unwrap();
            }
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
