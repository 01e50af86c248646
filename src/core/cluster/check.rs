//! Checks whether the values in a cluster.yaml make sense. Every rule is checked, regardless of what the others found.
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use super::network::Network;
use super::quantity::{Bytes, Millicores, ParseError, duration};
use super::spec::{Cluster, ClusterSpec, HostSsh, SshSpec, Sudo};

/// The version of the file's format.
const API_VERSION: &str = "kmctl.io/v1alpha1";

/// Collects problems by key.
#[derive(Default)]
pub(super) struct Findings {
    /// Key and what is wrong with it.
    pub(super) problems: Vec<(String, String)>,
    /// Warnings about what is allowed but probably not intended.
    pub(super) advice: Vec<String>,
}

impl Findings {
    fn wrong(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.problems.push((key.into(), text.into()));
    }

    fn unless(&mut self, fine: bool, key: impl Into<String>, text: impl Into<String>) {
        if !fine {
            self.wrong(key, text);
        }
    }

    fn parsed<T: FromStr<Err = ParseError>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: ParseError| self.wrong(key, error.to_string())).ok()
    }

    fn duration(&mut self, key: &str, text: &str) {
        match duration(text) {
            Ok(Duration::ZERO) => self.wrong(key, "must be more than 0"),
            Ok(_) => {}
            Err(error) => self.wrong(key, error.to_string()),
        }
    }
}

pub(super) fn check(cluster: &Cluster) -> Findings {
    let mut found = Findings::default();
    found.unless(
        cluster.api_version == API_VERSION,
        "apiVersion",
        format!("must be `{API_VERSION}`, not `{}`", cluster.api_version),
    );
    found.unless(cluster.kind == "Cluster", "kind", format!("must be `Cluster`, not `{}`", cluster.kind));
    let name = &cluster.metadata.name;
    found.unless(
        is_label(name),
        "metadata.name",
        format!("`{name}` is not a DNS label: at most 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit"),
    );
    let spec = &cluster.spec;
    mesos(spec, &mut found);
    ssh("spec.ssh", &spec.ssh, &mut found);
    control_plane(spec, &mut found);
    kubernetes(spec, &mut found);
    nodes(spec, &mut found);
    addresses(spec, &mut found);
    found
}

fn mesos(spec: &ClusterSpec, found: &mut Findings) {
    let mesos = &spec.mesos;
    let masters = &mesos.master.0;
    found.unless(!masters.is_empty(), "spec.mesos.master", "must have at least one master");
    for (index, master) in masters.iter().enumerate() {
        let key =
            if masters.len() == 1 { "spec.mesos.master".to_owned() } else { format!("spec.mesos.master[{index}]") };
        if master.starts_with("zk://") {
            found.wrong(key, "zk:// is not supported yet; list the masters as `host:port`");
            continue;
        }
        let address = master.strip_prefix("http://").or_else(|| master.strip_prefix("https://")).unwrap_or(master);
        found.unless(
            host_port(address).is_some(),
            key,
            format!("`{master}` is not `host:port`, `http://host:port` or `https://host:port`"),
        );
    }
    found.unless(!mesos.user.is_empty(), "spec.mesos.user", "must not be empty");
    found.unless(!mesos.roles.is_empty(), "spec.mesos.roles", "must have at least one role");
    for (index, role) in mesos.roles.iter().enumerate() {
        let key = format!("spec.mesos.roles[{index}]");
        if let Some(reason) = bad_role(role) {
            found.wrong(key, format!("`{role}` is not a Mesos role: {reason}"));
        } else if mesos.roles[..index].contains(role) {
            found.wrong(key, format!("`{role}` is listed twice"));
        }
    }
    match (mesos.principal.is_empty(), mesos.secret_file.is_empty()) {
        (true, false) => found.wrong("spec.mesos.secretFile", "requires spec.mesos.principal"),
        (false, true) => found.wrong("spec.mesos.principal", "requires spec.mesos.secretFile"),
        _ => {}
    }
    if !mesos.ca_file.is_empty() && !masters.iter().any(|master| master.starts_with("https://")) {
        found.wrong("spec.mesos.caFile", "requires masters with https://");
    }
}

