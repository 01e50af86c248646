//! Mesos' agents as currently known, and the offers held from each.
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::pods::PodFacts;
use super::resources::{Amount, Ports, from_thousandths, to_thousandths};
use super::selectors::Labels;
use super::time::Time;
use crate::k8s::names::ATTRIBUTE_LABEL_PREFIX;
use mesos::types::{AgentInfo, Attribute, DomainInfo, Offer, OfferId, Resource, ValueType};

/// An offer that has been neither accepted nor declined.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOffer {
    pub id: OfferId,
    /// What is left of it. Resources are taken from it only together with its ACCEPT.
    pub resources: Vec<Resource>,
    /// When it was received.
    pub since: Time,
}

/// An agent, as described by offers and the operator API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    /// The agent id in Mesos.
    pub id: String,
    /// Hostname set by the agent's operator.
    pub hostname: String,
    /// Its address; `None` until an offer contained it.
    pub address: Option<IpAddr>,
    /// Attributes by name; the first value if a name is repeated.
    pub attributes: BTreeMap<String, String>,
    /// Region and zone of its fault domain.
    pub domain: Option<(String, String)>,
    /// All of its resources; `None` without access to the operator API.
    pub total: Option<Amount>,
    /// All of its ports; `None` without access to the operator API.
    pub total_ports: Option<Ports>,
    /// The largest amount offered at once so far.
    pub largest: Amount,
    /// Thousandths of a megabyte of disk: the total, or the largest amount offered at once so far.
    pub disk: i64,
    /// Held offers.
    pub offers: Vec<HeldOffer>,
    /// When one of our nodes last died there.
    pub ended: Option<Time>,
}

impl Agent {
    /// Adds an offer. The caller has checked its role.
    pub fn hold(&mut self, offer: Offer, now: Time) {
        self.hostname.clone_from(&offer.hostname);
        self.describe(&offer.attributes, offer.domain.as_ref());
        let address = offer.url.and_then(|url| url.address.ip).and_then(|ip| ip.parse().ok());
        self.address = address.or(self.address);
        let resources = offer.resources.into_iter().filter(Resource::is_plain).collect();
        self.offers.push(HeldOffer { id: offer.id, resources, since: now });
        self.largest = self.largest.max(self.offered());
        let disk = self.offers.iter().map(|offer| disk(&offer.resources)).sum();
        self.disk = self.disk.max(disk);
    }

    /// Updates the agent from the operator API.
    pub fn learn(&mut self, info: &AgentInfo) {
        self.hostname.clone_from(&info.hostname);
        self.describe(&info.attributes, info.domain.as_ref());
        self.total = Some(scalars(&info.resources));
        self.total_ports = Some(ports(&info.resources));
        self.disk = disk(&info.resources);
    }

    fn describe(&mut self, attributes: &[Attribute], domain: Option<&DomainInfo>) {
        self.attributes.clear();
        for attribute in attributes {
            if let Some(value) = text(attribute) {
                self.attributes.entry(attribute.name.clone()).or_insert(value);
            }
        }
        let fault = domain.and_then(|domain| domain.fault_domain.as_ref());
        self.domain = fault.map(|fault| (fault.region.name.clone(), fault.zone.name.clone()));
    }

    /// Processor and memory in all held offers.
    pub fn offered(&self) -> Amount {
        self.offers.iter().map(|offer| scalars(&offer.resources)).sum()
    }

    /// Ports in all held offers.
    pub fn offered_ports(&self) -> Ports {
        ports(self.offers.iter().flat_map(|offer| &offer.resources))
    }

    /// Explains which host ports of a pod are outside of everything that this agent could ever offer, and what it could
    /// offer.
    pub fn impossible_ports(&self, pod: &PodFacts) -> Option<String> {
        let total = self.total_ports.as_ref()?;
        let outside: Vec<String> = pod
            .host_ports()
            .filter_map(|port| port.host_port)
            .filter(|port| !total.contains(*port))
            .map(|port| port.to_string())
            .collect();
        let ranges = if total.is_empty() { "no ports".to_owned() } else { format!("ports {total}") };
        (!outside.is_empty())
            .then(|| format!("host port {} is not among the ports of the agent: {ranges}", outside.join(", ")))
    }

