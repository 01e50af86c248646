//! The arguments of the kubelet, with an API server and without.
use super::programs::path;
use super::spec::{DepsSpec, KUBELET_ROOT};

/// The command line of any kubelet.
pub fn argv(spec: &DepsSpec, more: Vec<String>) -> Vec<String> {
    let mut argv = vec![path(&spec.folders.programs().join("kubelet"))];
    argv.extend(flags(spec));
    argv.extend(more);
    argv
}

/// The command line of the kubelet of a node with an API server.
pub fn with_api(spec: &DepsSpec) -> Vec<String> {
    argv(spec, api_flags(spec))
}

/// Flags for what has no field in the configuration.
fn flags(spec: &DepsSpec) -> Vec<String> {
    let folders = &spec.folders;
    let mut flags = vec![
        format!("--config={}", path(&folders.settings("kubelet.yaml"))),
        format!("--cert-dir={KUBELET_ROOT}/pki"),
        format!("--root-dir={KUBELET_ROOT}"),
        format!("--hostname-override={}", spec.node.name),
        "--v=2".to_owned(),
    ];
    // The kubelet refuses a loopback address, and a machine without a network has no other.
    if !spec.node.ip.is_loopback() {
        flags.push(format!("--node-ip={}", spec.node.ip));
    }
    flags
}

/// Flags that connect the kubelet to the API server; without them it runs standalone.
pub fn api_flags(spec: &DepsSpec) -> Vec<String> {
    let folders = &spec.folders;
    vec![
        format!("--bootstrap-kubeconfig={}", path(&folders.settings("bootstrap.kubeconfig"))),
        format!("--kubeconfig={}", path(&folders.kubelet_kubeconfig())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::spec::Place;
    use crate::protocol::launch;

    #[test]
    fn flags_carry_no_secret() {
        let mut launch = launch::example();
        launch.bootstrap_token = "abcdef.0123456789abcdef".to_owned();
        let spec = DepsSpec::for_launch(&launch, &Place::example());
        let all = [flags(&spec), api_flags(&spec)].concat();
        assert!(all.iter().any(|flag| flag.starts_with("--bootstrap-kubeconfig=")), "{all:?}");
        assert!(!all.join(" ").contains("0123456789abcdef"));
    }
}
