//! The table of keys, key by key, for the reference.
use serde_json::{Value, json};

use super::keys::{Field, Kind, ROOT};
use crate::cluster::Cluster;

/// A key of cluster.yaml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReference {
    /// The whole path: `spec.nodes.min`; `[]` stands for each element of a list.
    pub path: String,
    /// What it contains, in words.
    pub kind: String,
    /// Whether it has to be written where its parent is.
    pub required: bool,
    /// The constant default as YAML; none where there is none.
    pub default: Option<String>,
    /// What it does.
    pub about: &'static str,
    /// Whether other keys are below it.
    pub is_section: bool,
}

/// All keys, parents before their children.
pub fn reference() -> Vec<KeyReference> {
    let mut keys = Vec::new();
    collect(ROOT, "", &defaults(), &mut keys);
    keys
}

/// What an otherwise minimal file is completed with, by key.
pub(super) fn defaults() -> Value {
    let least = json!({
        "apiVersion": "", "kind": "", "metadata": { "name": "" },
        "spec": { "mesos": { "master": "" }, "controlPlane": { "endpoint": "", "hosts": [] } },
    });
    let cluster: Option<Cluster> = serde_json::from_value(least).ok();
    serde_json::to_value(cluster).unwrap_or_default()
}

fn collect(fields: &[Field], parent: &str, defaults: &Value, keys: &mut Vec<KeyReference>) {
    for Field { name, kind, required, about } in fields {
        let path = if parent.is_empty() { (*name).to_owned() } else { format!("{parent}.{name}") };
        let default = &defaults[*name];
        let (words, children) = match kind {
            Kind::Text => ("string".to_owned(), None),
            Kind::Number(limit) => (format!("integer, at most {limit}"), None),
            Kind::Word(words) => (words.join(" or "), None),
            Kind::TextOrList => ("string, or list of strings".to_owned(), None),
            Kind::Texts => ("list of strings".to_owned(), None),
            Kind::Maps(fields) => ("list of mappings".to_owned(), Some((*fields, format!("{path}[]"), &Value::Null))),
            Kind::Map(fields) => ("mapping".to_owned(), Some((*fields, path.clone(), default))),
        };
        let constant = !required && !matches!(kind, Kind::Map(_)) && !default.is_null();
        keys.push(KeyReference {
            path,
            kind: words,
            required: *required,
            default: constant.then(|| default.to_string()),
            about,
            is_section: children.is_some(),
        });
        if let Some((fields, path, defaults)) = children {
            collect(fields, &path, defaults, keys);
        }
    }
}