    /// The most that this agent is expected to provide.
    pub fn capacity(&self) -> Amount {
        self.total.unwrap_or(self.largest)
    }

    /// Labels of the agent's Node.
    pub fn labels(&self, node: &str) -> Labels {
        let mut labels = Labels::from([
            ("kubernetes.io/hostname".to_owned(), node.to_owned()),
            ("kubernetes.io/os".to_owned(), "linux".to_owned()),
            ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
        ]);
        if let Some((region, zone)) = &self.domain {
            labels.insert("topology.kubernetes.io/region".to_owned(), label_value(region));
            labels.insert("topology.kubernetes.io/zone".to_owned(), label_value(zone));
        }
        for (name, value) in &self.attributes {
            if let Some(key) = attribute_label(name) {
                labels.insert(key, label_value(value));
            }
        }
        labels
    }

    /// Attributes that its Node has no label for, because their names make no valid one.
    pub fn unlabelled(&self) -> Vec<&str> {
        self.attributes.keys().filter(|name| attribute_label(name).is_none()).map(String::as_str).collect()
    }

    /// The agent's hostname in the form of a Node name (RFC 1123).
    pub fn node_name(&self) -> String {
        node_name(&self.hostname, LABEL_LENGTH)
    }

    /// The same, ended with the last part of the agent's id, for when another agent has that name too.
    pub fn long_node_name(&self) -> String {
        // An id ends in -S and a number.
        let end = self.id.rsplit('-').next().unwrap_or_default().to_ascii_lowercase();
        let end: String = end.chars().skip(end.chars().count().saturating_sub(ID_LENGTH)).collect();
        format!("{}-{end}", node_name(&self.hostname, LABEL_LENGTH - 1 - end.len()))
    }
}

/// Longest value of a label, and longest name in its key. Nodes have no longer names either, although Kubernetes would
/// allow them: the kubelet sets the label `kubernetes.io/hostname` to its node's name, unshortened, and the API server
/// then refuses its Node (initialNode and updateDefaultLabels, pkg/kubelet/kubelet_node_status.go).
const LABEL_LENGTH: usize = 63;

/// Most characters of an agent's id in a Node name.
const ID_LENGTH: usize = 12;

/// A host's name as the name of a Node of at most `longest` characters.
fn node_name(hostname: &str, longest: usize) -> String {
    let lower = hostname.to_ascii_lowercase();
    let cleaned: String =
        lower.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(longest).collect();
    let labels: Vec<&str> =
        cleaned.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty()).collect();
    if labels.is_empty() { "agent".to_owned() } else { labels.join(".") }
}

/// Key of the label for an attribute. None if there is no valid one: a name that is too long is not shortened, because
/// pods select by it, and two names may differ at their ends only.
fn attribute_label(name: &str) -> Option<String> {
    let key = format!("{ATTRIBUTE_LABEL_PREFIX}{}", label_characters(name));
    let (_, own) = key.split_once('/')?;
    (own.len() <= LABEL_LENGTH && own.ends_with(|c: char| c.is_ascii_alphanumeric())).then_some(key)
}

fn ports<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Ports {
    let mut all = Ports::default();
    for resource in resources.into_iter().filter(|resource| resource.name == "ports") {
        all.extend(&Ports::new(resource.intervals()));
    }
    all
}

/// Bundles are built for the architecture that this binary runs on.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Converts any string to a label value: invalid characters become `_`, the ends are trimmed, at most 63 characters.
pub fn label_value(text: &str) -> String {
    label_characters(&text.chars().take(LABEL_LENGTH).collect::<String>())
}

