use super::*;

fn mapping(container_port: u16, host_port: u16, protocol: &str) -> PortMapping {
    PortMapping { container_port, host_port, protocol: protocol.to_owned() }
}

fn mapped<'a>(container: &'a str, address: &str, ports: &'a [PortMapping]) -> Mapped<'a> {
    Mapped { container, pod: "ns/web", link: "veth1", address: address.parse().unwrap(), prefix: 16, ports }
}

/// A minimal `iptables-restore --noflush`: applies a script to the text of a save and returns the new text.
fn apply(saved: &str, script: &str) -> String {
    let mut tables: Vec<(String, Vec<String>, Vec<String>)> = Vec::new();
    for text in [saved, script] {
        let mut at = 0;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                at = tables.iter().position(|(table, ..)| table == name).unwrap_or_else(|| {
                    tables.push((name.to_owned(), Vec::new(), Vec::new()));
                    tables.len() - 1
                });
                continue;
            }
            let Some((_, chains, rules)) = tables.get_mut(at) else { continue };
            let word = |index: usize| line.split(' ').nth(index).unwrap_or_default().to_owned();
            let in_chain = |rule: &String, chain: &str| rule.split(' ').nth(1) == Some(chain);
            if let Some(chain) = line.strip_prefix(':') {
                let chain = chain.split(' ').next().unwrap().to_owned();
                rules.retain(|rule| !in_chain(rule, &chain));
                if !chains.contains(&chain) {
                    chains.push(chain);
                }
            } else if line.starts_with("-A ") {
                assert!(chains.contains(&word(1)), "no chain for {line}");
                rules.push(line.to_owned());
            } else if line.starts_with("-I ") {
                rules.insert(0, line.replacen("-I ", "-A ", 1));
            } else if line.starts_with("-D ") {
                let rule = line.replacen("-D ", "-A ", 1);
                let at = rules.iter().position(|there| *there == rule);
                rules.remove(at.unwrap_or_else(|| panic!("nothing to delete: {line}")));
            } else if line.starts_with("-F ") {
                rules.retain(|rule| !in_chain(rule, &word(1)));
            } else if line.starts_with("-X ") {
                let used =
                    rules.iter().find(|rule| in_chain(rule, &word(1)) || rule.ends_with(&format!("-j {}", word(1))));
                assert_eq!(used, None, "chain in use: {line}");
                chains.retain(|chain| *chain != word(1));
            } else {
                assert!(line == "COMMIT" || line.starts_with('#') || line.is_empty(), "{line}");
            }
        }
    }
    let mut out = String::new();
    for (table, chains, rules) in tables {
        out.push_str(&format!("*{table}\n"));
        out.extend(chains.iter().map(|chain| format!(":{chain} - [0:0]\n")));
        out.extend(rules.iter().map(|rule| format!("{rule}\n")));
        out.push_str("COMMIT\n");
    }
    out
}

const STOCK: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n:DOCKER - [0:0]\n\
    -A FORWARD -j DOCKER\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    :POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";

fn stock() -> String {
    apply("", &STOCK.replace("    ", ""))
}

#[test]
fn a_port_leads_to_the_pod_and_what_comes_from_pods_is_masqueraded() {
    let chains = Chains::new("demo");
    let ports = [mapping(80, 31001, "TCP"), mapping(53, 31002, "UDP")];
    let script = chains.add(&stock(), &mapped("c1", "172.30.0.5", &ports));
    let (dnat, masquerade) = (chains.chain("DNAT"), chains.chain("MASQ"));
    let tag = tag("c1");
    for expected in [
        format!("-A PREROUTING -m addrtype --dst-type LOCAL -j {dnat}\n"),
        format!("-A OUTPUT -m addrtype --dst-type LOCAL -j {dnat}\n"),
        format!("-I FORWARD -j {}\n", chains.chain("FWD")),
        format!(
            "-A {dnat} -p tcp -m tcp --dport 31001 -m comment --comment \"ns/web {tag}\" \
             -j DNAT --to-destination 172.30.0.5:80\n"
        ),
        format!(
            "-A {dnat} -p udp -m udp --dport 31002 -m comment --comment \"ns/web {tag}\" \
             -j DNAT --to-destination 172.30.0.5:53\n"
        ),
        format!(
            "-A {masquerade} -s 172.30.0.5/32 -d 172.30.0.5/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT \
             --ctorigdstport 31001 -m comment --comment \"ns/web {tag}\" -j MASQUERADE\n"
        ),
    ] {
        assert!(script.contains(&expected), "{expected} in\n{script}");
    }
}

