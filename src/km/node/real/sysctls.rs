//! Kernel settings (sysctls) that stock binaries change, and how they are restored.
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The settings of kubelet, kube-proxy, stock plugins and km node.
const SET: [(&str, &str); 11] = [
    ("kernel/keys/root_maxbytes", "25000000"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
    ("net/bridge/bridge-nf-call-ip6tables", "1"),
    ("net/ipv4/conf/all/route_localnet", "1"),
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/vs/conntrack", "1"),
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
];

fn file(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// The current values of the settings that may be changed.
pub fn read() -> BTreeMap<String, String> {
    SET.iter()
        .filter_map(|(name, _)| {
            let value = std::fs::read_to_string(file(name)).ok()?;
            Some(((*name).to_owned(), value.trim().to_owned()))
        })
        .collect()
}

/// Restores the values that a node changed. `network`: also those of this network namespace.
pub fn restore(before: &BTreeMap<String, String>, network: bool) {
    for (name, value) in to_restore(before, &read()) {
        if network || !name.starts_with("net/") {
            // Fails where they are read-only, as in some containers; then they were not changed either.
            let _ = std::fs::write(file(&name), value);
        }
    }
}

/// Only settings that have the node's value now and had another one before: any other value was set later by others.
fn to_restore(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<(String, String)> {
    SET.iter()
        .filter_map(|(name, set)| {
            let old = before.get(*name).filter(|old| old != set)?;
            (now.get(*name)? == set).then(|| ((*name).to_owned(), old.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_node_changed_goes_back() {
        let values = |panic: &str, forward: &str, memory: &str| {
            [("kernel/panic", panic), ("net/ipv4/ip_forward", forward), ("vm/overcommit_memory", memory)]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let restored = to_restore(&values("0", "1", "0"), &values("10", "0", "2"));
        assert_eq!(restored, [("kernel/panic".to_owned(), "0".to_owned())]);
    }
}
