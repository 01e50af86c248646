//! Client × kind of Service × protocol × named or numbered target port.
use serde_json::json;

use super::{apply_speaker, beside, heard, host_of, node_of, service, text};
use crate::support::*;

/// Seconds within which everything that was made has to be reachable.
const PATIENCE: u32 = 60;

/// What differs between the modes.
pub struct Mode {
    /// Where every node's DNS answers: the first address of the default `network.podCIDR`, or the tenth of the default
    /// `kubernetes.serviceCIDR`.
    pub dns: &'static str,
    /// Pods have addresses of the whole cluster, so that a headless Service's plain A record is enough.
    pub routed: bool,
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
pub fn try_everything(lab: &Lab, mode: &Mode) {
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
