//! The configuration and the arguments of containerd, for a single run.
use std::path::PathBuf;

use serde_json::json;

use super::programs::path;
use super::spec::DepsSpec;
use crate::cluster::{NetworkMode, ProxyMode};

/// The command line.
pub fn argv(spec: &DepsSpec) -> Vec<String> {
    let folders = &spec.folders;
    vec![
        path(&folders.programs().join("containerd")),
        "--config".to_owned(),
        path(&folders.settings("containerd.toml")),
        // A sweep also recognises this run's processes by this argument.
        "--address".to_owned(),
        path(&folders.runtime_socket()),
    ]
}

/// Configuration version 3, of containerd 2.0; 2.3 and later read it as their own version 4.
pub fn configuration(spec: &DepsSpec) -> String {
    let folders = &spec.folders;
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    let (cni_programs, cni_settings) = match spec.network.mode {
        NetworkMode::HostPorts => (folders.run.join("cni"), folders.run.join("net.d")),
        // The user's plugin and its configuration are in the bundle.
        NetworkMode::Cni if spec.artifacts.iter().any(|artifact| artifact.path.starts_with("cni.d/")) => {
            (folders.run.join("cni"), folders.run.join("cni.d"))
        }
        // The user's plugin is in the standard directories of CNI plugins.
        NetworkMode::Cni => (PathBuf::from("/opt/cni/bin"), PathBuf::from("/etc/cni/net.d")),
    };
    format!(
        r#"version = 3
root = {root}
state = {state}
# The kubelet's and ours do the same; lowering needs a capability that nested agents lack.
oom_score = 0

[grpc]
address = {socket}

[plugins."io.containerd.internal.v1.opt"]
path = {opt}

# On by default, on a socket that all runtimes of a machine share (/var/run/nri/nri.sock).
[plugins."io.containerd.nri.v1.nri"]
disable = true

# Never removed, as nobody could pull it again.
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = {sandbox_image}

# Where an agent's operator names mirrors and authorities of registries, as for any containerd; unset means nowhere.
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.grpc.v1.cri"]
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = {restrict}
# In the run's own folder: a namespace file in /run/netns would outlive the mount that makes it one.
netns_mounts_under_state_dir = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

# Named, because the kubelet takes its cgroup driver from here, and unset means systemd wherever that runs.
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = {runc}
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [{cni_programs}]
conf_dir = {cni_settings}
"#,
        root = quoted(folders.run.join("containerd")),
        state = quoted(folders.short.join("containerd")),
        socket = quoted(folders.runtime_socket()),
        opt = quoted(folders.run.join("opt")),
        sandbox_image = serde_json::Value::from(spec.runtime.sandbox_image.as_str()),
        restrict = spec.runtime.restrict_oom_score_adj,
        runc = quoted(folders.programs().join("runc")),
        cni_programs = quoted(cni_programs),
        cni_settings = quoted(cni_settings),
    )
}

/// The stock plugins' name of the backend that kube-proxy uses in this mode.
const fn plugin_backend(mode: ProxyMode) -> &'static str {
    match mode {
        ProxyMode::Iptables => "iptables",
        ProxyMode::Nftables => "nftables",
    }
}

/// A routed link per pod. A pod's hostPort is mapped by the stock plugin, the host ports that Mesos granted for other
/// ports by ours. The stock plugins would choose their backend by what is installed; here it is set to kube-proxy's.
pub fn network(spec: &DepsSpec, mode: ProxyMode) -> String {
    let network = &spec.network;
    json!({
        "cniVersion": "0.3.1",
        "name": network.name,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": true,
                "ipMasqBackend": plugin_backend(mode),
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": network.pod_cidr }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                    "dataDir": spec.folders.run.join("ipam"),
                },
            },
            {
                "type": "portmap",
                "capabilities": { "portMappings": true },
                "snat": true,
                "backend": plugin_backend(mode),
            },
            {
                "type": "km-cni",
                "cluster": spec.node.cluster,
                "socket": spec.folders.short.join("cni.sock"),
            },
        ],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::spec::Place;
    use crate::protocol::launch::{self, Artifact};

    #[test]
    fn the_runtime_lies_in_the_run_and_spares_what_it_may_not_do() {
        let place = Place { may_lower_oom_score: false, ..Place::example() };
        let text = configuration(&DepsSpec::for_launch(&launch::example(), &place));
        for expected in [
            "root = \"/var/lib/kmctl/demo/runs/agent-1.0123abcd/containerd\"\n",
            "address = \"/run/km-0123abcd/containerd.sock\"\n",
            "restrict_oom_score_adj = true\n",
            "SystemdCgroup = false\n",
            "config_path = \"/etc/containerd/certs.d\"\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn the_stock_plugins_write_with_what_kube_proxy_writes_with() {
        let spec = DepsSpec::for_launch(&launch::example(), &Place::example());
        for (mode, word) in [(ProxyMode::Iptables, "iptables"), (ProxyMode::Nftables, "nftables")] {
            let text = network(&spec, mode);
            let network: serde_json::Value = serde_json::from_str(&text).unwrap();
            let [ptp, portmap] = [&network["plugins"][0]["ipMasqBackend"], &network["plugins"][1]["backend"]];
            assert_eq!([ptp, portmap], [word, word]);
        }
    }

    #[test]
    fn with_the_users_plugin_its_own_folders_are_used() {
        let mut launch = launch::example();
        launch.network_mode = NetworkMode::Cni;
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        assert!(text.contains("bin_dirs = [\"/opt/cni/bin\"]"), "{text}");

        // Files of a bundle are used from the directory in which they were verified.
        launch.artifacts = ["cni/mine", "cni.d/10-mine.conflist"]
            .map(|path| Artifact {
                path: path.to_owned(),
                sha256: String::new(),
                size: 1,
                urls: Vec::new(),
                images: Vec::new(),
            })
            .to_vec();
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        for expected in ["/runs/agent-1.0123abcd/cni\"]\n", "/runs/agent-1.0123abcd/cni.d\"\n"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        // A configuration in the bundle is ignored if granted ports are mapped.
        launch.network_mode = NetworkMode::HostPorts;
        let text = configuration(&DepsSpec::for_launch(&launch, &Place::example()));
        assert!(text.contains("/net.d\"\n") && !text.contains("cni.d"), "{text}");
    }
}