/// Why Mesos' own rules reject a role name, if they do.
fn bad_role(role: &str) -> Option<&'static str> {
    if role.is_empty() {
        return Some("it is empty");
    }
    for part in role.split('/') {
        match part {
            "" => return Some("must not begin or end with `/`, or contain `//`"),
            "." | ".." => return Some("must not contain `.` or `..`"),
            part if part.starts_with('-') => return Some("no part may begin with `-`"),
            "*" if role != "*" => return Some("`*` must be the whole role"),
            part if part.contains(|c: char| c.is_whitespace() || c == '\u{8}' || c == '\u{7f}') => {
                return Some("must not contain whitespace");
            }
            _ => {}
        }
    }
    None
}

fn ssh(key: &str, ssh: &SshSpec, found: &mut Findings) {
    let SshSpec { user, port, identity_file: _, known_hosts, jump, sudo, connect_timeout } = ssh;
    let own = HostSsh {
        user: Some(user.clone()),
        port: Some(*port),
        identity_file: None,
        known_hosts: Some(known_hosts.clone()),
        jump: Some(jump.clone()),
        sudo: Some(*sudo),
        connect_timeout: Some(connect_timeout.clone()),
    };
    host_ssh(key, &own, found);
}

fn host_ssh(key: &str, ssh: &HostSsh, found: &mut Findings) {
    let key = |name: &str| format!("{key}.{name}");
    found.unless(ssh.user.as_deref() != Some(""), key("user"), "must not be empty");
    found.unless(ssh.port != Some(0), key("port"), "must be a port from 1 to 65535");
    found.unless(ssh.known_hosts.as_deref() != Some(""), key("knownHosts"), "must be a file");
    for (index, hop) in ssh.jump.iter().flatten().enumerate() {
        found.unless(
            jump_host(hop).is_some(),
            key(&format!("jump[{index}]")),
            format!("`{hop}` is not `host`, `user@host` or `user@host:port`"),
        );
    }
    if let Some(timeout) = &ssh.connect_timeout {
        found.duration(&key("connectTimeout"), timeout);
    }
}

fn control_plane(spec: &ClusterSpec, found: &mut Findings) {
    let endpoint = &spec.control_plane.endpoint;
    found.unless(
        host_port(endpoint).is_some(),
        "spec.controlPlane.endpoint",
        format!("`{endpoint}` is not `host:port`"),
    );
    let hosts = &spec.control_plane.hosts;
    found.unless(!hosts.is_empty(), "spec.controlPlane.hosts", "must have at least one host");
    for (index, host) in hosts.iter().enumerate() {
        let key = |name: &str| format!("spec.controlPlane.hosts[{index}].{name}");
        found.unless(
            is_host(&host.address),
            key("address"),
            format!("`{}` is neither an IP address nor a DNS name", host.address),
        );
        let before = &hosts[..index];
        found.unless(
            host.address.is_empty() || !before.iter().any(|other| other.address == host.address),
            key("address"),
            format!("`{}` is listed twice", host.address),
        );
        found.unless(
            host.name.is_empty() || is_host(&host.name),
            key("name"),
            format!("`{}` is not a DNS name", host.name),
        );
        found.unless(
            host.name.is_empty() || !before.iter().any(|other| other.name == host.name),
            key("name"),
            format!("`{}` is listed twice", host.name),
        );
        found.unless(
            host.host_key.is_empty() || is_fingerprint(&host.host_key),
            key("hostKey"),
            "is not a fingerprint as `ssh-keygen -lf` prints it, `SHA256:` and 43 characters",
        );
        if let Some(own) = &host.ssh {
            host_ssh(&key("ssh"), own, found);
        }
        let own = host.ssh.clone().unwrap_or_default();
        let user = own.user.as_deref().unwrap_or(&spec.ssh.user);
        if user != "root" && own.sudo.unwrap_or(spec.ssh.sudo) == Sudo::None {
            found.advice.push(format!(
                "user {user} on {} has no sudo; set ssh.sudo to nopasswd unless the user is root",
                if host.name.is_empty() { &host.address } else { &host.name },
            ));
        }
    }
    if hosts.len() > 1 && hosts.len().is_multiple_of(2) {
        let (count, less) = (hosts.len(), hosts.len() - 1);
        found
            .advice
            .push(format!("{count} control-plane hosts tolerate no more failures than {less}; use an odd number"));
    }
    if hosts.len() > 1
        && let Some((name, _)) = host_port(endpoint)
        && hosts.iter().any(|host| host.address == name)
    {
        found
            .advice
            .push(format!("controlPlane.endpoint is the address of {name}: the API is unavailable without that host"));
    }
}

