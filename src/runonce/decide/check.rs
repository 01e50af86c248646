//! Finds what in a pod needs an API server or a scheduler, and reports it by name before anything starts.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, ResourceRequirements, Secret, Volume};

use super::documents::{Given, Key, Problem, key_of};
use super::rewrite::{References, references};
use kmctl_core::model::requests::GRANTED;

/// Everything that prevents the file's pods from running without an API server.
pub fn check(given: &Given) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pod in &given.pods {
        let place = format!("pod {}", pod.metadata.name.as_deref().unwrap_or_default());
        let Some(spec) = &pod.spec else {
            problems.push(Problem::new(place, "has no spec"));
            continue;
        };
        let mut found = Vec::new();
        whole(pod, spec, &mut found);
        ungranted("spec.resources", spec.resources.as_ref(), &mut found);
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            if let Some(text) = unfit_volume(volume) {
                found.push((format!("spec.volumes[{index}] ({})", volume.name), text));
            }
        }
        for (list, containers) in
            [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&spec.containers[..]))]
        {
            for (index, container) in containers.into_iter().flatten().enumerate() {
                unfit_container(&format!("spec.{list}[{index}]"), list, container, &mut found);
            }
        }
        missing(pod, given, &mut found);
        problems.extend(found.into_iter().map(|(field, text)| Problem::new(format!("{place}: {field}"), text)));
    }
    problems
}

type Found = Vec<(String, String)>;

fn whole(pod: &Pod, spec: &PodSpec, found: &mut Found) {
    let mut refuse = |present: bool, field: &str, why: &str| {
        if present {
            found.push((field.to_owned(), why.to_owned()));
        }
    };
    let filled = |list: usize| list > 0;
    let some = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    refuse(spec.containers.is_empty(), "spec.containers", "is empty");
    refuse(
        pod.metadata.owner_references.as_ref().is_some_and(|owners| filled(owners.len())),
        "metadata.ownerReferences",
        "requires an API server: owners are API objects",
    );
    let account = spec.service_account_name.as_ref().or(spec.service_account.as_ref());
    refuse(
        account.is_some_and(|name| !name.is_empty() && name != "default"),
        "spec.serviceAccountName",
        "requires an API server: runonce has no service accounts and tokens",
    );
    refuse(
        spec.automount_service_account_token == Some(true),
        "spec.automountServiceAccountToken",
        "requires an API server, which issues the token",
    );
    refuse(
        spec.image_pull_secrets.as_ref().is_some_and(|names| filled(names.len())),
        "spec.imagePullSecrets",
        "requires an API server",
    );
    refuse(some(&spec.priority_class_name), "spec.priorityClassName", "requires an API server, which has the class");
    refuse(some(&spec.runtime_class_name), "spec.runtimeClassName", "requires an API server, which has the class");
    refuse(
        spec.ephemeral_containers.as_ref().is_some_and(|all| filled(all.len())),
        "spec.ephemeralContainers",
        "requires an API server",
    );
    refuse(
        spec.resource_claims.as_ref().is_some_and(|all| filled(all.len())),
        "spec.resourceClaims",
        "requires an API server and its controllers",
    );
    refuse(
        spec.scheduling_gates.as_ref().is_some_and(|all| filled(all.len())),
        "spec.schedulingGates",
        "requires an API server, where controllers remove the gates",
    );
    refuse(
        spec.readiness_gates.as_ref().is_some_and(|all| filled(all.len())),
        "spec.readinessGates",
        "requires an API server, where controllers set the condition",
    );
    refuse(some(&spec.node_name), "spec.nodeName", "requires an API server: runonce has no Nodes (see --host)");
    refuse(
        spec.node_selector.as_ref().is_some_and(|all| filled(all.len())),
        "spec.nodeSelector",
        "requires an API server: runonce has no Nodes with labels (see nodes.constraints)",
    );
    let affinity = spec.affinity.as_ref();
    let node = affinity.and_then(|all| all.node_affinity.as_ref());
    refuse(
        node.is_some_and(|rule| rule.required_during_scheduling_ignored_during_execution.is_some()),
        "spec.affinity.nodeAffinity",
        "requires an API server: runonce has no Nodes with labels (see nodes.constraints)",
    );
    let near = affinity.and_then(|all| all.pod_affinity.as_ref());
    refuse(
        near.is_some_and(|rule| rule.required_during_scheduling_ignored_during_execution.is_some()),
        "spec.affinity.podAffinity",
        "requires an API server, which has the other pods",
    );
    let apart = affinity.and_then(|all| all.pod_anti_affinity.as_ref());
    refuse(
        apart.is_some_and(|rule| rule.required_during_scheduling_ignored_during_execution.is_some()),
        "spec.affinity.podAntiAffinity",
        "requires an API server, which has the other pods",
    );
    let spread = spec.topology_spread_constraints.iter().flatten();
    refuse(
        spread.clone().any(|rule| rule.when_unsatisfiable == "DoNotSchedule"),
        "spec.topologySpreadConstraints",
        "requires an API server, which has the other pods",
    );
    let scheduler = spec.scheduler_name.as_deref();
    refuse(
        scheduler.is_some_and(|name| !name.is_empty() && name != "default-scheduler"),
        "spec.schedulerName",
        "requires an API server for that scheduler",
    );
}

