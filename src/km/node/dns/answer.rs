//! Answers queries from [`Records`], by Kubernetes' specification of DNS-based service discovery, schema 1.1.0. Pure.
use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::records::{Endpoint, Key, Port, Records};

/// Version of the schema that these answers follow.
const SCHEMA: &str = "1.1.0";
/// Seconds that an answer may be cached. Short, because endpoints change with every pod.
const TTL: u32 = 5;
/// Seconds that the version may be cached, as in the specification's example.
const SCHEMA_TTL: u32 = 28800;
/// All SRV records of a Service have the same weight: clients choose at random.
const WEIGHT: u16 = 100;

/// The domain that is served.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its labels, lower case.
    labels: Vec<String>,
    name: Name,
    /// The address of its server.
    address: IpAddr,
}

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The name exists. Empty answers: no records of this type.
    Found {
        /// The requested records.
        answers: Vec<Record>,
        /// Addresses of the names in the answers.
        additionals: Vec<Record>,
    },
    /// The name is an alias; its target must be looked up next.
    Alias {
        /// The CNAME record.
        record: Box<Record>,
        /// The alias's target.
        target: Name,
    },
    /// The name does not exist.
    NoName,
    /// The name is outside the zone.
    Elsewhere,
    /// The lists from the API are not complete yet.
    NotYet,
}

impl Answer {
    fn records(answers: Vec<Record>) -> Self {
        Answer::Found { answers, additionals: Vec::new() }
    }

    fn nothing() -> Self {
        Answer::records(Vec::new())
    }
}

impl Zone {
    /// `domain`, served at `address`. None if it is not a valid domain.
    pub fn new(domain: &str, address: IpAddr) -> Option<Zone> {
        let name = Name::from_ascii(format!("{}.", domain.trim_end_matches('.'))).ok()?.to_lowercase();
        let labels = labels(&name);
        (!labels.is_empty()).then_some(Zone { labels, name, address })
    }

    /// The SOA record that accompanies an empty or negative answer.
    pub fn authority(&self) -> Record {
        let below = |labels: &[&str]| self.below(labels);
        let soa = SOA::new(below(&["ns", "dns"]), below(&["hostmaster"]), 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.name.clone(), TTL, RData::SOA(soa))
    }

