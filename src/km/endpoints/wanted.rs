//! The Endpoints object and the EndpointSlices that one Service should have, as JSON bodies. Pure.
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::model::{Key, Labels, Node, Pod, Service};

/// Value of the managed-by labels, which identifies our objects.
pub const MANAGER: &str = "km-endpoints.kmctl.io";

/// Label on EndpointSlices that names their writer.
pub const SLICE_MANAGER_LABEL: &str = "endpointslice.kubernetes.io/managed-by";

/// Label on Endpoints that names their writer.
pub const ENDPOINTS_MANAGER_LABEL: &str = "endpoints.kubernetes.io/managed-by";

/// Label on EndpointSlices that names their Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Label on the objects of headless Services, so that kube-proxy skips them.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// At most this many endpoints per slice on average. The stock controller's limit is 100, and distribution by hash
/// needs room above the average.
const SLICE_FILL: usize = 64;

/// Most addresses in one Endpoints object, as in the stock controller: every node reads the object at every change.
const ENDPOINTS_CAPACITY: usize = 1000;

/// The bodies of one Service's objects: what a write sends, without the metadata that the server owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The Endpoints object, named like the Service.
    pub endpoints: Value,
    /// EndpointSlices by name.
    pub slices: BTreeMap<String, Value>,
}

/// One pod as an endpoint of a Service.
struct Endpoint<'a> {
    pod: &'a Pod,
    address: IpAddr,
    ports: Vec<ResolvedPort>,
    /// Counts as ready for the Service.
    ready: bool,
}

/// A Service port as one pod serves it. The order of the fields is the sort order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ResolvedPort {
    name: String,
    protocol: String,
    number: u16,
    app_protocol: Option<String>,
}

/// What `service` should have, given the pods it selects.
pub fn wanted<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod>, nodes: &BTreeMap<Key, Node>) -> Wanted {
    let endpoints: Vec<Endpoint> = pods.filter_map(|pod| endpoint(service, pod)).collect();
    Wanted { endpoints: endpoints_body(service, &endpoints), slices: slice_bodies(service, &endpoints, nodes) }
}