/// Why a volume is not available. The kinds that work are listed, because every new kind needs another controller.
fn unfit_volume(volume: &Volume) -> Option<String> {
    let Volume {
        name: _,
        empty_dir,
        host_path,
        config_map,
        secret,
        downward_api,
        projected,
        persistent_volume_claim,
        ..
    } = volume;
    if persistent_volume_claim.is_some() {
        return Some("persistentVolumeClaim requires an API server for the claim".to_owned());
    }
    if let Some(projected) = projected {
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            let place = format!("projected.sources[{index}]");
            if source.service_account_token.is_some() {
                return Some(format!("{place}.serviceAccountToken requires an API server, which issues the token"));
            }
            if source.cluster_trust_bundle.is_some() {
                return Some(format!("{place} requires an API server, which has its content"));
            }
            let files = source.downward_api.iter().flat_map(|all| all.items.iter().flatten());
            if files.clone().any(|file| file.resource_field_ref.is_some()) {
                return Some(format!("{place}: resourceFieldRef is supported only in downwardAPI volumes"));
            }
        }
        return None;
    }
    let known = empty_dir.is_some()
        || host_path.is_some()
        || config_map.is_some()
        || secret.is_some()
        || downward_api.is_some();
    // A volume without any source is an emptyDir.
    let kind = serde_json::to_value(volume).ok()?.as_object()?.keys().find(|key| *key != "name")?.clone();
    (!known).then(|| {
        format!(
            "{kind} requires an API server or its controllers; supported are emptyDir, hostPath, \
        configMap, secret, downwardAPI and projected"
        )
    })
}

fn unfit_container(place: &str, list: &str, container: &Container, found: &mut Found) {
    if container.image.as_deref().unwrap_or_default().is_empty() {
        found.push((format!("{place}.image"), "is missing".to_owned()));
    }
    if list == "initContainers" && container.restart_policy.as_deref() == Some("Always") {
        let why = "never completes; use a container, or let it complete";
        found.push((format!("{place}.restartPolicy"), why.to_owned()));
    }
    let resources = container.resources.as_ref();
    if resources.and_then(|all| all.claims.as_ref()).is_some_and(|claims| !claims.is_empty()) {
        found.push((format!("{place}.resources.claims"), "requires an API server and its controllers".to_owned()));
    }
    ungranted(&format!("{place}.resources"), resources, found);
}

fn ungranted(place: &str, resources: Option<&ResourceRequirements>, found: &mut Found) {
    let amounts = resources.into_iter().flat_map(|all| [&all.requests, &all.limits]).flatten().flat_map(BTreeMap::keys);
    for name in amounts.filter(|name| !GRANTED.contains(&name.as_str())) {
        found.push((
            place.to_owned(),
            format!("{name} is not supported; supported are cpu, memory and ephemeral-storage"),
        ));
    }
}

/// ConfigMaps and secrets that are referenced but not given, and keys that they lack.
fn missing(pod: &Pod, given: &Given, found: &mut Found) {
    let Some(spec) = &pod.spec else { return };
    let (namespace, _) = key_of(&pod.metadata);
    for reference in references(spec) {
        let References { place, secret, name, keys, optional } = reference;
        if optional {
            continue;
        }
        let key: Key = (namespace.clone(), name.clone());
        let kind = if secret { "secret" } else { "configMap" };
        let known: Option<Vec<&String>> = if secret {
            given.secrets.get(&key).map(secret_keys)
        } else {
            given.config_maps.get(&key).map(config_map_keys)
        };
        match known {
            None => found.push((place, format!("{kind} `{name}` is not in the file (namespace {namespace})"))),
            Some(known) => {
                for key in keys.iter().filter(|key| !known.contains(key)) {
                    found.push((place.clone(), format!("{kind} `{name}` has no key `{key}`")));
                }
            }
        }
    }
}

fn secret_keys(secret: &Secret) -> Vec<&String> {
    secret.data.iter().flat_map(BTreeMap::keys).collect()
}

fn config_map_keys(map: &ConfigMap) -> Vec<&String> {
    map.data.iter().flat_map(BTreeMap::keys).chain(map.binary_data.iter().flat_map(BTreeMap::keys)).collect()
}