    /// Looks up `name` for records of type `kind`.
    pub fn answer(&self, records: &Records, name: &Name, kind: RecordType) -> Answer {
        let labels = labels(name);
        if let Some(address) = reversed(&labels) {
            return self.reverse(records, name, address, kind);
        }
        let Some(inner) = labels.strip_suffix(self.labels.as_slice()) else { return Answer::Elsewhere };
        if !records.complete() {
            return Answer::NotYet;
        }
        let inner: Vec<&str> = inner.iter().map(String::as_str).collect();
        let key = |namespace: &str, service: &str| (namespace.to_owned(), service.to_owned());
        match inner.as_slice() {
            [] => match kind {
                RecordType::SOA => Answer::records(vec![self.authority()]),
                _ => Answer::nothing(),
            },
            ["dns-version"] => match kind {
                RecordType::TXT => {
                    let text = RData::TXT(TXT::new(vec![SCHEMA.to_owned()]));
                    Answer::records(vec![Record::from_rdata(name.clone(), SCHEMA_TTL, text)])
                }
                _ => Answer::nothing(),
            },
            ["ns", "dns"] => Answer::records(addresses(name, [self.address], kind)),
            ["dns" | "svc" | "pod"] => Answer::nothing(),
            [namespace, "svc" | "pod"] if records.has_namespace(namespace) => Answer::nothing(),
            [dashed, _, "pod"] => match dashed.replace('-', ".").parse::<Ipv4Addr>() {
                Ok(address) => Answer::records(addresses(name, [IpAddr::V4(address)], kind)),
                Err(_) => Answer::NoName,
            },
            [service, namespace, "svc"] => self.service(records, name, &key(namespace, service), kind),
            [label, service, namespace, "svc"] => {
                self.below_service(records, name, label, &key(namespace, service), kind)
            }
            [port, protocol, service, namespace, "svc"] => {
                let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                    return Answer::NoName;
                };
                let wanted = |one: &Port| !port.is_empty() && one.name == port && one.protocol == protocol;
                match self.services(records, name, &key(namespace, service), wanted) {
                    Some((answers, _)) if answers.is_empty() => Answer::NoName,
                    Some((answers, additionals)) if kind == RecordType::SRV => Answer::Found { answers, additionals },
                    Some(_) => Answer::nothing(),
                    None => Answer::NoName,
                }
            }
            _ => Answer::NoName,
        }
    }

    fn service(&self, records: &Records, name: &Name, key: &Key, kind: RecordType) -> Answer {
        let Some(service) = records.service(key) else { return Answer::NoName };
        if !service.external_name.is_empty() {
            let Ok(target) = Name::from_ascii(format!("{}.", service.external_name)) else { return Answer::NoName };
            let record = Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
            return match kind {
                RecordType::CNAME => Answer::records(vec![record]),
                _ => Answer::Alias { record: Box::new(record), target },
            };
        }
        if service.is_headless() && records.endpoints(key).is_empty() {
            return Answer::NoName;
        }
        if kind == RecordType::SRV {
            // Not in the specification: all named ports at once, as CoreDNS answers.
            let (answers, additionals) =
                self.services(records, name, key, |port| !port.name.is_empty()).unwrap_or_default();
            return Answer::Found { answers, additionals };
        }
        let own = service.addresses.iter().copied();
        Answer::records(match service.is_headless() {
            false => addresses(name, own, kind),
            true => addresses(name, records.endpoints(key).into_iter().map(|endpoint| endpoint.address), kind),
        })
    }

    /// `_tcp.service…`, or an endpoint's own name.
    fn below_service(&self, records: &Records, name: &Name, label: &str, key: &Key, kind: RecordType) -> Answer {
        let Some(service) = records.service(key) else { return Answer::NoName };
        if let Some(protocol) = label.strip_prefix('_') {
            let there = |port: &Port| port.protocol == protocol && !port.name.is_empty();
            return if service.ports.iter().any(there) { Answer::nothing() } else { Answer::NoName };
        }
        if !service.is_headless() {
            return Answer::NoName;
        }
        let endpoints = records.endpoints(key).into_iter().filter(|endpoint| endpoint.hostname == label);
        let found: Vec<IpAddr> = endpoints.map(|endpoint| endpoint.address).collect();
        if found.is_empty() { Answer::NoName } else { Answer::records(addresses(name, found, kind)) }
    }

    /// SRV records of a Service's ports and the addresses of their targets; none if the Service does not exist.
    fn services(
        &self,
        records: &Records,
        name: &Name,
        key: &Key,
        wanted: impl Fn(&Port) -> bool,
    ) -> Option<(Vec<Record>, Vec<Record>)> {
        let service = records.service(key)?;
        let record = |port: u16, target: &Name| {
            Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, WEIGHT, port, target.clone())))
        };
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        if !service.is_headless() {
            let target = self.below(&[&key.1, &key.0, "svc"]);
            answers.extend(service.ports.iter().filter(|port| wanted(port)).map(|port| record(port.number, &target)));
            additionals.extend(both(&target, &service.addresses));
            return Some((answers, additionals));
        }
        for Endpoint { hostname, address, ports } in records.endpoints(key) {
            let target = self.below(&[&hostname, &key.1, &key.0, "svc"]);
            for port in ports.iter().filter(|port| wanted(port)) {
                push(&mut answers, record(port.number, &target));
                both(&target, &[address]).for_each(|one| push(&mut additionals, one));
            }
        }
        Some((answers, additionals))
    }

    fn reverse(&self, records: &Records, name: &Name, address: IpAddr, kind: RecordType) -> Answer {
        let mut targets: Vec<Name> = Vec::new();
        targets.extend(records.service_at(address).map(|key| self.below(&[&key.1, &key.0, "svc"])));
        let endpoints = records.endpoints_at(address);
        targets.extend(endpoints.iter().map(|(hostname, key)| self.below(&[hostname, &key.1, &key.0, "svc"])));
        if targets.is_empty() {
            return Answer::Elsewhere;
        }
        let told = if kind == RecordType::PTR { targets } else { Vec::new() };
        let record = |target| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(target)));
        Answer::records(told.into_iter().map(record).collect())
    }

    /// A name in the zone. The labels are names of API objects, which are shorter than DNS allows.
    fn below(&self, labels: &[&str]) -> Name {
        let all = labels.iter().map(|label| label.as_bytes()).chain(self.name.iter());
        Name::from_labels(all).unwrap_or_else(|_| self.name.clone())
    }
}

/// Labels in lower case: all comparisons ignore case.
fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn push(records: &mut Vec<Record>, record: Record) {
    if !records.contains(&record) {
        records.push(record);
    }
}

/// Records of type `kind` for the addresses of that type, without duplicates.
fn addresses(name: &Name, addresses: impl IntoIterator<Item = IpAddr>, kind: RecordType) -> Vec<Record> {
    let mut found = Vec::new();
    for record in addresses.into_iter().map(|address| address_record(name, address)) {
        if record.record_type() == kind {
            push(&mut found, record);
        }
    }
    found
}

fn both<'a>(name: &'a Name, addresses: &'a [IpAddr]) -> impl Iterator<Item = Record> + 'a {
    addresses.iter().map(|address| address_record(name, *address))
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` represents.
fn reversed(labels: &[String]) -> Option<IpAddr> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [a, b, c, d, "in-addr", "arpa"] => format!("{d}.{c}.{b}.{a}").parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        [digits @ .., "ip6", "arpa"] if digits.len() == 32 => {
            let digits: String = digits.iter().rev().copied().collect();
            (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok())?.map(|all| IpAddr::V6(all.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