#[test]
fn a_port_leads_to_whom_it_was_granted_last_though_the_one_before_is_still_there() {
    let chains = Chains::new("demo");
    let (tcp, udp, other) = (mapping(80, 31001, "TCP"), mapping(80, 31001, "UDP"), mapping(80, 31002, "TCP"));
    let before = apply(&stock(), &chains.add(&stock(), &mapped("old", "172.30.0.5", &[tcp.clone(), udp, other])));
    let after = apply(&before, &chains.add(&before, &mapped("new", "172.30.0.6", &[tcp])));
    let leads = |port: &str, to: &str| {
        let end = format!("-j DNAT --to-destination {to}:80");
        after.lines().any(|rule| rule.contains(&format!("{port} -m comment")) && rule.ends_with(&end))
    };
    assert!(leads("-m tcp --dport 31001", "172.30.0.6") && !leads("-m tcp --dport 31001", "172.30.0.5"), "{after}");
    assert!(leads("-m udp --dport 31001", "172.30.0.5") && leads("-m tcp --dport 31002", "172.30.0.5"), "{after}");
    // The rest of the old pod's rules are removed with its sandbox, and none of the new pod's.
    let script = chains.delete(&after, "old").unwrap();
    let gone = apply(&after, &script);
    assert!(!gone.contains("172.30.0.5") && gone.contains("172.30.0.6"), "{gone}");
}

#[test]
fn masquerading_comes_before_the_stock_plugin_which_accepts_what_stays_in_the_pods_network() {
    // Regression: a pod that called itself by its host port got no answer, because the plugin's rule ended the chain.
    let plugin = "-A POSTROUTING -s 172.30.0.5/32 -j CNI-1\nCOMMIT\n";
    let (before, nat) = STOCK.split_at(STOCK.rfind("COMMIT").unwrap());
    assert_eq!(nat, "COMMIT\n");
    let saved = apply("", &format!("{before}{plugin}").replace("    ", ""));
    let chains = Chains::new("demo");
    let after = apply(&saved, &chains.add(&saved, &mapped("c1", "172.30.0.5", &[mapping(80, 31001, "TCP")])));
    let place = |rule: &str| after.find(rule).unwrap_or_else(|| panic!("{rule} in\n{after}"));
    let ours = format!("-A POSTROUTING -j {}", chains.chain("MASQ"));
    assert!(place(&ours) < place("-A POSTROUTING -s 172.30.0.5/32"), "{after}");
}

#[test]
fn adding_again_changes_nothing_and_adding_other_ports_replaces_them() {
    let chains = Chains::new("demo");
    let first = [mapping(80, 31001, "TCP")];
    let once = apply(&stock(), &chains.add(&stock(), &mapped("c1", "172.30.0.5", &first)));
    let twice = apply(&once, &chains.add(&once, &mapped("c1", "172.30.0.5", &first)));
    assert_eq!(twice, once);
    let second = [mapping(80, 31009, "TCP")];
    let other = apply(&once, &chains.add(&once, &mapped("c1", "172.30.0.6", &second)));
    assert!(!other.contains("31001") && !other.contains("172.30.0.5"), "{other}");
    assert_eq!(chains.check(&other, &mapped("c1", "172.30.0.6", &second)), None);
}

#[test]
fn pods_come_and_go_independently_and_the_last_takes_the_chains_along() {
    let chains = Chains::new("demo");
    let (one, two) = ([mapping(80, 31001, "TCP")], [mapping(80, 31002, "TCP")]);
    let first = apply(&stock(), &chains.add(&stock(), &mapped("c1", "172.30.0.5", &one)));
    let both = apply(&first, &chains.add(&first, &mapped("c2", "172.30.0.6", &two)));
    assert_eq!(apply(&both, &chains.delete(&both, "c2").unwrap()), first);
    assert_eq!(apply(&first, &chains.delete(&first, "c1").unwrap()), stock());
    assert_eq!(chains.delete(&stock(), "c1"), None);
    assert_eq!(chains.delete(&first, "never seen"), None);
}

#[test]
fn a_pod_without_ports_is_forwarded_and_keeps_the_chains() {
    let chains = Chains::new("demo");
    let ports = [mapping(80, 31001, "TCP")];
    let first = apply(&stock(), &chains.add(&stock(), &mapped("plain", "172.30.0.4", &[])));
    assert!(first.contains("-s 172.30.0.4/32 -i veth1"), "{first}");
    let both = apply(&first, &chains.add(&first, &mapped("c1", "172.30.0.5", &ports)));
    assert_eq!(apply(&both, &chains.delete(&both, "c1").unwrap()), first);
}

/// Rules of the forwarding chain in order, without the chain's name.
fn forwarding(chains: &Chains, saved: &str) -> Vec<String> {
    let begin = format!("-A {} ", chains.chain("FWD"));
    saved.lines().filter_map(|line| line.strip_prefix(&begin)).map(str::to_owned).collect()
}

