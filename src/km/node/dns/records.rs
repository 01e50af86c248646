//! The Services and endpoints that DNS answers from. Pure.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::super::view::upstream::Told;

/// Namespace and name.
pub type Key = (String, String);

/// On a Service: endpoints count as ready from the start. Predecessor of the field `publishNotReadyAddresses`.
const UNREADY_ANNOTATION: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";

/// A port, of a Service or of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Lower case; empty for an unnamed port, which has no SRV record of its own.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub number: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The cluster IPs; empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// The target of an `ExternalName` Service; empty for others.
    pub external_name: String,
    pub ports: Vec<Port>,
    /// Whether endpoints that are not ready are included.
    pub unready: bool,
}

/// An endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Lower case: the pod's own, or derived from the address.
    pub hostname: String,
    pub address: IpAddr,
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, Default)]
struct Slice {
    service: String,
    ports: Vec<Port>,
    endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug)]
struct SliceEndpoint {
    addresses: Vec<IpAddr>,
    hostname: String,
    ready: bool,
}

/// One of the two lists of objects, while it is received.
#[derive(Debug, Default)]
struct Listing {
    seen: BTreeSet<Key>,
    /// Whether it was complete at least once.
    complete: bool,
}

/// The list that an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The list of Services.
    Services,
    /// The list of EndpointSlices.
    Slices,
}

/// All data that DNS answers from.
#[derive(Debug, Default)]
pub struct Records {
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, Slice>,
    /// Names of a Service's slices.
    of_service: BTreeMap<Key, BTreeSet<String>>,
    /// Services by their own address.
    by_address: BTreeMap<IpAddr, Key>,
    /// Slices by the addresses of their endpoints.
    by_endpoint: BTreeMap<IpAddr, BTreeSet<Key>>,
    listings: [Listing; 2],
}

impl Records {
    /// Records an event of a list.
    pub fn tell(&mut self, source: Source, told: Told) {
        match told {
            Told::Begin => self.listing(source).seen.clear(),
            Told::Object(object) => {
                let key = key(&object);
                self.listing(source).seen.insert(key.clone());
                self.remove(source, &key);
                match source {
                    Source::Services => self.add_service(key, service(&object)),
                    Source::Slices => self.add_slice(key, slice(&object)),
                }
            }
            Told::Gone(object) => self.remove(source, &key(&object)),
            Told::End => {
                let seen = std::mem::take(&mut self.listing(source).seen);
                let known: Vec<Key> = match source {
                    Source::Services => self.services.keys().cloned().collect(),
                    Source::Slices => self.slices.keys().cloned().collect(),
                };
                known.iter().filter(|key| !seen.contains(*key)).for_each(|key| self.remove(source, key));
                self.listing(source).complete = true;
            }
        }
    }

    /// Whether both lists have been received: a name that is not known does not exist.
    pub fn complete(&self) -> bool {
        self.listings.iter().all(|listing| listing.complete)
    }

