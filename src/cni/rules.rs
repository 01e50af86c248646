//! Firewall rules for granted ports, as scripts for `iptables-restore --noflush`, computed from the text of
//! `iptables-save`. Pure.
//!
//! All rules lie in chains of our own, named after the cluster, and each rule of a pod carries a tag in its comment.
//! A script removes every rule with the tag and then adds what should be there, in one transaction per table, so that
//! it may run any number of times. With the last pod the chains go, too.
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::node::launch::PortMapping;

/// A cluster's chains on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chains {
    /// First part of all names; a chain's name has at most 28 bytes.
    prefix: String,
}

/// What is to be mapped to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped<'a> {
    /// The container's id.
    pub container: &'a str,
    /// `namespace/name`, for readers of the rules.
    pub pod: &'a str,
    /// The bridge that it is on.
    pub bridge: &'a str,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Length of the prefix that all pods on the bridge share.
    pub prefix: u8,
    /// What was granted.
    pub ports: &'a [PortMapping],
}

/// Text of `iptables-save`, taken apart.
struct Saved<'a> {
    /// Table and line, for `:chain` and `-A chain` lines.
    lines: Vec<(&'a str, &'a str)>,
}

const TABLES: [&str; 2] = ["filter", "nat"];

/// Begins the tag of every pod.
const TAG: &str = "km-pod-";

impl<'a> Saved<'a> {
    fn parse(text: &'a str) -> Self {
        let mut table = "";
        let mut lines = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if line.starts_with(':') || line.starts_with("-A ") {
                lines.push((table, line));
            }
        }
        Saved { lines }
    }

    fn rules(&self, table: &str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter(move |(of, line)| *of == table && line.starts_with("-A ")).map(|(_, line)| *line)
    }

    fn chains(&self, table: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.lines.iter().filter(move |(of, _)| *of == table);
        lines.filter_map(|(_, line)| line.strip_prefix(':')?.split(' ').next())
    }

    fn has_chain(&self, table: &str, chain: &str) -> bool {
        self.chains(table).any(|name| name == chain)
    }

    /// Whether `chain` leads to `target`.
    fn leads(&self, table: &str, chain: &str, target: &str) -> bool {
        let (begin, end) = (format!("-A {chain} "), format!("-j {target}"));
        self.rules(table).any(|rule| rule.starts_with(&begin) && rule.ends_with(&end))
    }
}

impl Chains {
    /// The chains of `cluster`.
    pub fn new(cluster: &str) -> Self {
        Chains { prefix: format!("KM-{}-", hash(cluster, 4)) }
    }

    fn chain(&self, part: &str) -> String {
        format!("{}{part}", self.prefix)
    }

