//! Objects in the API: compared with the live objects, and changed by server-side apply.
use serde_json::{Value, json};

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::api::Api;
use crate::host::files::Root;
use kmctl_core::k8s::names;
use kmctl_core::protocol::host::{Change, HostMark, ObjectSpec, ObjectsSpec, Observed};

/// Where km scheduler keeps its framework's id on the host.
const FRAMEWORK_ID: &str = "/var/lib/kmctl/scheduler/framework-id";

impl OnHost for ObjectsSpec {
    /// In a private root there is no API server.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        if host.root.is_host() { compare(host.root, &self.kubeconfig, &self.objects) } else { Ok(Observed::Same) }
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        if !run.host.root.is_host() {
            return Ok(Change::Unchanged);
        }
        claim_cluster(run.host.root, &self.kubeconfig, &run.header.mark.mark, run.header.etcd.begin_anew)?;
        let changed = write(run.host.root, &self.kubeconfig, &self.objects)?;
        Ok(if changed > 0 { Change::Updated } else { Change::Unchanged })
    }
}

/// Compares all objects; names those that are missing or differ.
fn compare(root: &Root, kubeconfig: &str, objects: &[ObjectSpec]) -> Result<Observed, AgentError> {
    let Some(api) = Api::open(root, kubeconfig)? else { return Ok(Observed::Missing) };
    let (mut why, mut what) = (Vec::new(), Vec::new());
    for spec in objects {
        match api.get(&path_of(&spec.object)?) {
            Ok(None) => why.push(format!("{} is missing", name_of(&spec.object))),
            Ok(Some(live)) if spec.keep => what.extend(kept(&live, &spec.object)),
            Ok(Some(live)) if holds(&live, &spec.object) => {}
            Ok(Some(_)) => why.push(format!("{} differs", name_of(&spec.object))),
            Err(error) => return Ok(Observed::Unknown { why: error }),
        }
    }
    Ok(if why.is_empty() && !what.is_empty() { Observed::Kept { what } } else { Observed::from_problems(why) })
}

/// Live values of a kept object that differ from the wanted ones: `min 3 (cluster.yaml: 0)`.
fn kept(live: &Value, wanted: &Value) -> Vec<String> {
    let data = wanted["data"].as_object().into_iter().flatten();
    data.filter_map(|(key, wanted)| {
        let live = live["data"].get(key).and_then(Value::as_str)?;
        let wanted = wanted.as_str().filter(|wanted| *wanted != live)?;
        Some(format!("{key} {live} (cluster.yaml: {wanted})"))
    })
    .collect()
}

/// Applies the objects that are missing or differ; returns their number.
fn write(root: &Root, kubeconfig: &str, objects: &[ObjectSpec]) -> Result<usize, AgentError> {
    let Some(api) = Api::open(root, kubeconfig)? else {
        return Err(AgentError::Refused(format!("{kubeconfig} cannot be read")));
    };
    let mut changed = 0;
    for spec in objects {
        let failed = |answer| AgentError::Object { object: name_of(&spec.object), answer };
        let path = path_of(&spec.object)?;
        match api.get(&path).map_err(failed)? {
            Some(live) if spec.keep || holds(&live, &spec.object) => continue,
            _ => api.apply(&path, &spec.object).map_err(failed)?,
        }
        changed += 1;
    }
    Ok(changed)
}

