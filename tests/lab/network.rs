//! Services from every client, by name and by number, and host ports that come and go. UDP, session affinity and whose
//! address a pod sees are tried by `tests/net`.
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

/// A pod that answers with its name on port 80; `extra` are further keys of its specification.
fn web(namespace: &Namespace, name: &str, extra: Value) {
    let script = "mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 80 -h /www";
    let mut spec = json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
            "ports": [{ "name": "http", "containerPort": 80 }],
            "readinessProbe": { "tcpSocket": { "port": 80 }, "periodSeconds": 1 },
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
        }],
    });
    spec.as_object_mut().expect("a map").extend(extra.as_object().expect("a map").clone());
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": { "name": name, "namespace": namespace.name, "labels": { "app": name } },
    });
    namespace.lab.apply(&pod.to_string());
}

fn beside(kind: &str, app: &str) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": app } } },
    ] } } })
}

fn service(namespace: &Namespace, name: &str, spec: Value) -> Value {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": { "name": name, "namespace": namespace.name },
    });
    namespace.lab.apply(&object.to_string());
    namespace.lab.get(&["-n", &namespace.name, "service", name]).expect("applied")
}

fn inside(namespace: &Namespace, pod: &str, command: &str) -> Finished {
    namespace.lab.kubectl(&["-n", &namespace.name, "exec", pod, "--", "sh", "-c", command])
}

/// What answers there. Not by the lab's own curl, which shows the credentials for Mesos.
fn outside(address: &str, port: &str) -> String {
    let url = format!("http://{address}:{port}/");
    run(Command::new("curl").args(["-sS", "--max-time", "5", &url])).success().trim().to_owned()
}

fn node_of(pod: &Value) -> String {
    pod["spec"]["nodeName"].as_str().expect("bound").to_owned()
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn every_client_reaches_services_by_name() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "network");
    web(&namespace, "web", json!({}));
    namespace.wait("web", NODE_START);
    web(&namespace, "near", beside("podAffinity", "web"));
    web(&namespace, "far", beside("podAntiAffinity", "web"));
    let near = namespace.wait("near", NODE_START);
    let far = namespace.wait("far", NODE_START);
    let web = namespace.wait("web", SETTLE);
    assert_eq!(node_of(&near), node_of(&web));
    assert_ne!(node_of(&far), node_of(&web));

    let port = |target: Value| json!([{ "name": "http", "port": 8080, "targetPort": target }]);
    let selector = json!({ "app": "web" });
    let mut node_ports = Vec::new();
    for (name, target) in [("named", json!("http")), ("numbered", json!(80))] {
        let made =
            service(&namespace, name, json!({ "type": "NodePort", "selector": selector, "ports": port(target) }));
        node_ports.push(made["spec"]["ports"][0]["nodePort"].as_u64().expect("allocated"));
        for client in ["web", "near", "far"] {
            let command = format!("wget -q -T 3 -O - http://{name}:8080/");
            let answer = eventually(SETTLE, &format!("{client} to reach {name}"), || {
                Some(inside(&namespace, client, &command)).filter(Finished::ok)
            });
            assert_eq!(answer.success().trim(), "web");
        }
        let address = made["spec"]["clusterIP"].as_str().expect("allocated").to_owned();
        for pod in [&web, &far] {
            let command = format!("curl -s -m 3 http://{address}:8080/");
            let answer = eventually(SETTLE, "a process of the node to reach the Service", || {
                Some(lab.ssh(&node_of(pod), &command)).filter(Finished::ok)
            });
            assert_eq!(answer.success().trim(), "web");
        }
    }
    for pod in [&web, &far] {
        let address = pod["status"]["hostIP"].as_str().expect("running");
        for port in &node_ports {
            assert_eq!(outside(address, &port.to_string()), "web", "from outside");
        }
    }

    service(&namespace, "alias", json!({ "type": "ExternalName", "externalName": "named.network.svc.cluster.local" }));
    let answer = eventually(SETTLE, "the external name", || {
        Some(inside(&namespace, "far", "wget -q -T 3 -O - http://alias:8080/")).filter(Finished::ok)
    });
    assert_eq!(answer.success().trim(), "web");
    service(&namespace, "headless", json!({ "clusterIP": "None", "selector": selector, "ports": port(json!("http")) }));
    let question = "nslookup -type=srv _http._tcp.headless.network.svc.cluster.local";
    let granted: Value =
        serde_json::from_str(web["metadata"]["annotations"]["kmctl.io/ports"].as_str().expect("ports are published"))
            .expect("JSON");
    let wanted = format!(" {} ", granted[0]["hostPort"]);
    eventually_or(
        SETTLE,
        &format!("an SRV record with port{wanted}"),
        || inside(&namespace, "far", question).success(),
        || {
            Some(inside(&namespace, "far", question))
                .filter(Finished::ok)
                .filter(|answer| answer.stdout.contains(&wanted))
        },
    );
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn pods_on_one_node_share_a_container_port_and_a_lack_of_host_ports_is_told() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "ports");
    web(&namespace, "one", json!({}));
    namespace.wait("one", NODE_START);
    web(&namespace, "two", beside("podAffinity", "one"));
    namespace.wait("two", SETTLE);
    let host_port = |name: &str| -> u64 {
        let pod = lab.pod("ports", name).expect("there");
        let text = pod["metadata"]["annotations"]["kmctl.io/ports"].as_str().expect("published").to_owned();
        let ports: Value = serde_json::from_str(&text).expect("JSON");
        let address = pod["status"]["hostIP"].as_str().expect("running");
        let port = ports[0]["hostPort"].as_u64().expect("a number");
        assert_eq!(outside(address, &port.to_string()), name);
        port
    };
    let ports: BTreeSet<u64> = [host_port("one"), host_port("two")].into();
    assert_eq!(ports.len(), 2);

    // More than any agent of the lab has.
    let many: Vec<Value> = (1..=2000).map(|port| json!({ "containerPort": port })).collect();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "many", "namespace": "ports" },
        "spec": { "containers": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "command": ["sleep", "1000"], "ports": many,
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
        }] },
    });
    lab.apply(&pod.to_string());
    eventually_or(
        Duration::from_secs(60),
        "an event that tells of host ports",
        || lab.events("ports", "many"),
        || Some(lab.events("ports", "many")).filter(|text| text.contains("host ports offered, 2000 needed")),
    );
}