fn kubernetes(spec: &ClusterSpec, found: &mut Findings) {
    let kubernetes = &spec.kubernetes;
    found.unless(
        is_version(&kubernetes.version),
        "spec.kubernetes.version",
        format!("`{}` is not a version such as `v1.37.2`", kubernetes.version),
    );
    found.unless(
        is_domain(&kubernetes.cluster_domain),
        "spec.kubernetes.clusterDomain",
        format!("`{}` is not a DNS name", kubernetes.cluster_domain),
    );
    found.unless(
        port_range(&kubernetes.node_port_range).is_some(),
        "spec.kubernetes.nodePortRange",
        format!("`{}` is not a port range such as `28000-29999`", kubernetes.node_port_range),
    );
}

fn nodes(spec: &ClusterSpec, found: &mut Findings) {
    let nodes = &spec.nodes;
    if let Some(max) = nodes.max {
        found.unless(max > 0, "spec.nodes.max", "must be at least 1");
        found.unless(max >= nodes.min, "spec.nodes.max", format!("is less than min ({})", nodes.min));
    }
    found.duration("spec.nodes.idleTimeout", &nodes.idle_timeout);
    for (key, quantities, least) in [
        ("spec.nodes.overhead", &nodes.overhead, 32 << 20),
        // Mesos gives no container less than 32 MB, but a pod's container is one of several.
        ("spec.nodes.podDefaults", &nodes.pod_defaults, 1 << 20),
    ] {
        if let Some(cpu) = found.parsed::<Millicores>(&format!("{key}.cpu"), &quantities.cpu) {
            found.unless(cpu >= Millicores(10), format!("{key}.cpu"), "must be at least 10m, the minimum of Mesos");
        }
        if let Some(memory) = found.parsed::<Bytes>(&format!("{key}.memory"), &quantities.memory) {
            found.unless(memory >= Bytes(least), format!("{key}.memory"), format!("must be at least {}", Bytes(least)));
        }
    }
    for (index, constraint) in nodes.constraints.iter().enumerate() {
        let key = format!("spec.nodes.constraints[{index}]");
        found.unless(!constraint.attribute.is_empty(), format!("{key}.attribute"), "must not be empty");
        found.unless(
            !constraint.values.is_empty(),
            format!("{key}.in"),
            "must have at least one value, otherwise no agent is eligible",
        );
    }
    let root = &nodes.root_dir;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    found.unless(
        root.is_empty()
            || root.starts_with('/')
                && root.len() > 1
                && root.chars().all(plain)
                && !root.split('/').any(|part| part == ".."),
        "spec.nodes.rootDir",
        format!("`{root}` must be an absolute path of letters, digits, `-`, `_` and `.`, below `/`"),
    );
}

/// Networks must be valid, and must not overlap each other or contain the hosts.
fn addresses(spec: &ClusterSpec, found: &mut Findings) {
    let networks = [
        ("spec.kubernetes.serviceCIDR", &spec.kubernetes.service_cidr, 12..=28),
        ("spec.network.podCIDR", &spec.network.pod_cidr, 8..=28),
    ];
    let mut known: Vec<(&str, &str, Network)> = Vec::new();
    for (key, text, sizes) in networks {
        match text.parse::<Network>() {
            Err(reason) => found.wrong(key, format!("`{text}` {reason}")),
            Ok(network) => {
                let (least, most) = (sizes.start(), sizes.end());
                found.unless(
                    sizes.contains(&network.prefix),
                    key,
                    format!("must be between /{least} and /{most}, not /{}", network.prefix),
                );
                for (other, written, taken) in &known {
                    found.unless(!network.meets(taken), key, format!("`{text}` overlaps {other}, `{written}`"));
                }
                known.push((key, text, network));
            }
        }
    }
    let endpoint =
        host_port(&spec.control_plane.endpoint).map(|(host, _)| ("spec.controlPlane.endpoint".to_owned(), host));
    let hosts = spec.control_plane.hosts.iter().enumerate();
    let hosts = hosts.map(|(index, host)| (format!("spec.controlPlane.hosts[{index}].address"), host.address.as_str()));
    for (key, address) in endpoint.into_iter().chain(hosts) {
        let Ok(address) = address.parse::<Ipv4Addr>() else { continue };
        for (network_key, written, network) in &known {
            found.unless(
                !network.contains(address),
                key.clone(),
                format!("`{address}` is in {network_key} `{written}`, where it is unreachable"),
            );
        }
    }
}

