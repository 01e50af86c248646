//! nftables tables that stock binaries leave: what to remove, determined from the output of `nft`. Pure.
//!
//! Table names are compiled in, as chain names are in [`firewall`](super::firewall). kube-proxy's tables are removed
//! only if no other node uses this network namespace. The plugins' rules are removed if they name our network or one of
//! our containers, and their tables with the last rule.
use std::collections::BTreeSet;

use serde_json::Value;

/// kube-proxy's tables.
const PROXY: [&str; 2] = ["ip kube-proxy", "ip6 kube-proxy"];

/// The tables of the plugins `portmap` and `ptp`.
pub const PLUGINS: [&str; 3] = ["ip cni_hostport", "ip6 cni_hostport", "inet cni_plugins_masquerade"];

/// Whether this one of [`PLUGINS`] exists, from the output of `nft list tables`.
pub fn is_there(tables: &str, table: &str) -> bool {
    tables.lines().any(|line| line.strip_prefix("table ") == Some(table))
}

/// The input for `nft -f -` that removes kube-proxy's tables; none if there are none.
pub fn proxy_removal(tables: &str) -> Option<String> {
    let lines =
        PROXY.into_iter().filter(|table| is_there(tables, table)).map(|table| format!("delete table {table}\n"));
    Some(lines.collect::<String>()).filter(|script| !script.is_empty())
}

/// The input that cleans up one of [`PLUGINS`], from the output of `nft --json list table`. `alone`: no other node uses
/// this network namespace.
pub fn plugin_removal(
    table: &str,
    listed: &str,
    network: &str,
    containers: &BTreeSet<String>,
    alone: bool,
) -> Option<String> {
    let listed: Value = serde_json::from_str(listed).ok()?;
    // A rule that belongs to no particular container has no comment.
    let rules: Vec<(&str, &str, u64)> = listed["nftables"]
        .as_array()?
        .iter()
        .filter_map(|object| {
            let rule = &object["rule"];
            Some((rule["comment"].as_str()?, rule["chain"].as_str()?, rule["handle"].as_u64()?))
        })
        .collect();
    let named = format!(", net: {network}, ");
    let (ours, others): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|(comment, ..)| containers.contains(*comment) || comment.contains(&named));
    if others.is_empty() && (alone || !ours.is_empty()) {
        return Some(format!("delete table {table}\n"));
    }
    let lines = ours.iter().map(|(_, chain, handle)| format!("delete rule {table} {chain} handle {handle}\n"));
    Some(lines.collect::<String>()).filter(|script| !script.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLES: &str = "table ip nat\ntable ip kube-proxy\ntable ip6 kube-proxy\ntable ip cni_hostport\n";

    fn listed(rules: &[(&str, &str)]) -> String {
        let table = json!({ "table": { "family": "ip", "name": "cni_hostport", "handle": 1 } });
        let common = json!({ "rule": { "chain": "prerouting", "handle": 7, "expr": [] } });
        let rules = rules.iter().enumerate().map(|(index, (chain, comment))| {
            json!({ "rule": { "chain": chain, "handle": 10 + index, "comment": comment, "expr": [] } })
        });
        let all: Vec<Value> = [table, common].into_iter().chain(rules).collect();
        json!({ "nftables": all }).to_string()
    }

    #[test]
    fn kube_proxys_tables_go_and_others_stay() {
        let script = proxy_removal(TABLES).unwrap();
        assert_eq!(script, "delete table ip kube-proxy\ndelete table ip6 kube-proxy\n");
        assert_eq!(proxy_removal("table ip nat\ntable ip kube-proxy-mine\n"), None);
        assert!(is_there(TABLES, PLUGINS[0]) && !is_there(TABLES, PLUGINS[2]));
    }

    #[test]
    fn of_the_plugins_tables_only_our_containers_rules_go_while_others_have_some() {
        let ours = BTreeSet::from(["c1".to_owned()]);
        let mixed = listed(&[("hostports", "c1"), ("hostports", "c2"), ("masquerading", "c1")]);
        let script = plugin_removal("ip cni_hostport", &mixed, "kmctl-demo", &ours, true).unwrap();
        assert_eq!(
            script,
            "delete rule ip cni_hostport hostports handle 10\ndelete rule ip cni_hostport masquerading handle 12\n"
        );
        let all = listed(&[("hostports", "c1")]);
        let script = plugin_removal("ip cni_hostport", &all, "kmctl-demo", &ours, false);
        assert_eq!(script.as_deref(), Some("delete table ip cni_hostport\n"));
        let none = listed(&[]);
        let removal = |alone| plugin_removal("ip cni_hostport", &none, "kmctl-demo", &ours, alone);
        assert_eq!(removal(true).as_deref(), Some("delete table ip cni_hostport\n"), "left by a pod that has gone");
        assert_eq!(removal(false), None, "another node may be about to write there");
        assert_eq!(plugin_removal("ip cni_hostport", &listed(&[("hostports", "c2")]), "kmctl-demo", &ours, true), None);
    }

    #[test]
    fn masqueraded_pods_are_known_by_the_networks_name() {
        let comment = |network: &str| format!("0123456789abcdef-0123456789abcdef, net: {network}, if: eth0, id: c1");
        let table = listed(&[("masq_checks", &comment("kmctl-demo")), ("masq_checks", &comment("kmctl-demo2"))]);
        let script = plugin_removal("inet cni_plugins_masquerade", &table, "kmctl-demo", &BTreeSet::new(), true);
        assert_eq!(script.as_deref(), Some("delete rule inet cni_plugins_masquerade masq_checks handle 10\n"));
    }
}