/// The same in any length.
fn label_characters(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let cleaned: String = text.chars().map(allowed).collect();
    cleaned.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn text(attribute: &Attribute) -> Option<String> {
    match attribute.kind {
        ValueType::Text => attribute.text.as_ref().map(|text| text.value.clone()),
        ValueType::Scalar => attribute.scalar.map(|scalar| super::resources::decimal(to_thousandths(scalar.value))),
        // Ranges and sets cannot be expressed as one label value.
        ValueType::Ranges | ValueType::Set | ValueType::Unknown => None,
    }
}

/// Sums up processor and memory.
pub fn scalars(resources: &[Resource]) -> Amount {
    let of =
        |name: &str| resources.iter().filter(|each| each.name == name).map(|each| to_thousandths(each.amount())).sum();
    Amount { cpus: of("cpus"), mem: of("mem") }
}

/// Sums up disk, in thousandths of a megabyte.
fn disk(resources: &[Resource]) -> i64 {
    resources.iter().filter(|each| each.name == "disk").map(|each| to_thousandths(each.amount())).sum()
}

/// Takes an amount and single ports out of offered resources, resources reserved for us first. Returns `None`, and
/// takes nothing, if the offers do not cover it. The returned resources keep their allocation and reservations.
pub fn take(offers: &mut [HeldOffer], amount: Amount, ports: &[u16]) -> Option<Vec<Resource>> {
    let mut left: Vec<Vec<Resource>> = offers.iter().map(|offer| offer.resources.clone()).collect();
    let mut taken = Vec::new();
    for (name, mut need) in [("cpus", amount.cpus), ("mem", amount.mem)] {
        for reserved in [true, false] {
            for resource in
                left.iter_mut().flatten().filter(|each| each.name == name && each.reservations.is_empty() != reserved)
            {
                let part = need.min(to_thousandths(resource.amount()));
                if part <= 0 {
                    continue;
                }
                let mut piece = resource.clone();
                set_amount(&mut piece, part);
                set_amount(resource, to_thousandths(resource.amount()) - part);
                taken.push(piece);
                need -= part;
            }
        }
        if need > 0 {
            return None;
        }
    }
    for &port in ports {
        let from = left
            .iter_mut()
            .flatten()
            .find(|each| each.name == "ports" && Ports::new(each.intervals()).contains(port))?;
        let mut rest = Ports::new(from.intervals());
        rest.remove(port);
        let mut piece = from.clone();
        set_ports(&mut piece, &Ports::new([(port.into(), port.into())]));
        set_ports(from, &rest);
        let same = taken.iter_mut().find(|each| each.name == "ports" && each.reservations == piece.reservations);
        match same {
            Some(same) => {
                let mut both = Ports::new(same.intervals());
                both.extend(&Ports::new(piece.intervals()));
                set_ports(same, &both);
            }
            None => taken.push(piece),
        }
    }
    for (offer, resources) in offers.iter_mut().zip(left) {
        offer.resources = resources;
    }
    Some(taken)
}

fn set_amount(resource: &mut Resource, thousandths: i64) {
    resource.scalar = Resource::scalar("", from_thousandths(thousandths)).scalar;
}

fn set_ports(resource: &mut Resource, ports: &Ports) {
    resource.ranges =
        Resource::ranges("", ports.ranges().iter().map(|&(begin, end)| (begin.into(), end.into()))).ranges;
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesos::types::ReservationInfo;

    fn offer(resources: Vec<Resource>) -> HeldOffer {
        HeldOffer { id: "o".into(), resources, since: Time(0) }
    }

    fn reserved(mut resource: Resource) -> Resource {
        resource
            .reservations
            .push(ReservationInfo { role: Some("kubernetes".to_owned()), ..ReservationInfo::default() });
        resource
    }

    #[test]
    fn reserved_resources_are_taken_first_and_keep_their_reservation() {
        let mut offers = [offer(vec![
            Resource::scalar("cpus", 2.0).allocated_to("kubernetes"),
            reserved(Resource::scalar("cpus", 0.5).allocated_to("kubernetes")),
            Resource::scalar("mem", 100.0),
        ])];
        let taken = take(&mut offers, Amount::new(700, 10), &[]).unwrap();
        let cpus: Vec<(f64, bool)> = taken
            .iter()
            .filter(|each| each.name == "cpus")
            .map(|each| (each.amount(), each.reservations.is_empty()))
            .collect();
        assert_eq!(cpus, [(0.5, false), (0.2, true)]);
        assert_eq!(taken[0].allocation_role(), Some("kubernetes"));
        assert_eq!(scalars(&offers[0].resources), Amount::new(1800, 90));
    }

    #[test]
    fn what_is_not_covered_takes_nothing() {
        let before = offer(vec![
            Resource::scalar("cpus", 2.0),
            Resource::scalar("mem", 100.0),
            Resource::ranges("ports", [(31000, 31001)]),
        ]);
        for (amount, ports) in
            [(Amount::new(2001, 1), vec![]), (Amount::new(1, 101), vec![]), (Amount::new(1, 1), vec![31000, 80])]
        {
            let mut offers = [before.clone()];
            assert_eq!(take(&mut offers, amount, &ports), None);
            assert_eq!(offers[0], before);
        }
    }

    #[test]
    fn ports_of_one_task_come_as_one_resource() {
        let mut offers = [offer(vec![Resource::ranges("ports", [(31000, 31005)])])];
        let taken = take(&mut offers, Amount::default(), &[31000, 31004]).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].intervals().collect::<Vec<_>>(), [(31000, 31000), (31004, 31004)]);
        assert_eq!(offers[0].resources[0].intervals().collect::<Vec<_>>(), [(31001, 31003), (31005, 31005)]);
    }

    #[test]
    fn labels_carry_attributes_and_fault_domain() {
        let agent = Agent {
            hostname: "Agent_1.Example".into(),
            attributes: BTreeMap::from([("rack".into(), "r 1".into())]),
            domain: Some(("eu".into(), "eu-1".into())),
            ..Agent::default()
        };
        let name = agent.node_name();
        assert_eq!(name, "agent-1.example");
        let labels = agent.labels(&name);
        assert_eq!(labels["k8s.mesosphere.io/attribute-rack"], "r_1");
        assert_eq!(labels["topology.kubernetes.io/region"], "eu");
        assert_eq!(labels["topology.kubernetes.io/zone"], "eu-1");
        assert_eq!(labels["kubernetes.io/hostname"], name);
        assert!(agent.unlabelled().is_empty());
    }

    #[test]
    fn every_label_is_valid_whatever_the_agent_is_called() {
        let fits = "a".repeat(53);
        let names = [fits.clone(), format!("{fits}b"), "a".repeat(200), "ä!".to_owned(), "-x-".to_owned()];
        let agent = Agent {
            id: "8a1f-S12".into(),
            hostname: format!("{}.Example", "h".repeat(70)),
            attributes: names.iter().map(|name| (name.clone(), "v".repeat(100))).collect(),
            domain: Some(("r".repeat(100), "_".into())),
            ..Agent::default()
        };
        let (name, long) = (agent.node_name(), agent.long_node_name());
        assert_eq!(
            (name.as_str(), long.as_str()),
            ("h".repeat(63).as_str(), format!("{}-s12", "h".repeat(59)).as_str())
        );
        let labels = agent.labels(&long);
        let own: Vec<&str> = labels.keys().filter_map(|key| key.strip_prefix(ATTRIBUTE_LABEL_PREFIX)).collect();
        assert_eq!(own, [fits.as_str(), "x"]);
        assert_eq!(agent.unlabelled(), [names[2].as_str(), names[1].as_str(), names[3].as_str()]);
        let edge = |c: char| c.is_ascii_alphanumeric();
        for (key, value) in labels {
            let own = key.rsplit('/').next().unwrap_or_default();
            assert!(own.len() <= 63 && own.starts_with(edge) && own.ends_with(edge), "{key}");
            assert!(
                value.len() <= 63 && (value.is_empty() || value.starts_with(edge) && value.ends_with(edge)),
                "{value}"
            );
        }
    }

    #[test]
    fn a_name_that_is_cut_ends_as_names_may() {
        for (hostname, expected) in [("a".repeat(62) + "-b", "a".repeat(62)), ("a".repeat(62) + ".b", "a".repeat(62))] {
            assert_eq!(Agent { hostname, ..Agent::default() }.node_name(), expected);
        }
    }
}
