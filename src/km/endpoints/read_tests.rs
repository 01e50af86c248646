use super::*;

fn metadata(value: Value) -> ObjectMeta {
    serde_json::from_value(value).unwrap()
}

fn read_service(value: Value) -> Service {
    let spec = serde_json::from_value(value["spec"].clone()).unwrap();
    service(metadata(value["metadata"].clone()), spec)
}

fn read_pod(value: Value) -> Pod {
    let spec = serde_json::from_value(value["spec"].clone()).unwrap();
    let status = serde_json::from_value(value["status"].clone()).unwrap();
    pod(metadata(value["metadata"].clone()), spec, status)
}

#[test]
fn target_ports_are_numbers_names_numbers_in_quotes_or_the_port_itself() {
    let cases = [
        (json!({ "port": 80 }), TargetPort::Number(80)),
        (json!({ "port": 80, "targetPort": 0 }), TargetPort::Number(80)),
        (json!({ "port": 80, "targetPort": 8080 }), TargetPort::Number(8080)),
        (json!({ "port": 80, "targetPort": "8080" }), TargetPort::Number(8080)),
        (json!({ "port": 80, "targetPort": "http" }), TargetPort::Name("http".to_owned())),
    ];
    for (port, expected) in cases {
        let read = read_service(json!({ "metadata": { "name": "s" }, "spec": { "ports": [port] } }));
        assert_eq!(read.ports[0].target, expected, "{port}");
        assert_eq!(read.ports[0].protocol, "TCP");
    }
}

#[test]
fn a_service_is_ours_only_with_a_selector_and_endpoints() {
    let cases = [
        (json!({ "selector": { "a": "b" } }), true),
        (json!({ "selector": { "a": "b" }, "clusterIP": "None" }), true),
        (json!({ "selector": {} }), false),
        (json!({}), false),
        (json!({ "selector": { "a": "b" }, "type": "ExternalName" }), false),
    ];
    for (spec, expected) in cases {
        let read = read_service(json!({ "metadata": { "name": "s" }, "spec": spec }));
        assert_eq!(read.is_ours(), expected, "{spec}");
    }
}

fn pod_with(annotations: Value, status: Value) -> Pod {
    read_pod(json!({
        "metadata": { "namespace": "ns", "name": "p", "uid": "u", "annotations": annotations },
        "spec": {
            "nodeName": "n1",
            "containers": [{ "ports": [{ "name": "http", "containerPort": 80 }, { "containerPort": 81 }] }],
            "initContainers": [
                { "ports": [{ "name": "once", "containerPort": 90 }] },
                { "restartPolicy": "Always", "ports": [{ "name": "side", "containerPort": 91, "protocol": "UDP" }] },
            ],
        },
        "status": status,
    }))
}

#[test]
fn a_pod_has_an_address_only_once_its_own_network_stands() {
    let cases = [
        (json!({}), None),
        (json!({ "hostIP": "10.0.0.1" }), None),
        (json!({ "hostIP": "10.0.0.1", "podIP": "" }), None),
        (json!({ "hostIP": "10.0.0.1", "podIP": "172.30.0.2" }), Some("10.0.0.1")),
        (json!({ "hostIP": "fd00::1", "podIP": "fd01::2" }), Some("fd00::1")),
        (json!({ "hostIP": "nonsense", "podIP": "172.30.0.2" }), None),
    ];
    for (status, expected) in cases {
        let read = pod_with(json!({}), status.clone());
        assert_eq!(read.node_address, expected.map(|address| address.parse().unwrap()), "{status}");
    }
}

#[test]
fn readiness_and_the_end_come_from_the_status() {
    let ready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    let unready = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "False" }] });
    let unknown = json!({ "phase": "Running", "conditions": [{ "type": "Initialized", "status": "True" }] });
    let cases = [
        (ready, (true, false)),
        (unready, (false, false)),
        (unknown, (false, false)),
        (json!({ "phase": "Succeeded" }), (false, true)),
        (json!({ "phase": "Failed" }), (false, true)),
        (json!({ "phase": "Pending" }), (false, false)),
    ];
    for (status, expected) in cases {
        let read = pod_with(json!({}), status.clone());
        assert_eq!((read.ready, read.finished), expected, "{status}");
    }
}

#[test]
fn granted_ports_come_from_the_annotation_and_a_broken_one_grants_nothing() {
    let granted = r#"[{"containerPort":80,"hostPort":31001,"protocol":"TCP"}]"#;
    let cases = [(granted, Some(31001)), ("[]", None), ("not json", None), (r#"[{"containerPort":80}]"#, None)];
    for (annotation, expected) in cases {
        let read = pod_with(json!({ PORTS_ANNOTATION: annotation }), json!({}));
        assert_eq!(read.host_port(&TargetPort::Number(80), "TCP"), expected, "{annotation}");
        assert_eq!(read.host_port(&TargetPort::Name("http".to_owned()), "TCP"), expected, "{annotation}");
    }
}

#[test]
fn names_of_ports_count_in_containers_and_sidecars_only() {
    let read = pod_with(json!({}), json!({}));
    let names: Vec<_> =
        read.named_ports.iter().map(|port| (port.name.as_str(), port.number, port.protocol.as_str())).collect();
    assert_eq!(names, [("http", 80, "TCP"), ("side", 91, "UDP")]);
}

#[test]
fn a_fingerprint_covers_what_we_write_and_nothing_else() {
    let body = json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [] });
    let base = slice(&metadata(json!({ "name": "a", "labels": { "x": "y" } })), &body);
    let digest_of = |meta: Value, data: Value| slice(&metadata(meta), &data).digest;
    let labels = json!({ "x": "y" });
    let same = [
        (json!({ "name": "a", "labels": labels, "annotations": { "k": "v" } }), body.clone()),
        (json!({ "name": "a", "labels": labels, "resourceVersion": "9", "generation": 2 }), body.clone()),
    ];
    for (meta, data) in same {
        assert_eq!(digest_of(meta.clone(), data), base.digest, "{meta}");
    }
    let mut without = body.clone();
    without["ports"] = Value::Null;
    assert_eq!(digest_of(json!({ "labels": labels }), without), base.digest, "no ports and no list are the same");
    let mut edited = body.clone();
    edited["endpoints"][0]["hints"] = json!({});
    let other = [
        (json!({ "labels": { "x": "z" } }), body.clone()),
        (json!({ "labels": labels, "ownerReferences": [] }), body.clone()),
        (json!({ "labels": labels }), edited),
    ];
    for (meta, data) in other {
        assert_ne!(digest_of(meta.clone(), data), base.digest, "{meta}");
    }
}

#[test]
fn ours_is_what_carries_our_name_as_manager() {
    let of = |labels: Value| slice(&metadata(json!({ "labels": labels })), &json!({})).ours;
    assert!(of(json!({ SLICE_MANAGER_LABEL: MANAGER })));
    assert!(!of(json!({ SLICE_MANAGER_LABEL: "endpointslice-controller.k8s.io" })));
    assert!(!of(json!({ ENDPOINTS_MANAGER_LABEL: MANAGER })));
    assert!(!of(Value::Null));
}
