use super::*;

const NODE: &str = "10.0.0.1";

/// This node has pod a (80/TCP by 31001, 53/UDP by 31002) and pod b (80/TCP by 31003).
fn here() -> Here {
    let port = |number, protocol: &str| NodePort { number, protocol: protocol.to_owned() };
    let pod = |last| IpAddr::from([172, 30, 0, last]);
    let ports =
        [(port(31001, "TCP"), (pod(5), 80)), (port(31002, "UDP"), (pod(5), 53)), (port(31003, "TCP"), (pod(6), 80))];
    Here { address: NODE.parse().unwrap(), ports: ports.into() }
}

fn slice(addresses: &[&str], ports: &[(&str, &str, u16)]) -> Value {
    let endpoint = |address: &&str| json!({ "addresses": [address], "nodeName": "n", "conditions": { "ready": true } });
    let port = |(name, protocol, port): &(&str, &str, u16)| json!({ "name": name, "protocol": protocol, "port": port });
    json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
    })
}

/// `name: address:port/protocol …` of each slice.
fn told(slices: &[Value]) -> Vec<String> {
    let one = |slice: &Value| {
        let mut text = format!("{}:", slice["metadata"]["name"].as_str().unwrap());
        for endpoint in list(slice, "endpoints") {
            for port in list(slice, "ports") {
                let address = endpoint["addresses"][0].as_str().unwrap();
                text.push_str(&format!(" {address}:{}/{}", port["port"], port["protocol"].as_str().unwrap()));
            }
        }
        text
    };
    slices.iter().map(one).collect()
}

#[test]
fn endpoints_of_this_node_become_pod_and_container_port_and_others_stay() {
    let http = |port| [("http", "TCP", port)];
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str, u16)], &'a [&'a str]);
    let cases: [Case; 7] = [
        (&["10.0.0.2"], &http(31001), &["web-1: 10.0.0.2:31001/TCP"]),
        (&[NODE], &http(31001), &["web-1:", "web-1.0-80: 172.30.0.5:80/TCP"]),
        // The same host port on another node belongs to another pod.
        (&["10.0.0.2", NODE], &http(31001), &["web-1: 10.0.0.2:31001/TCP", "web-1.0-80: 172.30.0.5:80/TCP"]),
        // A pod on the host's network, or one whose address is not known: the node's own port is right.
        (&[NODE], &http(8080), &["web-1: 10.0.0.1:8080/TCP"]),
        // The number alone is not sufficient: the protocol differs.
        (&[NODE], &[("dns", "TCP", 31002)], &["web-1: 10.0.0.1:31002/TCP"]),
        (
            &[NODE],
            &[("http", "TCP", 31001), ("dns", "UDP", 31002)],
            &["web-1:", "web-1.0-80.1-53: 172.30.0.5:80/TCP 172.30.0.5:53/UDP"],
        ),
        // Written by hand, with ports of two pods and of the host.
        (
            &[NODE],
            &[("a", "TCP", 31001), ("b", "TCP", 31003), ("c", "TCP", 22)],
            &[
                "web-1:",
                "web-1.0-80: 172.30.0.5:80/TCP",
                "web-1.1-80: 172.30.0.6:80/TCP",
                "web-1.2-22: 10.0.0.1:22/TCP",
            ],
        ),
    ];
    for (addresses, ports, expected) in cases {
        let slice = slice(addresses, ports);
        assert_eq!(told(&Resource::EndpointSlices.rewrite(&slice, &here())), expected, "{addresses:?} {ports:?}");
    }
}

#[test]
fn everything_else_of_a_slice_is_handed_on() {
    let original = slice(&[NODE], &[("http", "TCP", 31001)]);
    let rewritten = Resource::EndpointSlices.rewrite(&original, &here());
    let [rest, local] = rewritten.as_slice() else { panic!("{rewritten:?}") };
    assert_eq!(rest["metadata"], original["metadata"]);
    assert_eq!(local["metadata"]["labels"], original["metadata"]["labels"]);
    assert_eq!(local["endpoints"][0]["nodeName"], "n", "by which kube-proxy knows its own node's endpoints");
    assert_eq!(local["endpoints"][0]["conditions"], original["endpoints"][0]["conditions"]);
    assert_eq!(local["ports"][0]["name"], "http");
}

#[test]
fn a_slice_without_ports_or_endpoints_is_unchanged() {
    for object in [slice(&[NODE], &[]), slice(&[], &[("http", "TCP", 31001)])] {
        assert_eq!(Resource::EndpointSlices.rewrite(&object, &here()), [object]);
    }
    let all_ports = json!({ "metadata": { "name": "x" }, "endpoints": [{ "addresses": [NODE] }], "ports": [{}] });
    assert_eq!(Resource::EndpointSlices.rewrite(&all_ports, &here()), std::slice::from_ref(&all_ports));
}

#[test]
fn subsets_of_endpoints_are_split_the_same_way() {
    let object = json!({ "metadata": { "name": "web" }, "subsets": [{
        "addresses": [{ "ip": "10.0.0.2", "nodeName": "m" }, { "ip": NODE, "nodeName": "n" }],
        "notReadyAddresses": [{ "ip": NODE, "nodeName": "n", "hostname": "x" }],
        "ports": [{ "name": "http", "port": 31001 }, { "name": "ssh", "port": 22, "protocol": "TCP" }],
    }] });
    let expected = json!({ "metadata": { "name": "web" }, "subsets": [
        {
            "addresses": [{ "ip": "10.0.0.2", "nodeName": "m" }],
            "ports": [{ "name": "http", "port": 31001 }, { "name": "ssh", "port": 22, "protocol": "TCP" }],
        },
        {
            "addresses": [{ "ip": NODE, "nodeName": "n" }],
            "notReadyAddresses": [{ "ip": NODE, "nodeName": "n", "hostname": "x" }],
            "ports": [{ "name": "ssh", "port": 22, "protocol": "TCP" }],
        },
        {
            "addresses": [{ "ip": "172.30.0.5", "nodeName": "n" }],
            "notReadyAddresses": [{ "ip": "172.30.0.5", "nodeName": "n", "hostname": "x" }],
            "ports": [{ "name": "http", "port": 80 }],
        },
    ] });
    assert_eq!(Resource::Endpoints.rewrite(&object, &here()), [expected]);
    let empty = json!({ "metadata": { "name": "web" } });
    assert_eq!(Resource::Endpoints.rewrite(&empty, &here()), std::slice::from_ref(&empty));
}

#[test]
fn only_objects_with_an_endpoint_of_this_node_depend_on_its_ports() {
    let address = NODE.parse().unwrap();
    assert!(Resource::EndpointSlices.names(&slice(&["10.0.0.2", NODE], &[]), address));
    assert!(!Resource::EndpointSlices.names(&slice(&["10.0.0.11"], &[]), address));
    let endpoints = json!({ "subsets": [{ "notReadyAddresses": [{ "ip": NODE }] }] });
    assert!(Resource::Endpoints.names(&endpoints, address));
    assert!(!Resource::Endpoints.names(&json!({}), address));
}
