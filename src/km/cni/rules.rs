//! Firewall rules for granted ports: scripts for `iptables-restore --noflush`, computed from the text of
//! `iptables-save`. Pure.
//!
//! All rules are in kmctl's own chains, which are named after the cluster. Each rule of a pod has a tag in its comment.
//! A script removes every rule with the tag and then adds the wanted rules, in one transaction per table, so it can be
//! applied repeatedly. The chains are removed with the last pod.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use kmctl_core::protocol::launch::PortMapping;

/// A cluster's chains on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chains {
    /// First part of every chain name. A chain name has at most 28 bytes.
    prefix: String,
}

/// The mapping of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped<'a> {
    /// The container's id.
    pub container: &'a str,
    /// `namespace/name`, shown in the rules' comments.
    pub pod: &'a str,
    /// The host end of the pod's link.
    pub link: &'a str,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Prefix length of the network that all pods of the node share.
    pub prefix: u8,
    /// The granted ports.
    pub ports: &'a [PortMapping],
}

impl Mapped<'_> {
    /// The network of all pods of the node.
    fn pods(&self) -> String {
        format!("{}/{}", network(self.address, self.prefix), self.prefix)
    }
}

/// The parsed text of `iptables-save`.
struct Saved<'a> {
    /// Table and line, for `:chain` and `-A chain` lines.
    lines: Vec<(&'a str, &'a str)>,
}

const TABLES: [&str; 2] = ["filter", "nat"];

/// Prefix of every pod's tag.
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

    /// kube-proxy also inserts its rules first, once. If they precede ours, each packet of a pod passes through them.
    fn is_behind_kube_proxy(&self, hook: &Hook) -> bool {
        let begin = format!("-A {} ", hook.stock);
        let mut before =
            self.rules(hook.table).filter(|rule| rule.starts_with(&begin)).take_while(|rule| *rule != hook.rule());
        hook.stock == "FORWARD" && before.any(|rule| rule.contains("-j KUBE-"))
    }

    fn has_rule(&self, table: &str, rule: &str) -> bool {
        self.rules(table).any(|there| there == rule)
    }
}

/// A jump from a stock chain to one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    table: &'static str,
    stock: &'static str,
    /// The rule as `iptables-save` writes it, without the verb and the stock chain.
    rest: String,
    /// Our chain.
    chain: String,
}