#[test]
fn what_is_no_pods_and_what_belongs_to_a_connection_meets_no_rule_of_a_pod() {
    let chains = Chains::new("demo");
    let one = apply(&stock(), &chains.add(&stock(), &mapped("c1", "172.30.0.5", &[])));
    let two = apply(&one, &chains.add(&one, &mapped("c2", "172.30.0.6", &[])));
    for saved in [&one, &two] {
        let rules = forwarding(&chains, saved);
        assert_eq!(rules[0], "! -s 172.30.0.0/16 ! -d 172.30.0.0/16 -j RETURN");
        assert_eq!(rules[1], "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        assert!(rules[2..].iter().all(|rule| rule.contains(TAG)), "{rules:?}");
    }
    let input = format!("-A INPUT -s 172.30.0.0/16 -j {}", chains.chain("IN"));
    assert_eq!(two.lines().filter(|line| **line == input).count(), 1, "{two}");
}

#[test]
fn the_next_pod_puts_the_chain_before_kube_proxys() {
    let chains = Chains::new("demo");
    let ours = chains.add(&stock(), &mapped("c1", "172.30.0.5", &[]));
    let proxy = "*filter\n:KUBE-FORWARD - [0:0]\n-I FORWARD -m comment --comment \"x\" -j KUBE-FORWARD\nCOMMIT\n";
    let saved = apply(&apply(&stock(), &ours), proxy);
    let next = apply(&saved, &chains.add(&saved, &mapped("c2", "172.30.0.6", &[])));
    let forward: Vec<&str> = next.lines().filter(|line| line.starts_with("-A FORWARD")).collect();
    assert_eq!(forward[0], format!("-A FORWARD -j {}", chains.chain("FWD")));
    assert_eq!(forward.len(), 3, "{forward:?}");
    let again = apply(&next, &chains.add(&next, &mapped("c2", "172.30.0.6", &[])));
    assert_eq!(again, next);
}

#[test]
fn where_pods_have_another_network_now_the_chains_begin_with_that_one() {
    let chains = Chains::new("demo");
    let before = apply(&stock(), &chains.add(&stock(), &mapped("c1", "172.30.0.5", &[])));
    let after = apply(&before, &chains.add(&before, &mapped("c2", "172.31.0.5", &[])));
    let rules = forwarding(&chains, &after);
    assert_eq!(rules[0], "! -s 172.31.0.0/16 ! -d 172.31.0.0/16 -j RETURN");
    assert!(!after.contains("172.30.0.0/16"), "{after}");
    assert_eq!(chains.check(&after, &mapped("c2", "172.31.0.5", &[])), None);
}

#[test]
fn what_belongs_to_no_connection_is_left_to_kube_proxy() {
    // Regression: a pod's late packets were sent with its own address, and the peer reset the unknown connection.
    let chains = Chains::new("demo");
    let saved = apply(&stock(), &chains.add(&stock(), &mapped("c1", "172.30.0.5", &[])));
    let from_pod = forwarding(&chains, &saved).into_iter().find(|rule| rule.starts_with("-s 172.30.0.5/32")).unwrap();
    assert!(from_pod.contains("-m conntrack ! --ctstate INVALID"), "{from_pod}");
}

#[test]
fn clusters_on_one_machine_do_not_touch_each_other() {
    let (demo, other) = (Chains::new("demo"), Chains::new("other"));
    let ports = [mapping(80, 31001, "TCP")];
    let first = apply(&stock(), &demo.add(&stock(), &mapped("c1", "172.30.0.5", &ports)));
    let both = apply(&first, &other.add(&first, &mapped("c2", "172.31.0.5", &ports)));
    assert_eq!(apply(&both, &other.delete(&both, "c2").unwrap()), first);
    assert_eq!(apply(&both, &other.purge(&both).unwrap()), first);
    assert_eq!(demo.purge(&stock()), None);
}

#[test]
fn a_check_names_what_is_missing() {
    let chains = Chains::new("demo");
    let ports = [mapping(80, 31001, "TCP")];
    let mapped = mapped("c1", "172.30.0.5", &ports);
    let good = apply(&stock(), &chains.add(&stock(), &mapped));
    assert_eq!(chains.check(&good, &mapped), None);
    let without =
        |part: &str| good.lines().filter(|line| !line.contains(part)).map(|line| format!("{line}\n")).collect();
    let cases: [(String, &str); 5] = [
        (stock(), "PREROUTING has no jump to"),
        (without("-A POSTROUTING"), "POSTROUTING has no jump to"),
        (without("MASQUERADE"), "6 rules instead of 8"),
        (without("-j RETURN"), "has unexpected first rules"),
        (good.replace("--to-destination 172.30.0.5:80", "--to-destination 172.30.0.5:81"), "31001/TCP is not mapped"),
    ];
    for (saved, expected) in cases {
        let missing = chains.check(&saved, &mapped).unwrap();
        assert!(missing.contains(expected), "{missing}");
    }
}

#[test]
fn chain_names_fit_and_networks_are_cut_at_their_prefix() {
    let chains = Chains::new(&"c".repeat(63));
    assert!(chains.hooks("172.30.0.0/16").iter().all(|hook| hook.chain.len() <= 28));
    let cases = [
        ("172.30.5.7", 16, "172.30.0.0"),
        ("10.1.2.3", 24, "10.1.2.0"),
        ("10.1.2.3", 32, "10.1.2.3"),
        ("10.1.2.3", 0, "0.0.0.0"),
    ];
    for (address, prefix, expected) in cases {
        assert_eq!(network(address.parse().unwrap(), prefix), expected.parse::<Ipv4Addr>().unwrap());
    }
}
