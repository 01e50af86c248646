//! Rewrites endpoints of this node for its own kube-proxy. Pure.
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

/// A port of this node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePort {
    /// The port number.
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// The destinations of this node's ports: the pod's address and the container port.
pub type Translations = BTreeMap<NodePort, (IpAddr, u16)>;

/// The address and ports of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The node's address, by which endpoints name it.
    pub address: IpAddr,
    /// Its granted ports, for pods that have an address.
    pub ports: Translations,
}

/// The resources that can be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `endpointslices` of `discovery.k8s.io`.
    EndpointSlices,
    /// `endpoints` of the core group.
    Endpoints,
}

/// Some of an object's ports: each one's index in the object, and its number.
type Numbers = Vec<(usize, u16)>;

impl Resource {
    /// The kind of one object.
    pub fn kind(self) -> &'static str {
        match self {
            Resource::EndpointSlices => "EndpointSlice",
            Resource::Endpoints => "Endpoints",
        }
    }

    /// Whether the object has an endpoint at this address, so that it depends on the node's ports.
    pub fn names(self, object: &Value, address: IpAddr) -> bool {
        match self {
            Resource::EndpointSlices => list(object, "endpoints")
                .iter()
                .flat_map(|endpoint| list(endpoint, "addresses"))
                .any(|ip| is(ip, address)),
            Resource::Endpoints => list(object, "subsets")
                .iter()
                .flat_map(|subset| ["addresses", "notReadyAddresses"].into_iter().flat_map(|key| list(subset, key)))
                .any(|entry| is(&entry["ip"], address)),
        }
    }

    /// The objects that replace `object`. The first has its name. There are more if endpoints that shared a port number
    /// no longer share it, because all ports of a slice are ports of all its endpoints.
    pub fn rewrite(self, object: &Value, here: &Here) -> Vec<Value> {
        match self {
            Resource::EndpointSlices => slices(object, here),
            Resource::Endpoints => vec![endpoints(object, here)],
        }
    }
}

impl Here {
    /// Groups `ports` of this node by the address of the pod that they lead to; the second part are those that lead to
    /// no pod.
    fn lead(&self, ports: &[Value]) -> (BTreeMap<IpAddr, Numbers>, Numbers) {
        let (mut moved, mut stay) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (index, port) in ports.iter().enumerate() {
            let Some(number) = number(port) else { continue };
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            match self.ports.get(&NodePort { number, protocol }) {
                Some((address, container_port)) => moved.entry(*address).or_default().push((index, *container_port)),
                None => stay.push((index, number)),
            }
        }
        (moved, stay)
    }
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is(text: &Value, address: IpAddr) -> bool {
    text.as_str().and_then(|text| text.parse().ok()) == Some(address)
}

fn number(port: &Value) -> Option<u16> {
    port["port"].as_u64().and_then(|number| u16::try_from(number).ok())
}

/// The ports of `all` at these indices, with these numbers.
fn renumbered(all: &[Value], ports: &[(usize, u16)]) -> Value {
    let one = |(index, number): &(usize, u16)| {
        let mut port = all[*index].clone();
        port["port"] = json!(number);
        port
    };
    ports.iter().map(one).collect()
}

fn slices(slice: &Value, here: &Here) -> Vec<Value> {
    let ports = list(slice, "ports");
    let mut rest: Vec<Value> = Vec::new();
    let mut groups: BTreeMap<(bool, Numbers), Vec<Value>> = BTreeMap::new();
    for endpoint in list(slice, "endpoints") {
        let of_this_node = list(endpoint, "addresses").iter().any(|ip| is(ip, here.address));
        let (moved, stay) = if of_this_node { here.lead(ports) } else { Default::default() };
        if moved.is_empty() {
            rest.push(endpoint.clone());
            continue;
        }
        if !stay.is_empty() {
            groups.entry((here.address.is_ipv4(), stay)).or_default().push(endpoint.clone());
        }
        for (address, ports) in moved {
            let mut endpoint = endpoint.clone();
            endpoint["addresses"] = json!([address.to_string()]);
            groups.entry((address.is_ipv4(), ports)).or_default().push(endpoint);
        }
    }
    let name = slice["metadata"]["name"].as_str().unwrap_or_default();
    let mut all = vec![slice.clone()];
    all[0]["endpoints"] = Value::Array(rest);
    for ((v4, numbers), endpoints) in groups {
        let mut group = slice.clone();
        // Derived from the ports only, so that a change of an endpoint is a change of the same object.
        let suffix: String = numbers.iter().map(|(index, number)| format!(".{index}-{number}")).collect();
        group["metadata"]["name"] = json!(format!("{name}{suffix}"));
        group["addressType"] = json!(if v4 { "IPv4" } else { "IPv6" });
        group["ports"] = renumbered(ports, &numbers);
        group["endpoints"] = Value::Array(endpoints);
        all.push(group);
    }
    all
}

fn endpoints(object: &Value, here: &Here) -> Value {
    let mut subsets: Vec<Value> = Vec::new();
    for subset in list(object, "subsets") {
        let ports = list(subset, "ports");
        let (moved, stay) = here.lead(ports);
        if moved.is_empty() {
            subsets.push(subset.clone());
            continue;
        }
        let split = |key: &str| -> (Vec<Value>, Vec<Value>) {
            list(subset, key).iter().cloned().partition(|entry| is(&entry["ip"], here.address))
        };
        let (ready, not_ready) = (split("addresses"), split("notReadyAddresses"));
        let mut add = |ready: &[Value], not_ready: &[Value], ports: Value| {
            let mut made = json!({ "ports": ports });
            for (key, entries) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
                if !entries.is_empty() {
                    made[key] = json!(entries);
                }
            }
            if made.as_object().is_some_and(|made| made.len() > 1) {
                subsets.push(made);
            }
        };
        add(&ready.1, &not_ready.1, json!(ports));
        if !stay.is_empty() {
            add(&ready.0, &not_ready.0, renumbered(ports, &stay));
        }
        for (address, numbers) in &moved {
            let at = |entries: &[Value]| -> Vec<Value> {
                let mut entries = entries.to_vec();
                entries.iter_mut().for_each(|entry| entry["ip"] = json!(address.to_string()));
                entries
            };
            add(&at(&ready.0), &at(&not_ready.0), renumbered(ports, numbers));
        }
    }
    let mut object = object.clone();
    if object.get("subsets").is_some() {
        object["subsets"] = Value::Array(subsets);
    }
    object
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