impl Hook {
    fn rule(&self) -> String {
        format!("-A {} {}", self.stock, self.rest)
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

    /// Whether the chain belongs to this cluster.
    pub fn owns(&self, chain: &str) -> bool {
        chain.starts_with(&self.prefix)
    }

    /// The jumps from stock chains to ours. `pods` is the network of all pods of the node.
    fn hooks(&self, pods: &str) -> [Hook; 5] {
        // Matches packets to any of the machine's own addresses: from outside, from pods, and from the machine itself.
        let local = "-m addrtype --dst-type LOCAL ";
        // Packets from other sources are matched against one rule of ours, not one per pod.
        let from_pods = format!("-s {pods} ");
        [
            ("nat", "PREROUTING", local, "DNAT"),
            ("nat", "OUTPUT", local, "DNAT"),
            ("nat", "POSTROUTING", "", "MASQ"),
            ("filter", "FORWARD", "", "FWD"),
            ("filter", "INPUT", from_pods.as_str(), "IN"),
        ]
        .map(|(table, stock, condition, part)| {
            let chain = self.chain(part);
            Hook { table, stock, rest: format!("{condition}-j {chain}"), chain }
        })
    }

    /// The first rules of the forwarding chain, independent of the pods: nearly every packet is decided by the first or
    /// second rule, however many pods follow.
    fn beginning(&self, pods: &str) -> [String; 2] {
        let chain = self.chain("FWD");
        [
            format!("-A {chain} ! -s {pods} ! -d {pods} -j RETURN"),
            format!("-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ]
    }

    /// Rules of the forwarding chain that belong to no pod.
    fn begins_with<'s>(&self, saved: &Saved<'s>) -> Vec<&'s str> {
        let chain = format!("-A {} ", self.chain("FWD"));
        saved.rules("filter").filter(|rule| rule.starts_with(&chain) && !rule.contains(TAG)).collect()
    }

    /// The script that maps exactly these ports to the pod. It replaces the pod's previous mapping, and any mapping of
    /// these ports to other pods.
    pub fn add(&self, saved: &str, mapped: &Mapped<'_>) -> String {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        let granted: BTreeSet<(String, u16)> =
            mapped.ports.iter().map(|port| (port.protocol.to_ascii_lowercase(), port.host_port)).collect();
        // The port of a pod that has ended can be granted again at once, while its sandbox may exist for a moment
        // longer.
        let outdated = |rule: &&str| {
            let port = || self.chain_of(rule).and(host_port(rule));
            has_tag(rule, &tag) || port().is_some_and(|port| granted.contains(&port))
        };
        let pods = mapped.pods();
        let mut script = String::new();
        for table in TABLES {
            let mut lines = String::new();
            let hooks: Vec<Hook> = self.hooks(&pods).into_iter().filter(|hook| hook.table == table).collect();
            for Hook { chain, .. } in &hooks {
                // Declaring an existing chain would empty it.
                if !saved.has_chain(table, chain) && !lines.contains(&format!(":{chain} ")) {
                    lines.push_str(&format!(":{chain} - [0:0]\n"));
                }
            }
            for rule in saved.rules(table).filter(outdated) {
                lines.push_str(&deletion(rule));
            }
            if table == "filter" {
                let (there, wanted) = (self.begins_with(&saved), self.beginning(&pods));
                if there != wanted {
                    lines.extend(there.into_iter().map(deletion));
                    lines.extend(wanted.iter().rev().map(|rule| format!("{}\n", rule.replacen("-A ", "-I ", 1))));
                }
            }
            for hook in hooks {
                let Hook { stock, rest, chain, .. } = &hook;
                if saved.has_rule(table, &hook.rule()) && !saved.is_behind_kube_proxy(&hook) {
                    continue;
                }
                // The pods' network may have changed.
                let (begin, end) = (format!("-A {stock} "), format!("-j {chain}"));
                let other = |rule: &&str| rule.starts_with(&begin) && rule.ends_with(&end);
                lines.extend(saved.rules(table).filter(other).map(deletion));
                // First in FORWARD and INPUT, where earlier rules may drop the packet. First in POSTROUTING, where the
                // stock plugin accepts without rewriting whatever a pod sends to its own network.
                let verb = if table == "filter" || *stock == "POSTROUTING" { "-I" } else { "-A" };
                lines.push_str(&format!("{verb} {stock} {rest}\n"));
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
        let Mapped { container: _, pod, link, address, prefix, ports } = mapped;
        // The comment match is last because it costs more than the matches that reject most packets.
        let comment = format!("-m comment --comment \"{pod} {tag}\"");
        let forward = self.chain("FWD");
        let mut rules = vec![
            // If something else (Docker) drops forwarded packets by default, pods would have no network without these
            // rules. Packets that belong to no connection are left to kube-proxy, which drops them: their address would
            // not be rewritten.
            (
                "filter",
                forward.clone(),
                format!("-s {address}/32 -i {link} -m conntrack ! --ctstate INVALID {comment} -j ACCEPT"),
            ),
            ("filter", forward, format!("-d {address}/32 -o {link} -m conntrack --ctstate DNAT {comment} -j ACCEPT")),
            // `route_localnet` is required to map 127.0.0.1, but also lets a pod send to processes that listen there.
            (
                "filter",
                self.chain("IN"),
                format!(
                    "-s {address}/32 -d 127.0.0.0/8 -i {link} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT \
                     {comment} -j DROP"
                ),
            ),
        ];
        // km node's DNS, also on hosts that drop input by default.
        let gateway = Ipv4Addr::from(u32::from(network(*address, *prefix)).saturating_add(1));
        for protocol in ["udp", "tcp"] {
            rules.push((
                "filter",
                self.chain("IN"),
                format!(
                    "-s {address}/32 -d {gateway}/32 -i {link} -p {protocol} -m {protocol} --dport 53 {comment} \
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
                    "-p {protocol} -m {protocol} --dport {host_port} {comment} \
                     -j DNAT --to-destination {address}:{container_port}"
                ),
            ));
            // A pod that calls itself by its host port would get a packet from its own address, and a process of the
            // machine would send from 127.0.0.1 to a link. The original destination port distinguishes these packets
            // from those of a Service, which kube-proxy masquerades.
            for source in [format!("{address}/32"), "127.0.0.0/8".to_owned()] {
                rules.push((
                    "nat",
                    self.chain("MASQ"),
                    format!(
                        "-s {source} -d {address}/32 -p {protocol} -m {protocol} --dport {container_port} \
                         -m conntrack --ctstate DNAT --ctorigdstport {host_port} {comment} -j MASQUERADE"
                    ),
                ));
            }
        }
        rules
    }

    /// What the pod's rules lack; none if they are complete.
    pub fn check(&self, saved: &str, mapped: &Mapped<'_>) -> Option<String> {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        let pods = mapped.pods();
        if let Some(Hook { stock, chain, .. }) =
            self.hooks(&pods).into_iter().find(|hook| !saved.has_rule(hook.table, &hook.rule()))
        {
            return Some(format!("{stock} has no jump to {chain}"));
        }
        if self.begins_with(&saved) != self.beginning(&pods) {
            return Some(format!("{} has unexpected first rules", self.chain("FWD")));
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

    /// The script that unmaps a container's ports; none if there is nothing to remove.
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

    /// The script that removes everything of the cluster; none if there is nothing to remove.
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

    /// The rule's chain, if it is one of ours.
    fn chain_of<'r>(&self, rule: &'r str) -> Option<&'r str> {
        rule.split(' ').nth(1).filter(|chain| chain.starts_with(&self.prefix))
    }
}

fn deletion(rule: &str) -> String {
    format!("{}\n", rule.replacen("-A ", "-D ", 1))
}

fn has_tag(rule: &str, tag: &str) -> bool {
    // The tag is the end of the comment.
    rule.contains(&format!("{tag}\""))
}

/// Protocol and host port of a port's rule.
fn host_port(rule: &str) -> Option<(String, u16)> {
    let after = |key: &str| rule.split_once(key)?.1.split(' ').next();
    let port = match rule.contains(" -j DNAT ") {
        true => after("--dport ")?,
        false => after("--ctorigdstport ")?,
    };
    Some((after("-p ")?.to_owned(), port.parse().ok()?))
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or_default();
    Ipv4Addr::from(u32::from(address) & mask)
}

fn tag(container: &str) -> String {
    format!("{TAG}{}", hash(container, 6))
}

fn hash(text: &str, bytes: usize) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..bytes])
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