/// Keeps the cluster's id in the API as well, so that an API server with another store is noticed.
///
/// A store that knows nothing of the framework that this host knows is empty or older. Only a bootstrap that the operator
/// has asked for takes it; the framework's id is then stored again, so that km scheduler ends what is left of the old cluster.
///
/// # Errors
/// The API server serves another cluster, or an empty store.
fn claim_cluster(root: &Root, kubeconfig: &str, mark: &HostMark, begin_anew: bool) -> Result<(), AgentError> {
    let Some(api) = Api::open(root, kubeconfig)? else { return Ok(()) };
    let name = names::CLUSTER_CONFIG_MAP;
    let path = format!("/api/v1/namespaces/{}/configmaps/{name}", names::NAMESPACE);
    let failed = |answer| AgentError::Object { object: format!("ConfigMap {name}"), answer };
    if let Some(live) = api.get(&path).map_err(failed)? {
        return match live["data"]["id"].as_str() {
            Some(id) if id == mark.id => Ok(()),
            id => Err(AgentError::Refused(format!(
                "the API server serves the cluster with the id {}, and this host belongs to {}",
                id.unwrap_or("(none)"),
                mark.id
            ))),
        };
    }
    if let Some(framework) = root.text(FRAMEWORK_ID)?.map(|text| text.trim().to_owned()).filter(|id| !id.is_empty()) {
        let map = names::FRAMEWORK_CONFIG_MAP;
        let path = format!("/api/v1/namespaces/{}/configmaps/{map}", names::NAMESPACE);
        let live = api.get(&path).map_err(failed)?;
        let known = live.is_some_and(|live| live["data"]["id"].is_string());
        if !known && !begin_anew {
            return Err(AgentError::Refused(format!(
                "the API server's store is empty or older: it has no record of framework {framework}, which this host knows"
            )));
        }
        if !known {
            let object = config_map(map, &json!({"id": framework}));
            api.apply(&path, &object).map_err(failed)?;
        }
    }
    let object = config_map(name, &json!({"name": mark.cluster, "id": mark.id}));
    api.apply(&path, &object).map_err(failed)
}

fn config_map(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": names::NAMESPACE}, "data": data,
    })
}

/// Kind and name, e.g. `ClusterRole km-scheduler`.
fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The object's path in the API.
fn path_of(object: &Value) -> Result<String, AgentError> {
    let (version, kind) =
        (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    // The few kinds that the templates use. Add a new kind here together with its template.
    let plural = match kind {
        "ClusterRole" => "clusterroles",
        "ClusterRoleBinding" => "clusterrolebindings",
        "ConfigMap" => "configmaps",
        "Role" => "roles",
        "RoleBinding" => "rolebindings",
        "ServiceAccount" => "serviceaccounts",
        "Namespace" => "namespaces",
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
        _ => return Err(AgentError::Refused(format!("objects of kind `{kind}` are not known to km host"))),
    };
    let prefix = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{prefix}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{prefix}/{plural}/{name}"),
    })
}

/// Whether the live object contains everything that is wanted; additional fields do not matter.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| live.get(key).is_some_and(|live| holds(live, wanted)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| holds(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_server_adds_is_no_difference_and_what_it_lacks_is() {
        let wanted = json!({"kind": "Role", "rules": [{"verbs": ["get"]}]});
        assert!(holds(
            &json!({"kind": "Role", "metadata": {"uid": "1"}, "rules": [{"verbs": ["get"], "x": 1}]}),
            &wanted
        ));
        assert!(!holds(&json!({"kind": "Role", "rules": [{"verbs": ["get", "list"]}]}), &wanted));
        assert!(!holds(&json!({"kind": "Role"}), &wanted));
    }

    #[test]
    fn live_values_that_are_kept_are_told_where_they_differ() {
        let wanted = json!({"data": {"min": "0", "max": "none"}});
        assert_eq!(
            kept(&json!({"data": {"min": "3", "max": "3", "purge": "done"}}), &wanted),
            ["max 3 (cluster.yaml: none)", "min 3 (cluster.yaml: 0)"]
        );
        assert!(kept(&json!({"data": {"min": "0", "max": "none"}}), &wanted).is_empty());
        assert!(kept(&json!({"data": {"min": "0"}}), &wanted).is_empty(), "what is not set is as in cluster.yaml");
    }

    #[test]
    fn addresses_follow_version_kind_and_namespace() {
        let path = |object| path_of(&object).unwrap();
        assert_eq!(
            path(
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a:b"}})
            ),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/a:b"
        );
        assert_eq!(
            path(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "kube-system"}})
            ),
            "/api/v1/namespaces/kube-system/configmaps/a"
        );
        for (kind, plural) in [
            ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
            ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
        ] {
            let version = "admissionregistration.k8s.io/v1";
            let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
            assert_eq!(path(object), format!("/apis/{version}/{plural}/a"));
        }
        assert!(path_of(&json!({"apiVersion": "v1", "kind": "Gadget"})).is_err());
    }
}