    /// The Service with this namespace and name.
    pub fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    /// Whether a namespace has a Service.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let from = (namespace.to_owned(), String::new());
        self.services.range(from..).next().is_some_and(|((first, _), _)| first == namespace)
    }

    /// The endpoints of a headless Service that are included in answers.
    pub fn endpoints(&self, key: &Key) -> Vec<Endpoint> {
        let unready = self.services.get(key).is_some_and(|service| service.unready);
        let names = self.of_service.get(key).into_iter().flatten();
        let slices = names.filter_map(|name| self.slices.get(&(key.0.clone(), name.clone())));
        slices.flat_map(|slice| slice.told(unready)).collect()
    }

    /// The Service with this address.
    pub fn service_at(&self, address: IpAddr) -> Option<&Key> {
        self.by_address.get(&address)
    }

    /// Hostname and Service of the headless endpoints at this address.
    pub fn endpoints_at(&self, address: IpAddr) -> Vec<(String, Key)> {
        let mut found = BTreeSet::new();
        let slices = self.by_endpoint.get(&address).into_iter().flatten();
        for (key, slice) in slices.filter_map(|key| Some((key, self.slices.get(key)?))) {
            let service_key = (key.0.clone(), slice.service.clone());
            let Some(service) = self.services.get(&service_key).filter(|service| service.is_headless()) else {
                continue;
            };
            for endpoint in slice.told(service.unready).filter(|endpoint| endpoint.address == address) {
                found.insert((endpoint.hostname, service_key.clone()));
            }
        }
        found.into_iter().collect()
    }

    fn listing(&mut self, source: Source) -> &mut Listing {
        &mut self.listings[usize::from(source == Source::Slices)]
    }

    fn add_service(&mut self, key: Key, service: Service) {
        self.by_address.extend(service.addresses.iter().map(|address| (*address, key.clone())));
        self.services.insert(key, service);
    }

    fn add_slice(&mut self, key: Key, slice: Slice) {
        self.of_service.entry((key.0.clone(), slice.service.clone())).or_default().insert(key.1.clone());
        for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            self.by_endpoint.entry(*address).or_default().insert(key.clone());
        }
        self.slices.insert(key, slice);
    }

    fn remove(&mut self, source: Source, key: &Key) {
        match source {
            Source::Services => {
                for address in self.services.remove(key).map(|service| service.addresses).unwrap_or_default() {
                    // The address may belong to another Service by now.
                    if self.by_address.get(&address) == Some(key) {
                        self.by_address.remove(&address);
                    }
                }
            }
            Source::Slices => {
                let Some(slice) = self.slices.remove(key) else { return };
                let service = (key.0.clone(), slice.service);
                forget(&mut self.of_service, &service, &key.1);
                for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                    forget(&mut self.by_endpoint, address, key);
                }
            }
        }
    }
}

/// Removes one value from a set, and the set when it is empty.
fn forget<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl Service {
    /// Whether the Service has no address of its own, so that answers contain its endpoints.
    pub fn is_headless(&self) -> bool {
        self.addresses.is_empty() && self.external_name.is_empty()
    }
}

impl Slice {
    fn told(&self, unready: bool) -> impl Iterator<Item = Endpoint> + '_ {
        let told = self.endpoints.iter().filter(move |endpoint| endpoint.ready || unready);
        told.flat_map(|endpoint| {
            endpoint.addresses.iter().map(|address| Endpoint {
                hostname: match endpoint.hostname.as_str() {
                    "" => made_of(*address),
                    own => own.to_owned(),
                },
                address: *address,
                ports: self.ports.clone(),
            })
        })
    }
}

/// A label derived from an address. It is the same for every endpoint at that address, since nothing else distinguishes
/// them by name.
fn made_of(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ports(ports: &[Value]) -> Vec<Port> {
    let one = |port: &Value| {
        Some(Port {
            name: port["name"].as_str().unwrap_or_default().to_ascii_lowercase(),
            protocol: port["protocol"].as_str().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port["port"].as_u64()?).ok()?,
        })
    };
    ports.iter().filter_map(one).collect()
}

fn addresses<'a>(texts: impl Iterator<Item = &'a Value>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for address in texts.filter_map(Value::as_str).filter_map(|text| text.parse().ok()) {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn service(object: &Value) -> Service {
    let spec = &object["spec"];
    let external = spec["type"] == "ExternalName";
    let own = addresses(std::iter::once(&spec["clusterIP"]).chain(list(spec, "clusterIPs")));
    Service {
        addresses: if external { Vec::new() } else { own },
        external_name: match spec["externalName"].as_str() {
            Some(name) if external => name.trim_end_matches('.').to_owned(),
            _ => String::new(),
        },
        ports: ports(list(spec, "ports")),
        unready: spec["publishNotReadyAddresses"] == true
            || object["metadata"]["annotations"][UNREADY_ANNOTATION] == "true",
    }
}

fn slice(object: &Value) -> Slice {
    let endpoints = list(object, "endpoints").iter().map(|endpoint| SliceEndpoint {
        addresses: addresses(list(endpoint, "addresses").iter()),
        hostname: endpoint["hostname"].as_str().unwrap_or_default().to_ascii_lowercase(),
        // A missing condition means ready.
        ready: endpoint["conditions"]["ready"] != false,
    });
    let service = object["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
    Slice { service: service.to_owned(), ports: ports(list(object, "ports")), endpoints: endpoints.collect() }
}
