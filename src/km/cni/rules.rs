//! Firewall rules for granted ports, as scripts for `iptables-restore --noflush`, computed from the text of
//! `iptables-save`. Pure.
//!
//! All rules lie in chains of our own, named after the cluster, and each rule of a pod carries a tag in its comment.
//! A script removes every rule with the tag and then adds what should be there, in one transaction per table, so that
//! it may run any number of times. With the last pod the chains go, too.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use kmctl_core::protocol::launch::PortMapping;

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
    /// The machine's end of its link.
    pub link: &'a str,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Length of the prefix that all pods of the node share.
    pub prefix: u8,
    /// What was granted.
    pub ports: &'a [PortMapping],
}

impl Mapped<'_> {
    /// The network of all pods of the node.
    fn pods(&self) -> String {
        format!("{}/{}", network(self.address, self.prefix), self.prefix)
    }
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

    /// kube-proxy puts its rules first, too, once; where it came after us, each packet of a pod would go through them.
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

/// Where a stock chain leads into one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    table: &'static str,
    stock: &'static str,
    /// As `iptables-save` writes it, without its verb.
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

    /// Whether a chain is one of these.
    pub fn owns(&self, chain: &str) -> bool {
        chain.starts_with(&self.prefix)
    }

    /// Where stock chains lead into ours. `pods` is the network of all pods of the node.
    fn hooks(&self, pods: &str) -> [Hook; 5] {
        // To any of the machine's own addresses: from outside and from pods, and from the machine itself.
        let local = "-m addrtype --dst-type LOCAL ";
        // What others send to the machine meets one rule of ours, not one for each pod.
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

    /// What the chain for forwarding begins with, whichever pods there are: nearly every packet ends at the first or at the
    /// second rule, however many pods follow.
    fn beginning(&self, pods: &str) -> [String; 2] {
        let chain = self.chain("FWD");
        [
            format!("-A {chain} ! -s {pods} ! -d {pods} -j RETURN"),
            format!("-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ]
    }

    /// Rules of the chain for forwarding that are no pod's.
    fn begins_with<'s>(&self, saved: &Saved<'s>) -> Vec<&'s str> {
        let chain = format!("-A {} ", self.chain("FWD"));
        saved.rules("filter").filter(|rule| rule.starts_with(&chain) && !rule.contains(TAG)).collect()
    }

    /// The script that maps exactly these ports to the pod, whatever was mapped to it before, and whomever they led to.
    pub fn add(&self, saved: &str, mapped: &Mapped<'_>) -> String {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        let granted: BTreeSet<(String, u16)> =
            mapped.ports.iter().map(|port| (port.protocol.to_ascii_lowercase(), port.host_port)).collect();
        // The port of a pod that has ended is granted anew at once, while its sandbox may stay for a moment.
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
                // Declaring a chain that is there would empty it.
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
                // The pods' network may have been another one.
                let (begin, end) = (format!("-A {stock} "), format!("-j {chain}"));
                let other = |rule: &&str| rule.starts_with(&begin) && rule.ends_with(&end);
                lines.extend(saved.rules(table).filter(other).map(deletion));
                // First in FORWARD and INPUT, where others may have refused before we are asked, and in POSTROUTING, where
                // the stock plugin accepts as it is whatever a pod sends to its own network.
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
        // Comments come last: they cost more to evaluate than what keeps most packets from getting there.
        let comment = format!("-m comment --comment \"{pod} {tag}\"");
        let forward = self.chain("FWD");
        let mut rules = vec![
            // Where something else (Docker) forwards nothing by default, pods would be cut off. What belongs to no
            // connection is left to kube-proxy, which drops it: its address would not be rewritten.
            (
                "filter",
                forward.clone(),
                format!("-s {address}/32 -i {link} -m conntrack ! --ctstate INVALID {comment} -j ACCEPT"),
            ),
            ("filter", forward, format!("-d {address}/32 -o {link} -m conntrack --ctstate DNAT {comment} -j ACCEPT")),
            // `route_localnet`, without which 127.0.0.1 cannot be mapped, also lets a pod send to what listens there.
            (
                "filter",
                self.chain("IN"),
                format!(
                    "-s {address}/32 -d 127.0.0.0/8 -i {link} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT \
                     {comment} -j DROP"
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
            // A pod that calls itself by its host port would get a packet from its own address; a process of the machine
            // would send from 127.0.0.1 to a link. The port called first tells these from what came by a Service, where
            // kube-proxy sees to it.
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

    /// What is missing of the pod's rules; none when all is there.
    pub fn check(&self, saved: &str, mapped: &Mapped<'_>) -> Option<String> {
        let saved = Saved::parse(saved);
        let tag = tag(mapped.container);
        let pods = mapped.pods();
        if let Some(Hook { stock, chain, .. }) =
            self.hooks(&pods).into_iter().find(|hook| !saved.has_rule(hook.table, &hook.rule()))
        {
            return Some(format!("{stock} does not lead to {chain}"));
        }
        if self.begins_with(&saved) != self.beginning(&pods) {
            return Some(format!("{} does not begin as it should", self.chain("FWD")));
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

/// Protocol and host port of a rule for one.
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
    Sha256::digest(text.as_bytes()).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
