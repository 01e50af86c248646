//! The configuration and the arguments of a node's processes, derived without a machine: for `kmctl render`, and for
//! tests in which the binaries themselves check them.
use crate::cluster::NetworkMode;
use crate::node::spec::DepsSpec;
use crate::node::{containerd, kube_proxy, kubelet};

/// Files by name; a process's arguments are in `NAME.argv`, one per line. Rendered for a machine that supports
/// everything requested.
pub fn rendered(spec: &DepsSpec) -> Vec<(&'static str, String)> {
    let lines = |argv: Vec<String>| argv.into_iter().map(|word| word + "\n").collect::<String>();
    let mut files = vec![
        ("containerd.toml", containerd::configuration(spec)),
        ("containerd.argv", lines(containerd::argv(spec))),
        ("kubelet.argv", lines(kubelet::with_api(spec))),
        ("kube-proxy.argv", lines(kube_proxy::usual(spec))),
    ];
    if spec.network.mode == NetworkMode::HostPorts {
        files.push(("10-kmctl.conflist", containerd::network(spec, spec.network.proxy_mode) + "\n"));
    }
    files
}
