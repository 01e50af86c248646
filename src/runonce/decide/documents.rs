//! Parses the documents of a file into pods, configMaps and secrets, and reports all problems at once.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A problem that prevents a file from being run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object and, optionally, the field: `pod web: spec.volumes[0]`.
    pub place: String,
    /// What is wrong with it.
    pub text: String,
}

impl Problem {
    pub fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Problem { place: place.into(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Namespace and name.
pub type Key = (String, String);

/// The objects in a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Pods, in the order of the file.
    pub pods: Vec<Pod>,
    pub config_maps: BTreeMap<Key, ConfigMap>,
    /// Secrets, with `stringData` in `data`.
    pub secrets: BTreeMap<Key, Secret>,
}

/// Namespace (`default` if none is given) and name of an object.
pub fn key_of(metadata: &ObjectMeta) -> Key {
    let namespace = metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
    (namespace.unwrap_or_else(|| "default".to_owned()), metadata.name.clone().unwrap_or_default())
}

/// Parses documents in their order.
pub fn read(documents: Vec<Value>) -> Result<Given, Vec<Problem>> {
    let (mut given, mut problems) = (Given::default(), Vec::new());
    for (index, document) in documents.into_iter().enumerate() {
        if !document.is_null() {
            take(&format!("document {}", index + 1), document, &mut given, &mut problems);
        }
    }
    if given.pods.is_empty() && problems.is_empty() {
        problems.push(Problem::new("the file", "has no Pod"));
    }
    let mut seen = BTreeSet::new();
    for pod in &given.pods {
        let key = key_of(&pod.metadata);
        if !seen.insert(key.clone()) {
            problems.push(Problem::new(format!("pod {}", key.1), format!("duplicate in namespace {}", key.0)));
        }
    }
    if problems.is_empty() { Ok(given) } else { Err(problems) }
}

fn take(place: &str, mut document: Value, given: &mut Given, problems: &mut Vec<Problem>) {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let place = if name.is_empty() { place.to_owned() } else { format!("{} {name}", kind.to_lowercase()) };
    match (version.as_str(), kind.as_str()) {
        ("v1", "List") => {
            let items = document.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            for (index, item) in items.into_iter().enumerate() {
                take(&format!("{place}, item {}", index + 1), item, given, problems);
            }
        }
        ("v1", "Pod") => {
            quote_quantities(&mut document);
            if let Some(pod) = typed::<Pod>(&place, document, problems) {
                named(&place, &pod.metadata, problems);
                given.pods.push(pod);
            }
        }
        ("v1", "ConfigMap") => {
            if let Some(map) = typed::<ConfigMap>(&place, document, problems) {
                named(&place, &map.metadata, problems);
                given.config_maps.insert(key_of(&map.metadata), map);
            }
        }
        ("v1", "Secret") => {
            if let Some(mut secret) = typed::<Secret>(&place, document, problems) {
                named(&place, &secret.metadata, problems);
                let plain = secret.string_data.take().unwrap_or_default();
                let data = secret.data.get_or_insert_default();
                data.extend(plain.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
                given.secrets.insert(key_of(&secret.metadata), secret);
            }
        }
        ("", _) | (_, "") => problems.push(Problem::new(place, "has no apiVersion or no kind")),
        _ => problems.push(Problem::new(
            place,
            format!(
                "{version} {kind} requires an API server and its controllers; supported are Pod, ConfigMap and Secret"
            ),
        )),
    }
}

fn named(place: &str, metadata: &ObjectMeta, problems: &mut Vec<Problem>) {
    match metadata.name.as_deref() {
        Some(name) if is_name(name) => {}
        Some(name) if !name.is_empty() => {
            let text =
                format!("`{name}` is not a name: lower-case letters, digits, `-` and `.`, at most 253 characters");
            problems.push(Problem::new(format!("{place}: metadata.name"), text));
        }
        _ if metadata.generate_name.is_some() => {
            let text = "requires an API server to generate the name; set metadata.name";
            problems.push(Problem::new(format!("{place}: metadata.generateName"), text));
        }
        _ => problems.push(Problem::new(format!("{place}: metadata.name"), "is missing")),
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Parses a document as its type. Keys that the type does not know are problems: a kubelet would ignore them silently.
fn typed<T: DeserializeOwned + Serialize>(place: &str, document: Value, problems: &mut Vec<Problem>) -> Option<T> {
    let object: T = match serde_json::from_value(document.clone()) {
        Ok(object) => object,
        Err(error) => {
            // The value in the error may be a secret's, so only the expectation is reported.
            problems.push(Problem::new(place, told(&error.to_string())));
            return None;
        }
    };
    let known = serde_json::to_value(&object).unwrap_or_default();
    let mut unknown = Vec::new();
    differences("", &document, &known, &mut unknown);
    for path in unknown {
        problems.push(Problem::new(format!("{place}: {path}"), "unknown field"));
    }
    Some(object)
}

/// An error of serde without the value that it contains: `invalid type: string "…", expected …`.
fn told(error: &str) -> String {
    match error.split_once(", expected ") {
        Some((_, expected)) => format!("invalid value: expected {expected}"),
        None => error.to_owned(),
    }
}

fn differences(path: &str, written: &Value, known: &Value, found: &mut Vec<String>) {
    match (written, known) {
        (Value::Object(written), _) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match known.get(key) {
                    Some(known) => differences(&below, value, known, found),
                    // An empty list or mapping may be omitted when it is serialized again.
                    None if is_empty(value) => {}
                    None => found.push(below),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            for (index, (value, known)) in written.iter().zip(known).enumerate() {
                differences(&format!("{path}[{index}]"), value, known, found);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// `cpu: 1` is a number in YAML and a quantity to kubectl.
fn quote_quantities(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let single = key == "sizeLimit" || key == "divisor";
                let several = matches!(key.as_str(), "requests" | "limits" | "overhead");
                if single && value.is_number() {
                    *value = Value::from(value.to_string());
                } else if let (true, Value::Object(amounts)) = (several, &mut *value) {
                    for amount in amounts.values_mut().filter(|amount| amount.is_number()) {
                        *amount = Value::from(amount.to_string());
                    }
                } else {
                    quote_quantities(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(quote_quantities),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})
    }

    fn problems(documents: Vec<Value>) -> Vec<String> {
        read(documents).err().unwrap_or_default().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn several_documents_and_lists_are_read_in_order_and_string_data_becomes_data() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
            "data": {"a": "YQ=="}, "stringData": {"b": "b"}});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [map]});
        let given = read(vec![secret, Value::Null, list, pod(json!({"containers": [{"name": "a"}]}))]).unwrap();
        assert_eq!(given.pods.len(), 1);
        assert!(given.config_maps.contains_key(&("n".to_owned(), "c".to_owned())));
        let secret = &given.secrets[&("default".to_owned(), "s".to_owned())];
        let data: Vec<_> = secret.data.as_ref().unwrap().iter().map(|(key, value)| (key.as_str(), &value.0)).collect();
        assert_eq!(data, [("a", &b"a".to_vec()), ("b", &b"b".to_vec())]);
    }

    #[test]
    fn numbers_are_taken_as_quantities() {
        let given = read(vec![pod(
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": 1, "memory": "1Mi"}}}]}),
        )]);
        let spec = given.unwrap().pods[0].spec.clone().unwrap();
        let requests = spec.containers[0].resources.clone().unwrap().requests.unwrap();
        assert_eq!(requests["cpu"].0, "1");
    }

    #[test]
    fn what_does_not_run_here_is_refused_by_name() {
        let cases = [
            (
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}),
                "deployment d: apps/v1 Deployment requires an API server",
            ),
            (json!({"kind": "Pod"}), "document 1: has no apiVersion"),
            (
                json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}}),
                "document 1: metadata.name: is missing",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A_b"}, "spec": {"containers": []}}),
                "pod A_b: metadata.name: `A_b` is not a name",
            ),
            (
                pod(json!({"containers": [{"name": "a", "imag": "b", "env": []}]})),
                "pod web: spec.containers[0].imag: unknown field",
            ),
            (
                pod(json!({"containers": [{"name": "a", "env": [{"name": "b", "value": 1}]}]})),
                "pod web: invalid value: expected a string",
            ),
        ];
        for (document, expected) in cases {
            let told = problems(vec![document]);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?} for {expected}");
        }
        assert_eq!(problems(vec![]), ["the file: has no Pod"]);
        let twice = pod(json!({"containers": []}));
        assert_eq!(problems(vec![twice.clone(), twice]), ["pod web: duplicate in namespace default"]);
    }

    #[test]
    fn no_problem_shows_a_secrets_value() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": ["hunter2"]});
        let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "hunter2!"}});
        for document in [secret, wrong] {
            let told = problems(vec![document]);
            assert!(!told.is_empty() && !told.join(" ").contains("hunter2"), "{told:?}");
        }
    }
}
