//! The arguments of kube-proxy.
use std::net::IpAddr;

use super::programs::path;
use super::spec::DepsSpec;
use crate::cluster::ProxyMode;

/// Port of its health check, if not in use.
pub const HEALTH_PORT: u16 = 10256;

/// Port of its metrics on loopback, if not in use.
pub const METRICS_PORT: u16 = 10249;

/// Name of the file with its credentials, in the run's configuration directory.
pub const KUBECONFIG: &str = "kube-proxy.kubeconfig";

/// The command line; `ports` are those of the health check and of the metrics.
pub fn argv(spec: &DepsSpec, mode: ProxyMode, ports: (u16, u16)) -> Vec<String> {
    let folders = &spec.folders;
    let kubeconfig = path(&folders.settings(KUBECONFIG));
    let mut argv = vec![path(&folders.programs().join("kube-proxy")), format!("--kubeconfig={kubeconfig}")];
    argv.extend(flags(spec, mode, ports.0, ports.1));
    argv
}

/// The command line if the machine supports the requested mode and the default ports are not in use.
pub fn usual(spec: &DepsSpec) -> Vec<String> {
    argv(spec, spec.network.proxy_mode, (HEALTH_PORT, METRICS_PORT))
}

/// Addresses at which NodePorts are served: the node's own address, in either mode. An agent is shared, and its other
/// addresses may be used otherwise: by a gateway, as a virtual address, in a network that must not see the cluster.
/// iptables also serves 127.0.0.1, which the kernel supports in no other mode.
fn node_port_addresses(mode: ProxyMode, node: IpAddr) -> String {
    match (mode, node) {
        (ProxyMode::Iptables, IpAddr::V4(_)) => format!("{node}/32,127.0.0.0/8"),
        (ProxyMode::Nftables, IpAddr::V4(_)) => format!("{node}/32"),
        (_, IpAddr::V6(_)) => format!("{node}/128"),
    }
}

/// Flags for what is not in its kubeconfig.
pub fn flags(spec: &DepsSpec, mode: ProxyMode, health_port: u16, metrics_port: u16) -> Vec<String> {
    vec![
        format!("--hostname-override={}", spec.node.name),
        // Set explicitly: the default is iptables now and nftables in a later version.
        match mode {
            ProxyMode::Iptables => "--proxy-mode=iptables".to_owned(),
            ProxyMode::Nftables => "--proxy-mode=nftables".to_owned(),
        },
        format!("--nodeport-addresses={}", node_port_addresses(mode, spec.node.ip)),
        format!("--cluster-cidr={}", spec.network.pod_cidr),
        format!("--healthz-bind-address={}:{health_port}", spec.node.ip),
        // kube-proxy refuses port zero.
        format!("--metrics-bind-address=127.0.0.1:{metrics_port}"),
        // The machine's connection tracking is configured by its operator; changing it needs privileges that nested
        // agents lack.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-min=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        "--v=2".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::spec::Place;
    use crate::protocol::launch;

    #[test]
    fn node_ports_answer_at_the_nodes_own_address_in_either_mode() {
        let spec = DepsSpec::for_launch(&launch::example(), &Place::example());
        let flag = |mode| {
            let flags = flags(&spec, mode, 10256, 10249);
            assert!(flags.iter().filter(|flag| flag.starts_with("--proxy-mode=")).count() == 1, "{flags:?}");
            flags.into_iter().find(|flag| flag.starts_with("--nodeport-addresses=")).unwrap()
        };
        assert_eq!(flag(ProxyMode::Iptables), "--nodeport-addresses=192.0.2.21/32,127.0.0.0/8");
        assert_eq!(flag(ProxyMode::Nftables), "--nodeport-addresses=192.0.2.21/32");
        assert_eq!(node_port_addresses(ProxyMode::Iptables, "2001:db8::5".parse().unwrap()), "2001:db8::5/128");
    }
}
