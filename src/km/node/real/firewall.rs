//! Firewall rules that stock binaries leave: what to remove, determined from the text of `iptables-save`.
//!
//! Chain names are compiled into kube-proxy and the CNI plugins, so names alone do not show the owner. A `KUBE-` chain
//! is removed only if no other node uses this network namespace. A `CNI-` chain is removed if a rule names our network,
//! or if its name derives from one of our containers. A plugin that was killed halfway leaves a chain without any rule.
use std::collections::BTreeSet;

use sha2::{Digest, Sha512};

/// Length of a chain's name in the CNI plugins.
const CHAIN: usize = 28;

/// Names of the chains that CNI's `bridge` and `portmap` create for a container (`FormatChainName` of
/// containernetworking/plugins).
pub fn chains_of(network: &str, container: &str) -> [String; 2] {
    let digest = Sha512::digest(format!("{network}{container}"));
    let digits = hex::encode(digest);
    ["CNI-", "CNI-DN-"].map(|prefix| format!("{prefix}{digits}").chars().take(CHAIN).collect())
}

/// The input for `iptables-restore --noflush` that removes our rules and chains; none if there are none. `owned`: names
/// of chains that certainly belong to this node.
pub fn removal(saved: &str, network: &str, proxy: bool, owned: &BTreeSet<String>) -> Option<String> {
    let mut script = String::new();
    let mut table = String::new();
    let mut lines: Vec<&str> = Vec::new();
    for line in saved.lines() {
        match line.chars().next() {
            Some('*') => {
                table = line.to_owned();
                lines.clear();
            }
            Some(':' | '-') => lines.push(line),
            _ if line == "COMMIT" => script.push_str(&table_removal(&table, &lines, network, proxy, owned)),
            _ => {}
        }
    }
    (!script.is_empty()).then_some(script)
}

fn table_removal(table: &str, lines: &[&str], network: &str, proxy: bool, owned: &BTreeSet<String>) -> String {
    let chains = lines.iter().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    let rules: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("-A ")).collect();
    let named = format!("name: \\\"{network}\\\"");
    let mut doomed: BTreeSet<&str> = BTreeSet::new();
    if proxy {
        doomed.extend(chains.clone().filter(|chain| chain.starts_with("KUBE-")));
    }
    let ours: Vec<&str> = rules.iter().copied().filter(|rule| rule.contains(&named)).collect();
    let named_by_ours = ours.iter().flat_map(|rule| [target(rule), chain(rule)]).flatten();
    doomed.extend(named_by_ours.filter(|chain| chain.starts_with("CNI-") && !chain.starts_with("CNI-HOSTPORT-")));
    doomed.extend(chains.clone().filter(|chain| owned.contains(*chain)));
    // The plugin's common chains, if no other network has a mapping in them.
    let others = rules.iter().any(|rule| chain(rule) == Some("CNI-HOSTPORT-DNAT") && !rule.contains(&named));
    let ours_is_there = proxy || !ours.is_empty();
    if !others && ours_is_there {
        doomed.extend(chains.filter(|chain| chain.starts_with("CNI-HOSTPORT-")));
    }
    let mut script = String::new();
    for rule in &rules {
        let kept_chain = chain(rule).is_some_and(|chain| !doomed.contains(chain));
        let to_doomed = target(rule).is_some_and(|chain| doomed.contains(chain));
        if kept_chain && (to_doomed || rule.contains(&named)) {
            script.push_str(&rule.replacen("-A ", "-D ", 1));
            script.push('\n');
        }
    }
    for verb in ["-F", "-X"] {
        for chain in &doomed {
            script.push_str(&format!("{verb} {chain}\n"));
        }
    }
    if script.is_empty() { script } else { format!("{table}\n{script}COMMIT\n") }
}

fn chain(rule: &str) -> Option<&str> {
    rule.split(' ').nth(1)
}

fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ');
    words.by_ref().find(|word| *word == "-j" || *word == "-g")?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-DN-aaa - [0:0]