/// Pods that would run indefinitely. They run as if they had `restartPolicy: Never`.
pub fn never_instead_of_always(given: &Given) -> Vec<String> {
    let always = |pod: &&Pod| {
        let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        policy.is_none_or(|policy| policy == "Always")
    };
    given.pods.iter().filter(always).map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::documents;
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"b": "2"}});
        check(&documents::read(vec![pod, map, secret]).unwrap()).iter().map(Problem::to_string).collect()
    }

    fn with(more: Value) -> Value {
        let mut spec = json!({"containers": [{"name": "a", "image": "i"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn what_needs_an_api_server_is_refused_by_name() {
        let cases = [
            (json!({"serviceAccountName": "robot"}), "spec.serviceAccountName"),
            (json!({"automountServiceAccountToken": true}), "spec.automountServiceAccountToken"),
            (json!({"imagePullSecrets": [{"name": "x"}]}), "spec.imagePullSecrets"),
            (json!({"priorityClassName": "high"}), "spec.priorityClassName"),
            (json!({"runtimeClassName": "gvisor"}), "spec.runtimeClassName"),
            (json!({"nodeName": "n1"}), "spec.nodeName"),
            (json!({"nodeSelector": {"a": "b"}}), "spec.nodeSelector"),
            (json!({"schedulingGates": [{"name": "g"}]}), "spec.schedulingGates"),
            (json!({"readinessGates": [{"conditionType": "g"}]}), "spec.readinessGates"),
            (json!({"schedulerName": "mine"}), "spec.schedulerName"),
            (
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
                "spec.affinity.nodeAffinity",
            ),
            (
                json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}}),
                "spec.affinity.podAntiAffinity",
            ),
            (
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
                "spec.topologySpreadConstraints",
            ),
            (
                json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}),
                "spec.volumes[0] (v): persistentVolumeClaim",
            ),
            (json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]}), "spec.volumes[0] (v): nfs"),
            (json!({"volumes": [{"name": "v", "csi": {"driver": "d"}}]}), "spec.volumes[0] (v): csi"),
            (
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
                "spec.volumes[0] (v): projected.sources[0].serviceAccountToken",
            ),
            (
                json!({"volumes": [{"name": "v", "configMap": {"name": "x"}}]}),
                "spec.volumes[0]: configMap `x` is not in the file",
            ),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "z", "path": "p"}]}}]}),
                "spec.volumes[0]: secret `s` has no key `z`",
            ),
            (
                json!({"containers": [{"name": "a", "image": "i", "envFrom": [{"secretRef": {"name": "x"}}]}]}),
                "spec.containers[0].envFrom[0]: secret `x` is not in the file",
            ),
            (
                json!({"containers": [{"name": "a", "image": "i", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "z"}}}]}]}),
                "spec.containers[0].env[0]: configMap `c` has no key `z`",
            ),
            (json!({"containers": [{"name": "a"}]}), "spec.containers[0].image: is missing"),
            (
                json!({"containers": [{"name": "a", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}),
                "spec.containers[0].resources: nvidia.com/gpu",
            ),
            (json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}), "spec.resources: hugepages-2Mi"),
            (
                json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}]}),
                "spec.initContainers[0].restartPolicy",
            ),
        ];
        for (more, expected) in cases {
            let told = problems(with(more));
            assert!(told.len() == 1 && told[0].starts_with(&format!("pod web: {expected}")), "{told:?} for {expected}");
        }
    }

    #[test]
    fn what_a_kubelet_does_alone_is_accepted() {
        let spec = with(json!({
            "serviceAccountName": "default", "hostNetwork": true, "restartPolicy": "OnFailure",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "initContainers": [{"name": "i", "image": "i"}],
            "volumes": [
                {"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {"path": "/x"}}, {"name": "c", "configMap": {"name": "c"}},
                {"name": "d", "secret": {"secretName": "s"}}, {"name": "e", "configMap": {"name": "none", "optional": true}},
                {"name": "f", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}},
                {"name": "g", "downwardAPI": {"items": []}}, {"name": "h"}]}));
        assert_eq!(problems(spec), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_told_at_once() {
        assert_eq!(
            problems(with(
                json!({"nodeName": "n1", "priorityClassName": "p", "volumes": [{"name": "v", "csi": {"driver": "d"}}]})
            ))
            .len(),
            3
        );
    }

    #[test]
    fn pods_that_would_run_for_ever_are_named() {
        let pod = |name: &str, policy: Value| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [], "restartPolicy": policy}})
        };
        let given = documents::read(vec![
            pod("a", json!("Never")),
            pod("b", json!("Always")),
            pod("c", Value::Null),
            pod("d", json!("OnFailure")),
        ]);
        assert_eq!(never_instead_of_always(&given.unwrap()), ["b", "c"]);
    }
}
