//! Forwarding rules that kube-proxy in nftables mode does not write. In iptables mode it accepts the packets that it
//! forwards to another machine, even if the machine forwards nothing by default, as with Docker. A verdict in a
//! separate nftables table cannot do that, since every other table is still evaluated. So `km node` adds these rules
//! with `iptables`, where the machine's policy is, with the rules that kube-proxy has in iptables mode. Pure.
use sha2::{Digest, Sha256};

/// The mark by which kube-proxy recognizes outgoing packets to masquerade: the default of either mode.
const MARK: &str = "0x4000/0x4000";

/// The cluster's chain.
fn chain(cluster: &str) -> String {
    format!("KM-SVC-{}", hex::encode(&Sha256::digest(cluster)[..4]))
}

/// The script for `iptables-restore --noflush` that accepts these packets; none if the rules already exist.
pub fn script(cluster: &str, saved: &str) -> Option<String> {
    let chain = chain(cluster);
    if saved.lines().any(|line| line == format!("-A FORWARD -j {chain}")) {
        return None;
    }
    // Declaring an existing chain empties it.
    Some(format!(
        "*filter\n:{chain} - [0:0]\n-A {chain} -m mark --mark {MARK} -j ACCEPT\n\
         -A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-I FORWARD -j {chain}\nCOMMIT\n"
    ))
}

/// The script that removes the rules; none if there are none.
pub fn removal(cluster: &str, saved: &str) -> Option<String> {
    let chain = chain(cluster);
    if !saved.lines().any(|line| line.starts_with(&format!(":{chain} "))) {
        return None;
    }
    let rule = format!("-A FORWARD -j {chain}");
    let jumps = saved.lines().filter(|line| **line == rule).map(|_| format!("-D FORWARD -j {chain}\n"));
    Some(format!("*filter\n{}-F {chain}\n-X {chain}\nCOMMIT\n", jumps.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kube_proxy_sends_on_is_let_through_until_the_node_goes() {
        let empty = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        let script = script("demo", empty).unwrap();
        assert!(script.contains("-I FORWARD -j KM-SVC-"), "{script}");
        assert_eq!(removal("demo", empty), None);

        let chain = chain("demo");
        assert!(chain.len() < 28 && !crate::cni::rules::Chains::new("demo").owns(&chain), "{chain}: pods come and go");
        let there = format!("*filter\n:FORWARD DROP [0:0]\n:{chain} - [0:0]\n-A FORWARD -j {chain}\nCOMMIT\n");
        assert_eq!(super::script("demo", &there), None);
        assert_eq!(
            removal("demo", &there),
            Some(format!("*filter\n-D FORWARD -j {chain}\n-F {chain}\n-X {chain}\nCOMMIT\n"))
        );
        assert_eq!(removal("other", &there), None);
    }
}