:CNI-aaa - [0:0]
:CNI-other - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -s 172.30.0.5/32 -m comment --comment "name: \"kmctl-demo\" id: \"c1\"" -j CNI-aaa
-A POSTROUTING -s 10.1.0.5/32 -m comment --comment "name: \"other\" id: \"c2\"" -j CNI-other
-A POSTROUTING -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"kmctl-demo\" id: \"c1\"" -m multiport --dports 31000 -j CNI-DN-aaa
-A CNI-DN-aaa -p tcp -m tcp --dport 31000 -j DNAT --to-destination 172.30.0.5:80
-A CNI-aaa -d 172.30.0.0/16 -j ACCEPT
-A MINE -j ACCEPT
COMMIT
*filter
:INPUT ACCEPT [0:0]
:MINE - [0:0]
-A INPUT -j MINE
COMMIT
"#;

    #[test]
    fn ours_goes_others_stays() {
        let script = removal(SAVED, "kmctl-demo", true, &BTreeSet::new()).unwrap();
        for expected in [
            "-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n",
            "-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n",
            "-D POSTROUTING -s 172.30.0.5/32 -m comment --comment \"name: \\\"kmctl-demo\\\" id: \\\"c1\\\"\" -j CNI-aaa\n",
            "-F CNI-DN-aaa\n",
            "-X KUBE-SERVICES\n",
        ] {
            assert!(script.contains(expected), "{expected} in\n{script}");
        }
        for kept in ["MINE", "CNI-other", "10.1.0.5", "*filter"] {
            assert!(!script.contains(kept), "{kept} in\n{script}");
        }
    }

    #[test]
    fn while_another_node_uses_the_namespace_only_our_network_goes() {
        let script = removal(SAVED, "kmctl-demo", false, &BTreeSet::new()).unwrap();
        assert!(!script.contains("KUBE-"), "{script}");
        assert!(script.contains("-X CNI-aaa"), "{script}");
    }

    #[test]
    fn the_common_chains_stay_while_another_network_maps_ports() {
        let saved = SAVED.replace(
            "-A CNI-DN-aaa -p",
            "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"other\\\" id: \\\"c9\\\"\" -j CNI-DN-bbb\n-A CNI-DN-aaa -p",
        );
        let script = removal(&saved, "kmctl-demo", true, &BTreeSet::new()).unwrap();
        assert!(!script.contains("-X CNI-HOSTPORT-DNAT"), "{script}");
        assert!(
            script.contains("-D CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: \\\"kmctl-demo"),
            "{script}"
        );
    }

    #[test]
    fn nothing_is_done_where_nothing_is_left() {
        assert_eq!(removal("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", "kmctl-demo", true, &BTreeSet::new()), None);
    }

    #[test]
    fn what_a_plugin_left_halfway_goes_with_its_chain() {
        // The rule in POSTROUTING is already removed, those in the plugin's chain are not.
        let half = "*nat\n:POSTROUTING ACCEPT [0:0]\n:CNI-aaa - [0:0]\n\
            -A CNI-aaa -d 172.30.0.0/16 -m comment --comment \"name: \\\"kmctl-demo\\\" id: \\\"c1\\\"\" -j ACCEPT\nCOMMIT\n";
        assert_eq!(
            removal(half, "kmctl-demo", false, &BTreeSet::new()).as_deref(),
            Some("*nat\n-F CNI-aaa\n-X CNI-aaa\nCOMMIT\n")
        );
        // Only the empty chain is left, with nothing in it that identifies its owner.
        let [chain, _] = chains_of("kmctl-demo", "c1");
        let empty = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n:{chain} - [0:0]\n:CNI-other - [0:0]\nCOMMIT\n");
        assert_eq!(removal(&empty, "kmctl-demo", true, &BTreeSet::new()), None);
        let owned = BTreeSet::from(chains_of("kmctl-demo", "c1"));
        assert_eq!(
            removal(&empty, "kmctl-demo", false, &owned),
            Some(format!("*nat\n-F {chain}\n-X {chain}\nCOMMIT\n"))
        );
    }

    #[test]
    fn chains_have_the_names_that_the_plugins_give_them() {
        for chain in chains_of("kmctl-demo", "c1") {
            assert_eq!(chain.len(), CHAIN, "{chain}");
        }
        assert!(chains_of("kmctl-demo", "c1")[1].starts_with("CNI-DN-"));
    }
}
