use serde_json::{Value, json};

use super::*;

fn given(spec: Value) -> GivenPod {
    serde_json::from_value(json!({
        "uid": "u1",
        "pod": {"metadata": {"name": "web", "labels": {"app": "x"}}, "spec": spec},
        "configMaps": [{"metadata": {"name": "c"}, "data": {"a": "$(HOME) 1", "no name": "x"}, "binaryData": {"b": "AAE="}}],
        "secrets": [{"metadata": {"name": "s"}, "data": {"a": "c2VjcmV0", "z": "eg=="}}],
    }))
    .unwrap()
}

fn rewritten(spec: Value) -> Rewritten {
    rewrite(&given(spec), Path::new("/given/u1")).unwrap()
}

fn refused(spec: Value) -> String {
    rewrite(&given(spec), Path::new("/given/u1")).unwrap_err().to_string()
}

fn variables(spec: Value) -> Vec<(String, Option<String>)> {
    let container = rewritten(spec).pod.spec.unwrap().containers.remove(0);
    assert!(container.env_from.is_none());
    container.env.unwrap_or_default().into_iter().map(|variable| (variable.name, variable.value)).collect()
}

fn pair(name: &str, value: &str) -> (String, Option<String>) {
    (name.to_owned(), Some(value.to_owned()))
}

#[test]
fn a_pod_ends_with_its_containers_and_keeps_its_name_inside() {
    for (policy, expected) in [(Value::Null, "Never"), (json!("Always"), "Never"), (json!("OnFailure"), "OnFailure")] {
        let spec = rewritten(json!({"containers": [], "restartPolicy": policy})).pod.spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some(expected));
        assert_eq!(spec.hostname.as_deref(), Some("web"));
    }
    let pod = rewritten(json!({"containers": [], "hostname": "own"})).pod;
    assert_eq!((pod.metadata.uid.as_deref(), pod.metadata.namespace.as_deref()), (Some("u1"), Some("default")));
    assert_eq!(pod.spec.unwrap().hostname.as_deref(), Some("own"));
}

#[test]
fn config_maps_and_secrets_become_files_and_the_volume_a_read_only_folder() {
    let out = rewritten(json!({
        "securityContext": {"fsGroup": 2000},
        "containers": [{"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "e", "mountPath": "/e"}]}],
        "volumes": [
            {"name": "v", "configMap": {"name": "c"}},
            {"name": "w", "secret": {"secretName": "s", "defaultMode": 0o400, "items": [{"key": "a", "path": "x/y", "mode": 0o600}]}},
            {"name": "e", "emptyDir": {}},
            {"name": "o", "secret": {"secretName": "none", "optional": true}}],
    }));
    let files: Vec<String> = out.files.iter().map(|file| format!("{file:?} {:?}", file.group)).collect();
    assert_eq!(
        files,
        [
            "/given/u1/volumes/v/a (9 bytes, 644) Some(2000)",
            "/given/u1/volumes/v/b (2 bytes, 644) Some(2000)",
            "/given/u1/volumes/v/no name (1 bytes, 644) Some(2000)",
            "/given/u1/volumes/w/x/y (6 bytes, 640) Some(2000)",
        ]
    );
    assert_eq!(out.files[3].content, b"secret");
    let names: Vec<_> = out.folders.iter().map(|folder| folder.display().to_string()).collect();
    assert_eq!(names, ["/given/u1/volumes/v", "/given/u1/volumes/w", "/given/u1/volumes/o"]);
    let spec = serde_json::to_value(out.pod.spec).unwrap();
    assert_eq!(
        spec["volumes"][0],
        json!({"name": "v", "hostPath": {"path": "/given/u1/volumes/v", "type": "Directory"}})
    );
    assert_eq!(spec["volumes"][2], json!({"name": "e", "emptyDir": {}}));
    let mounts = &spec["containers"][0]["volumeMounts"];
    assert_eq!((&mounts[0]["readOnly"], &mounts[1]["readOnly"]), (&json!(true), &Value::Null));
}

#[test]
fn projected_sources_share_a_folder() {
    let out = rewritten(json!({
        "containers": [],
        "volumes": [{"name": "p", "projected": {"defaultMode": 0o440, "sources": [
            {"configMap": {"name": "c", "items": [{"key": "a", "path": "a"}]}},
            {"secret": {"name": "s", "items": [{"key": "z", "path": "z"}]}},
            {"downwardAPI": {"items": [
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}],
    }));
    let files: Vec<_> = out
        .files
        .iter()
        .map(|f| (f.path.display().to_string(), String::from_utf8_lossy(&f.content).into_owned()))
        .collect();
    let expected = [("a", "$(HOME) 1"), ("z", "z"), ("name", "web"), ("labels", "app=\"x\"\n")];
    assert_eq!(files, expected.map(|(path, text)| (format!("/given/u1/volumes/p/{path}"), text.to_owned())));
    assert!(out.files.iter().all(|file| file.mode == 0o440));
}

#[test]
fn variables_become_plain_values_that_are_not_expanded_again() {
    let found = variables(json!({"containers": [{"name": "a",
        "envFrom": [{"configMapRef": {"name": "c"}}, {"prefix": "S_", "secretRef": {"name": "s"}}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "S_a", "value": "mine"},
            {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "z"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": true}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "X", "value": "$(K)"}]}]}));
    let expected = [
        pair("S_z", "z"),
        pair("a", "$$(HOME) 1"),
        pair("b", "\0\u{1}"),
        pair("S_a", "mine"),
        pair("K", "z"),
        pair("NAME", "web"),
        ("IP".to_owned(), None),
        pair("X", "$(K)"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_missing_or_leads_out_of_the_volume_is_refused_with_its_place() {
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        json!({"containers": [], "volumes": [volume]})
    };
    let cases = [
        (volume(json!({"configMap": {"name": "x"}})), "spec.volumes[0]: configMap `x` not found"),
        (
            volume(json!({"secret": {"secretName": "s", "items": [{"key": "q", "path": "q"}]}})),
            "spec.volumes[0]: key `q` not found",
        ),
        (
            volume(json!({"secret": {"secretName": "s", "items": [{"key": "a", "path": "../q"}]}})),
            "spec.volumes[0]: path `../q` is outside of the volume",
        ),
        (
            json!({"containers": [{"name": "a", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "q"}}}]}]}),
            "spec.containers[0].env[0]: key `q` not found",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(refused(spec), expected);
    }
}

#[test]
fn no_debug_output_shows_a_files_content() {
    let out = rewritten(json!({"containers": [], "volumes": [{"name": "w", "secret": {"secretName": "s"}}]}));
    assert!(!format!("{:?}", out.files).contains("secret\""), "{:?}", out.files);
}