    /// Where stock chains lead into ours: table, stock chain, match, our chain.
    fn hooks(&self) -> [(&'static str, &'static str, &'static str, String); 5] {
        // To any of the machine's own addresses: from outside and from pods, and from the machine itself.
        let local = "-m addrtype --dst-type LOCAL ";
        [
            ("nat", "PREROUTING", local, self.chain("DNAT")),
            ("nat", "OUTPUT", local, self.chain("DNAT")),
            ("nat", "POSTROUTING", "", self.chain("MASQ")),
            ("filter", "FORWARD", "", self.chain("FWD")),
            ("filter", "INPUT", "", self.chain("IN")),
        ]
    }

    /// The script that maps exactly these ports to the pod, whatever was mapped to it before.
    pub fn add(&self, saved: &str, mapped: &Mapped<'_>) -> String {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        let mut script = String::new();
        for table in TABLES {
            let mut lines = String::new();
            let hooks = self.hooks().into_iter().filter(|(of, ..)| *of == table);
            for (_, _, _, chain) in hooks.clone() {
                // Declaring a chain that is there would empty it.
                if !saved.has_chain(table, &chain) {
                    lines.push_str(&format!(":{chain} - [0:0]\n"));
                }
            }
            for rule in saved.rules(table).filter(|rule| has_tag(rule, &tag)) {
                lines.push_str(&deletion(rule));
            }
            for (_, stock, condition, chain) in hooks {
                if !saved.leads(table, stock, &chain) {
                    // First in FORWARD and INPUT, where others may have refused before we are asked, and in POSTROUTING,
                    // where the bridge plugin accepts as it is whatever a pod sends to its own network.
                    let verb = if table == "filter" || stock == "POSTROUTING" { "-I" } else { "-A" };
                    lines.push_str(&format!("{verb} {stock} {condition}-j {chain}\n"));
                }
            }
            for rule in self.rules(mapped, &tag).into_iter().filter(|rule| rule.0 == table) {
                lines.push_str(&format!("-A {} {}\n", rule.1, rule.2));
            }
            script.push_str(&format!("*{table}\n{lines}COMMIT\n"));
        }
        script
    }

    /// The pod's rules: table, chain, rest.
    fn rules(&self, mapped: &Mapped<'_>, tag: &str) -> Vec<(&'static str, String, String)> {
        let Mapped { container: _, pod, bridge, address, prefix, ports } = mapped;
        let comment = format!("-m comment --comment \"{pod} {tag}\"");
        let forward = self.chain("FWD");
        let mut rules = vec![
            // Where something else (Docker) forwards nothing by default, pods would be cut off.
            ("filter", forward.clone(), format!("-s {address}/32 -i {bridge} {comment} -j ACCEPT")),
            (
                "filter",
                forward,
                format!(
                    "-d {address}/32 -o {bridge} {comment} \
                     -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
                ),
            ),
            // `route_localnet`, without which 127.0.0.1 cannot be mapped, also lets a pod send to what listens there.
            (
                "filter",
                self.chain("IN"),
                format!(
                    "-s {address}/32 -d 127.0.0.0/8 -i {bridge} {comment} \
                     -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
                ),
            ),
        ];
        // km node's DNS, also where the host takes nothing by default.
        let gateway = Ipv4Addr::from(u32::from(network(*address, *prefix)).saturating_add(1));
        for protocol in ["udp", "tcp"] {
            rules.push((
                "filter",
                self.chain("IN"),
                format!(
                    "-s {address}/32 -d {gateway}/32 -i {bridge} -p {protocol} {comment} -m {protocol} --dport 53 \
                     -j ACCEPT"
                ),
            ));
        }
        for PortMapping { container_port, host_port, protocol } in *ports {
            let protocol = protocol.to_ascii_lowercase();
            rules.push((
                "nat",
                self.chain("DNAT"),
                format!(
                    "-p {protocol} {comment} -m {protocol} --dport {host_port} \
                     -j DNAT --to-destination {address}:{container_port}"
                ),
            ));
            // A pod that calls itself or a neighbour by a host port would get the answer past the machine, from
            // another address than it called; a process of the machine would send from 127.0.0.1 to a bridge. The
            // port called first tells these from what came by a Service, where the caller's address is kept.
            for source in [format!("{}/{prefix}", network(*address, *prefix)), "127.0.0.0/8".to_owned()] {
                rules.push((
                    "nat",
                    self.chain("MASQ"),
                    format!(
                        "-s {source} -d {address}/32 -p {protocol} {comment} -m {protocol} --dport {container_port} \
                         -m conntrack --ctstate DNAT --ctorigdstport {host_port} -j MASQUERADE"
                    ),
                ));
            }
        }
        rules
    }

    /// What is missing of the pod's rules; none when all is there.
    pub fn check(&self, saved: &str, mapped: &Mapped<'_>) -> Option<String> {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        for (table, stock, _, chain) in self.hooks() {
            if !saved.leads(table, stock, &chain) {
                return Some(format!("{stock} does not lead to {chain}"));
            }
        }
        let wanted = self.rules(mapped, &tag).len();
        let there = TABLES.iter().flat_map(|table| saved.rules(table)).filter(|rule| has_tag(rule, &tag)).count();
        if there != wanted {
            return Some(format!("{there} rules instead of {wanted}"));
        }
        mapped.ports.iter().find_map(|PortMapping { container_port, host_port, protocol }| {
            let (from, to) = (
                format!("-m {} --dport {host_port} ", protocol.to_ascii_lowercase()),
                format!("--to-destination {}:{container_port}", mapped.address),
            );
            let leads = |rule: &str| has_tag(rule, &tag) && rule.contains(&from) && rule.ends_with(&to);
            (!saved.rules("nat").any(leads)).then(|| format!("host port {host_port}/{protocol} is not mapped"))
        })
    }

    /// The script that unmaps a container's ports; none when there is nothing to do.
    pub fn delete(&self, saved: &str, container: &str) -> Option<String> {
        let tag = tag(container);
        let parsed = Saved::parse(saved);
        let mine = |rule: &str| self.chain_of(rule).is_some() && rule.contains(TAG);
        let last = !TABLES.iter().flat_map(|table| parsed.rules(table)).any(|rule| mine(rule) && !has_tag(rule, &tag));
        if last {
            return self.purge(saved);
        }
        let mut script = String::new();
        for table in TABLES {
            let lines: String = parsed.rules(table).filter(|rule| has_tag(rule, &tag)).map(deletion).collect();
            if !lines.is_empty() {
                script.push_str(&format!("*{table}\n{lines}COMMIT\n"));
            }
        }
        (!script.is_empty()).then_some(script)
    }

    /// The script that removes everything of the cluster; none when there is nothing.
    pub fn purge(&self, saved: &str) -> Option<String> {
        let saved = Saved::parse(saved);
        let mut script = String::new();
        for table in TABLES {
            let ours: Vec<&str> = saved.chains(table).filter(|chain| chain.starts_with(&self.prefix)).collect();
            let mut lines = String::new();
            for rule in saved.rules(table).filter(|rule| self.chain_of(rule).is_none()) {
                if ours.iter().any(|chain| rule.ends_with(&format!("-j {chain}"))) {
                    lines.push_str(&deletion(rule));
                }
            }
            for verb in ["-F", "-X"] {
                lines.extend(ours.iter().map(|chain| format!("{verb} {chain}\n")));
            }
            if !lines.is_empty() {
                script.push_str(&format!("*{table}\n{lines}COMMIT\n"));
            }
        }
        (!script.is_empty()).then_some(script)
    }

    /// The chain that a rule stands in, if it is one of ours.
    fn chain_of<'r>(&self, rule: &'r str) -> Option<&'r str> {
        rule.split(' ').nth(1).filter(|chain| chain.starts_with(&self.prefix))
    }
}

fn deletion(rule: &str) -> String {
    format!("{}\n", rule.replacen("-A ", "-D ", 1))
}

fn has_tag(rule: &str, tag: &str) -> bool {
    // The tag ends the comment.
    rule.contains(&format!("{tag}\""))
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or_default();
    Ipv4Addr::from(u32::from(address) & mask)
}

fn tag(container: &str) -> String {
    format!("{TAG}{}", hash(container, 6))
}

fn hash(text: &str, bytes: usize) -> String {
    Sha256::digest(text.as_bytes()).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