/// Host and port of `host:port`, or of `[address]:port` for IPv6.
pub fn host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    match host.strip_prefix('[') {
        Some(rest) => {
            let address = rest.strip_suffix(']')?;
            address.parse::<std::net::Ipv6Addr>().is_ok().then_some((address, port))
        }
        None => (is_host(host) && !host.contains(':')).then_some((host, port)),
    }
}

/// User, host and port of `user@host:port`. User and port are optional; the default port is 22. An IPv6 address with a
/// port is written in brackets.
pub fn jump_host(text: &str) -> Option<(Option<&str>, &str, u16)> {
    let (user, place) = match text.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, text),
    };
    if user.is_some_and(|user| user.is_empty() || user.contains(char::is_whitespace)) {
        return None;
    }
    let (host, port) = host_port(place).or_else(|| is_host(place).then_some((place, 22)))?;
    Some((user, host, port))
}

/// First and last port of a range such as `28000-29999`.
pub fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (0 < first && first <= last).then_some((first, last))
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    // Four numbers that are not a valid address, such as 10.0.0.256, are not a name either.
    let numbers = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    !numbers && is_domain(&text.to_ascii_lowercase())
}

fn is_fingerprint(text: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    text.strip_prefix("SHA256:").is_some_and(|hash| hash.len() == 43 && hash.chars().all(base64))
}

fn is_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.len() < 6 && part.chars().all(|c| c.is_ascii_digit());
    let parts: Option<Vec<&str>> = text.strip_prefix('v').map(|version| version.split('.').collect());
    parts.is_some_and(|parts| parts.len() == 3 && parts.into_iter().all(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_meet_when_one_lies_in_the_other() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let table = [
            ("10.96.0.0/16", "10.96.128.0/20", true),
            ("10.96.0.0/16", "10.97.0.0/16", false),
            ("10.0.0.0/8", "10.255.0.0/24", true),
            ("0.0.0.0/0", "192.168.0.0/16", true),
        ];
        for (one, other, expected) in table {
            assert_eq!(network(one).meets(&network(other)), expected, "{one} {other}");
            assert_eq!(network(other).meets(&network(one)), expected, "{other} {one}");
        }
        assert!(network("10.0.0.0/30").contains(Ipv4Addr::new(10, 0, 0, 3)));
        assert!(!network("10.0.0.0/30").contains(Ipv4Addr::new(10, 0, 0, 4)));
    }

    #[test]
    fn addresses_and_names_are_told_from_what_only_looks_like_them() {
        for fine in ["10.0.0.1:6443", "cp.example.com:1", "CP1:443", "[::1]:6443"] {
            assert!(host_port(fine).is_some(), "{fine}");
        }
        for wrong in ["10.0.0.1", "10.0.0.256:1", "a:0", "a:65536", ":1", "a b:1", "::1:6443", "[10.0.0.1]:1", "a:+1x"]
        {
            assert!(host_port(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn jump_hosts_may_leave_user_and_port_away() {
        for (text, expected) in [
            ("b1", Some((None, "b1", 22))),
            ("ops@b1.example.com", Some((Some("ops"), "b1.example.com", 22))),
            ("ops@10.0.0.1:2222", Some((Some("ops"), "10.0.0.1", 2222))),
            ("a@b@[fd00::1]:22", Some((Some("a@b"), "fd00::1", 22))),
            ("fd00::1", Some((None, "fd00::1", 22))),
            ("@b1", None),
            ("o ps@b1", None),
            ("ops@", None),
            ("b1:0", None),
            ("b1:ssh", None),
            ("ops@b1, b2", None),
        ] {
            assert_eq!(jump_host(text), expected, "{text}");
        }
    }

    #[test]
    fn mesos_roles_follow_mesos_rules() {
        for fine in ["kubernetes", "a/b", "*", "dev.k8s"] {
            assert_eq!(bad_role(fine), None, "{fine}");
        }
        for wrong in ["", ".", "a/..", "-a", "a//b", "/a", "a/", "a b", "a/*"] {
            assert!(bad_role(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn port_ranges_have_two_ends_in_order() {
        assert_eq!(port_range("28000-29999"), Some((28000, 29999)));
        for wrong in ["", "1", "0-5", "5-4", "1-65536", "a-b", "1-2-3"] {
            assert_eq!(port_range(wrong), None, "{wrong}");
        }
    }
}
