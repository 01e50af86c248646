//! Objects in the API: compared with the live objects, and changed by server-side apply.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::http::Http;
use super::material::{self, Access};
use kmctl_core::k8s::names;
use kmctl_core::protocol::host::Observed;
use kmctl_core::protocol::host::{ADMIN, ObjectSpec};
use kmctl_core::protocol::host::{Change, Event};

/// Owner of the fields in server-side apply.
const FIELD_MANAGER: &str = "kmctl";

struct Api {
    http: Http,
    access: Access,
}

impl Api {
    fn open(root: &Root, kubeconfig: &str) -> Result<Option<Self>, AgentError> {
        let Some(access) = material::access(root, kubeconfig)? else { return Ok(None) };
        Ok(Some(Api { http: Http::with_access(&access)?, access }))
    }

    fn get(&self, path: &str) -> Result<Option<Value>, String> {
        match self.http.request(Method::GET, &format!("{}{path}", self.access.server), None)? {
            (200, body) => serde_json::from_str(&body).map(Some).map_err(|error| error.to_string()),
            (404, _) => Ok(None),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }

    fn merge(&self, path: &str, patch: &Value) -> Result<(), String> {
        let body = serde_json::to_vec(patch).map_err(|error| error.to_string())?;
        let url = format!("{}{path}", self.access.server);
        match self.http.request(Method::PATCH, &url, Some(("application/merge-patch+json", body)))? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }

    fn apply(&self, path: &str, object: &Value) -> Result<(), String> {
        let url = format!("{}{path}?fieldManager={FIELD_MANAGER}&force=true", self.access.server);
        let body = serde_json::to_vec(object).map_err(|error| error.to_string())?;
        match self.http.request(Method::PATCH, &url, Some(("application/apply-patch+yaml", body)))? {
            (200 | 201, _) => Ok(()),
            (status, body) => Err(format!("status {status}: {}", message(&body))),
        }
    }
}

/// The message in an API server's Status object.
fn message(body: &str) -> String {
    serde_json::from_str::<Value>(body)
        .ok()
        .and_then(|status| status["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| body.trim().to_owned())
}

/// Compares all objects; names those that are missing or differ.
pub(crate) fn observe(root: &Root, kubeconfig: &str, objects: &[ObjectSpec]) -> Result<Observed, AgentError> {
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
pub(crate) fn apply(root: &Root, kubeconfig: &str, objects: &[ObjectSpec]) -> Result<usize, AgentError> {
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

/// How long draining the nodes and sweeping the agents may take.
const PURGE: Duration = Duration::from_secs(600);

/// Sets the live setting that makes km scheduler stop every node and sweep every agent that ever had one, and waits
/// until the scheduler reports that it is done.
pub(crate) fn purge_nodes(root: &Root, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let item = "nodes and what they left on agents".to_owned();
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", names::NAMESPACE, names::SETTINGS_CONFIG_MAP);
    let failed = |answer| AgentError::Object { object: "ConfigMap kmctl-settings".to_owned(), answer };
    let Some(api) = Api::open(root, ADMIN)? else {
        return Err(AgentError::Refused(format!("{ADMIN} cannot be read")));
    };
    reporter.send(&Event::Started { item: item.clone() })?;
    api.merge(&path, &json!({"data": {"purge": "true", names::UNCLEANED_KEY: null}})).map_err(failed)?;
    let started = Instant::now();
    let mut told = Instant::now();
    loop {
        let settings = api.get(&path).map_err(failed)?.unwrap_or_default();
        if settings["data"]["purge"] == "done" {
            let remains = uncleaned(&settings);
            if remains.is_empty() {
                return reporter.done(item, Change::Removed);
            }
            return reporter.send(&Event::Incomplete { item, remains });
        }
        let seconds = started.elapsed().as_secs();
        if started.elapsed() >= PURGE {
            let last = "km scheduler has not finished".to_owned();
            return Err(AgentError::Unhealthy { what: item, seconds, last });
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            reporter.send(&Event::Waiting {
                item: item.clone(),
                seconds,
                last: "nodes end, agents are swept".to_owned(),
            })?;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Agents that the purge could not clean. A scheduler of an older release names none.
fn uncleaned(settings: &Value) -> Vec<String> {
    let text = settings["data"][names::UNCLEANED_KEY].as_str().unwrap_or_default();
    let agents: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    agents.into_iter().map(|(agent, why)| format!("agent {agent} is not cleaned: {why}")).collect()
}

/// Removes the setting after a drain, so that a cluster that is started again has nodes.
pub(crate) fn forget_purge(root: &Root) -> Result<(), AgentError> {
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", names::NAMESPACE, names::SETTINGS_CONFIG_MAP);
    let failed = |answer| AgentError::Object { object: "ConfigMap kmctl-settings".to_owned(), answer };
    let Some(api) = Api::open(root, ADMIN)? else {
        return Err(AgentError::Refused(format!("{ADMIN} cannot be read")));
    };
    api.merge(&path, &json!({"data": {"purge": null, names::UNCLEANED_KEY: null}})).map_err(failed)
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
    fn agents_that_a_purge_could_not_clean_are_named() {
        let settings =
            json!({"data": {"purge": "done", "uncleaned": r#"{"a1 (S1)": "it made no offer within 300s"}"#}});
        assert_eq!(uncleaned(&settings), ["agent a1 (S1) is not cleaned: it made no offer within 300s"]);
        for none in [json!({"data": {"purge": "done"}}), json!({"data": {"purge": "done", "uncleaned": "{}"}})] {
            assert!(uncleaned(&none).is_empty(), "{none}");
        }
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