/// The pod as an endpoint of the Service. None when it is unreachable: not reachable yet, or no longer.
fn endpoint<'a>(service: &Service, pod: &'a Pod) -> Option<Endpoint<'a>> {
    let address = pod.node_address?;
    if pod.finished || pod.node.is_empty() {
        return None;
    }
    let resolved = service.ports.iter().filter_map(|port| {
        Some(ResolvedPort {
            name: port.name.clone(),
            protocol: port.protocol.clone(),
            number: pod.host_port(&port.target, &port.protocol)?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<ResolvedPort> = resolved.collect();
    // A pod that serves none of the ports would be an unusable address. A Service without ports (headless) only
    // provides names.
    if ports.is_empty() && !service.ports.is_empty() {
        return None;
    }
    ports.sort();
    let ready = service.publish_not_ready || (pod.ready && !pod.terminating);
    Some(Endpoint { pod, address, ports, ready })
}

fn labels(service: &Service, own: &[(&str, &str)]) -> Value {
    let mut labels: Labels = service.labels.clone();
    // Labels that the Service's author sets under these keys must not make the objects appear to have another writer.
    for key in [SLICE_MANAGER_LABEL, ENDPOINTS_MANAGER_LABEL, SERVICE_NAME_LABEL, HEADLESS_LABEL] {
        labels.remove(key);
    }
    if service.headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels.extend(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    json!(labels)
}

fn pod_reference(pod: &Pod) -> Value {
    json!({ "kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid })
}

/// The name that DNS gives the pod below the Service, if any.
fn hostname<'a>(service: &Service, pod: &'a Pod) -> Option<&'a str> {
    (!pod.hostname.is_empty() && pod.subdomain == service.key.name).then_some(pod.hostname.as_str())
}

fn endpoints_body(service: &Service, endpoints: &[Endpoint]) -> Value {
    // Endpoints omit terminating pods, because they cannot distinguish them from starting ones.
    let mut listed: Vec<&Endpoint> =
        endpoints.iter().filter(|endpoint| !endpoint.pod.terminating || service.publish_not_ready).collect();
    // Ready ones first, so that truncation drops the others.
    listed.sort_by_key(|endpoint| (!endpoint.ready, &endpoint.pod.key.name));
    listed.truncate(ENDPOINTS_CAPACITY);
    let mut subsets: BTreeMap<&[ResolvedPort], (Vec<&Endpoint>, Vec<&Endpoint>)> = BTreeMap::new();
    for endpoint in listed {
        let (ready, not_ready) = subsets.entry(&endpoint.ports).or_default();
        if endpoint.ready { ready.push(endpoint) } else { not_ready.push(endpoint) }
    }
    let addresses = |mut of: Vec<&Endpoint>| {
        of.sort_by_key(|endpoint| (endpoint.address, &endpoint.pod.uid));
        of.into_iter().map(|endpoint| endpoint_address(service, endpoint)).collect::<Vec<_>>()
    };
    let subsets: Vec<Value> = subsets
        .into_iter()
        .map(|(ports, (ready, not_ready))| {
            let mut subset = Map::new();
            if !ready.is_empty() {
                subset.insert("addresses".to_owned(), Value::Array(addresses(ready)));
            }
            if !not_ready.is_empty() {
                subset.insert("notReadyAddresses".to_owned(), Value::Array(addresses(not_ready)));
            }
            if !ports.is_empty() {
                // In Endpoints the server omits an empty name.
                let ports = ports.iter().map(|port| port_body(port, !port.name.is_empty()));
                subset.insert("ports".to_owned(), ports.collect());
            }
            Value::Object(subset)
        })
        .collect();
    let mut body = json!({ "metadata": { "labels": labels(service, &[(ENDPOINTS_MANAGER_LABEL, MANAGER)]) } });
    if !subsets.is_empty() {
        body["subsets"] = Value::Array(subsets);
    }
    body
}

fn endpoint_address(service: &Service, endpoint: &Endpoint) -> Value {
    let mut address = json!({
        "ip": endpoint.address.to_string(),
        "nodeName": endpoint.pod.node,
        "targetRef": pod_reference(endpoint.pod),
    });
    if let Some(hostname) = hostname(service, endpoint.pod) {
        address["hostname"] = json!(hostname);
    }
    address
}

fn port_body(port: &ResolvedPort, with_name: bool) -> Value {
    let mut body = json!({ "protocol": port.protocol, "port": port.number });
    if with_name {
        body["name"] = json!(port.name);
    }
    if let Some(app_protocol) = &port.app_protocol {
        body["appProtocol"] = json!(app_protocol);
    }
    body
}

/// One slice holds endpoints of one address family that serve the same host ports, because all ports of a slice apply
/// to all its endpoints. Names are computed, not generated. A writer that was killed between two writes thus finds its
/// objects again and never creates a second copy.
fn slice_bodies(service: &Service, endpoints: &[Endpoint], nodes: &BTreeMap<Key, Node>) -> BTreeMap<String, Value> {
    let mut groups: BTreeMap<(&str, &[ResolvedPort]), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let family = if endpoint.address.is_ipv4() { "IPv4" } else { "IPv6" };
        groups.entry((family, &endpoint.ports)).or_default().push(endpoint);
    }
    let mut slices = BTreeMap::new();
    for ((family, ports), group) in groups {
        // An endpoint's share depends on its UID alone, not on other endpoints: adding or removing a pod changes one
        // slice.
        let shares = group.len().div_ceil(SLICE_FILL).next_power_of_two();
        let mut by_share: BTreeMap<u64, Vec<&Endpoint>> = BTreeMap::new();
        for endpoint in group {
            by_share.entry(hash(&endpoint.pod.uid) % shares as u64).or_default().push(endpoint);
        }
        for (share, mut members) in by_share {
            members.sort_by_key(|endpoint| &endpoint.pod.uid);
            let identity = format!("{family} {share}/{shares} {ports:?}");
            let name = format!("{}-{:010x}", service.key.name, hash(&identity) & 0xff_ffff_ffff);
            let members = members.into_iter().map(|endpoint| slice_endpoint(service, endpoint, nodes));
            let body = json!({
                "metadata": {
                    "labels": labels(
                        service,
                        &[(SLICE_MANAGER_LABEL, MANAGER), (SERVICE_NAME_LABEL, &service.key.name)],
                    ),
                    "ownerReferences": [{
                        "apiVersion": "v1", "kind": "Service", "name": service.key.name, "uid": service.uid,
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "addressType": family,
                "endpoints": members.collect::<Vec<_>>(),
                "ports": ports.iter().map(|port| port_body(port, true)).collect::<Vec<_>>(),
            });
            slices.insert(name, body);
        }
    }
    slices
}

fn slice_endpoint(service: &Service, endpoint: &Endpoint, nodes: &BTreeMap<Key, Node>) -> Value {
    let pod = endpoint.pod;
    let zone = nodes.get(&Key::new("", pod.node.as_str())).and_then(|node| node.zone.as_ref());
    let mut body = json!({
        "addresses": [endpoint.address.to_string()],
        "targetRef": pod_reference(pod),
    });
    if let Some(hostname) = hostname(service, pod) {
        body["hostname"] = json!(hostname);
    }
    body["conditions"] = json!({ "ready": endpoint.ready, "serving": pod.ready, "terminating": pod.terminating });
    body["nodeName"] = json!(pod.node);
    if let Some(zone) = zone {
        body["zone"] = json!(zone);
    }
    body
}

/// The Service that a slice of this name belongs to: names are `<service>-<hash>`, and the hash has no dash.
pub fn service_of_slice(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(service, _)| service)
}

/// Fingerprint of a body, as sent or as read back.
pub fn digest(body: &Value) -> u64 {
    hash(&body.to_string())
}

/// Names must not change with a new compiler version, which rules out the standard library's hasher.
fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
#[path = "wanted_tests.rs"]
mod tests;
