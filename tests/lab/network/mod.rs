//! Services from every client, host ports that come and go, and endpoints that are put right again. Whose address a pod
//! sees in each case, and session affinity, are tried by `tests/net`.
mod matrix;
mod nftables;
mod plugin;
mod ports;
mod repair;
mod roll;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

/// A pod that tells every caller its name and whom it sees, over TCP and UDP on port 80, which it declares by the names
/// `tcp` and `udp`. It runs the node's own Python, as the lab's images hold none. `extra` are further keys of its
/// specification.
fn speaker(name: &str, extra: &Value) -> Value {
    let folders = [("usr", "/usr"), ("lib", "/usr/lib"), ("lib64", "/usr/lib64")];
    let mounts = folders.map(|(name, _)| json!({ "name": name, "mountPath": format!("/{name}"), "readOnly": true }));
    let volumes = folders.map(|(name, path)| json!({ "name": name, "hostPath": { "path": path } }));
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["/usr/bin/python3", "-c", include_str!("serve.py"), name, "80"],
            "ports": [
                { "name": "tcp", "containerPort": 80, "protocol": "TCP" },
                { "name": "udp", "containerPort": 80, "protocol": "UDP" },
            ],
            "readinessProbe": { "tcpSocket": { "port": 80 }, "periodSeconds": 1 },
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    spec.as_object_mut().expect("a map").extend(extra.as_object().expect("a map").clone());
    spec
}

fn apply_speaker(namespace: &Namespace, name: &str, extra: &Value) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": speaker(name, extra),
        "metadata": { "name": name, "namespace": namespace.name, "labels": { "app": name } },
    });
    namespace.lab.apply(&pod.to_string());
}

/// On a node with a pod of `app` (`podAffinity`), or on another one (`podAntiAffinity`).
fn beside(kind: &str, app: &str) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": app } } },
    ] } } })
}

fn service(namespace: &Namespace, name: &str, spec: &Value) -> Value {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": { "name": name, "namespace": namespace.name },
    });
    namespace.lab.apply(&object.to_string());
    namespace.lab.get(&["-n", &namespace.name, "service", name]).expect("applied")
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {object}"))
}

fn node_of(pod: &Value) -> String {
    text(pod, "/spec/nodeName").to_owned()
}

fn host_of(pod: &Value) -> String {
    text(pod, "/status/hostIP").to_owned()
}

/// The host ports that a pod was granted, as they are published on it.
fn granted(pod: &Value) -> Vec<Value> {
    serde_json::from_str(text(pod, "/metadata/annotations/kmctl.io~1ports")).expect("JSON")
}

/// What a speaker says over TCP to somebody on no host of the lab.
fn heard(address: &str, port: u64) -> std::io::Result<String> {
    let limit = Duration::from_secs(3);
    let address: SocketAddr = format!("{address}:{port}").parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
