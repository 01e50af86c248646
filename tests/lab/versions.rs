//! What runs is what the bundle holds, and says that it is of the version that cluster.yaml names.
use serde_json::Value;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn what_runs_is_the_bundles_and_of_the_versions_that_it_names() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "versions");
    namespace.sleeper("one", "50m", "32Mi");
    let agent = namespace.wait("one", NODE_START)["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let host = lab.hosts("control-plane").remove(0);
    let bundle = lab.ssh(&host, &format!("cat /usr/local/lib/kmctl/{}/manifest.json", lab.kubernetes)).success();
    let manifest: Value = serde_json::from_str(&bundle).expect("the manifest is JSON");
    let files = manifest["files"].as_array().expect("files");

    let (control_plane, node) = (
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"],
        ["containerd", "containerd-shim-runc-v2", "kubelet", "kube-proxy"],
    );
    let places = control_plane.map(|program| (&host, program)).into_iter().chain(node.map(|program| (&agent, program)));
    for (host, program) in places {
        // The kernel keeps fifteen letters of a program's name.
        let short = program.get(..15).unwrap_or(program);
        let running = lab.ssh(host, &format!("sha256sum /proc/$(pgrep -o -x {short})/exe")).success();
        let file = files.iter().find(|file| file["path"] == format!("bin/{program}"));
        let file = file.unwrap_or_else(|| panic!("the bundle has no {program}"));
        assert_eq!(running.split_whitespace().next(), file["sha256"].as_str(), "{program} on {host}");
    }

    let version = lab.kubectl(&["version", "-o", "json"]).success();
    let version: Value = serde_json::from_str(&version).expect("kubectl prints JSON");
    assert_eq!(version["serverVersion"]["gitVersion"], lab.kubernetes);
    let info = lab.get(&["node", &agent]).expect("the node")["status"]["nodeInfo"].clone();
    assert_eq!(info["kubeletVersion"], lab.kubernetes);
    let runtime = info["containerRuntimeVersion"].as_str().expect("a runtime");
    assert!(runtime.starts_with("containerd://2."), "{runtime}");
    let etcd = "curl -s --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/apiserver-etcd-client.crt \
                --key /etc/kubernetes/pki/apiserver-etcd-client.key https://127.0.0.1:2379/version";
    let etcd = lab.ssh(&host, etcd).success();
    assert!(etcd.contains("\"etcdserver\":\"3.6."), "{etcd}");

    // What only hosts need goes to no node.
    for file in files.iter().filter(|file| file["path"].as_str().expect("a path").starts_with("bin/etcd")) {
        assert_eq!(file["purposes"], serde_json::json!(["controlPlane"]), "{}", file["path"]);
    }
}
