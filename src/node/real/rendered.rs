//! What a node's programs read and how they are started, worked out without a machine: for `kmctl render`, and for tests
//! in which the programs themselves judge it.
use super::super::spec::DepsSpec;
use super::packet_filter::Choice;
use super::{containerd, kubelet, proxy};
use crate::cluster::NetworkMode;

/// Files by their names; programs' arguments one per line in `NAME.argv`. As on a machine that can do what was asked for.
pub fn rendered(spec: &DepsSpec) -> Vec<(&'static str, String)> {
    let lines = |argv: Vec<String>| argv.into_iter().map(|word| word + "\n").collect::<String>();
    let mut files = vec![
        ("containerd.toml", containerd::configuration(spec)),
        ("containerd.argv", lines(containerd::argv(spec))),
        ("kubelet.argv", lines(kubelet::with_api(spec))),
        ("kube-proxy.argv", lines(proxy::usual(spec))),
    ];
    if spec.network.mode == NetworkMode::HostPorts {
        let choice = Choice { mode: spec.network.proxy_mode, iptables: None, why: None };
        files.push(("10-kmctl.conflist", containerd::network(spec, &choice) + "\n"));
    }
    files
}
