//! The table of keys as a JSON Schema, for editors and for checks before a commit.
use serde_json::{Map, Value, json};

use super::keys::{Field, Kind, ROOT};
use super::reference::defaults;

/// The schema of cluster.yaml (JSON Schema, draft 2020-12). It refuses what the loader refuses by shape: unknown keys, missing
/// keys, values of a wrong type. What depends on several keys or on the files they name is left to the loader.
pub fn json_schema() -> Value {
    let mut schema = object(ROOT, &defaults());
    let about = [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("title", "cluster.yaml"),
        ("description", "A Kubernetes cluster on Apache Mesos, as kmctl reads it."),
    ];
    if let Value::Object(entries) = &mut schema {
        entries.extend(about.map(|(key, text)| (key.to_owned(), json!(text))));
    }
    schema
}

fn object(fields: &[Field], defaults: &Value) -> Value {
    let property = |field: &Field| {
        let default = &defaults[field.name];
        let mut schema = of(&field.kind, default);
        if let Value::Object(entries) = &mut schema {
            entries.insert("description".to_owned(), json!(field.about));
            // An example of what has to be written is no default.
            if !field.required && !matches!(field.kind, Kind::Map(_)) && !default.is_null() {
                entries.insert("default".to_owned(), default.clone());
            }
        }
        (field.name.to_owned(), schema)
    };
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    // A key without a value is an empty mapping.
    let kind = if required.is_empty() { json!(["object", "null"]) } else { json!("object") };
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    let mut schema = json!({ "type": kind, "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn of(kind: &Kind, defaults: &Value) -> Value {
    // The loader takes `1.37` and `true` as texts, too: YAML decides by their look.
    let text = json!({ "type": ["string", "number", "boolean"] });
    match kind {
        Kind::Text => text,
        Kind::Number(limit) => json!({ "type": "integer", "minimum": 0, "maximum": limit }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Texts => json!({ "type": "array", "items": text }),
        Kind::TextOrList => {
            json!({ "type": ["string", "number", "boolean", "array"], "items": text })
        }
        Kind::Maps(fields) => json!({ "type": "array", "items": object(fields, &Value::Null) }),
        Kind::Map(fields) => object(fields, defaults),
    }
}
