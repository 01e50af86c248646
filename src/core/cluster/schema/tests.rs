//! The JSON Schema refuses exactly what the loader refuses by shape.
use serde_json::{Value, json};

use super::keys::{Field, Kind, ROOT};
use super::{json_schema, reference, walk};
use crate::cluster::tree::Node;

/// A file with every key.
fn everything() -> Value {
    fn full(kind: &Kind) -> Value {
        match kind {
            Kind::Text | Kind::TextOrList => json!("text"),
            Kind::Number(_) => json!(7),
            Kind::Word(words) => json!(words[0]),
            Kind::Texts => json!(["text"]),
            Kind::Maps(fields) => json!([map(fields)]),
            Kind::Map(fields) => map(fields),
        }
    }
    fn map(fields: &[Field]) -> Value {
        fields.iter().map(|field| (field.name.to_owned(), full(&field.kind))).collect::<serde_json::Map<_, _>>().into()
    }
    map(ROOT)
}

/// The mapping that has the key at `path`, and the key.
fn parent<'a>(file: &'a mut Value, path: &str) -> (&'a mut serde_json::Map<String, Value>, String) {
    let mut parts: Vec<&str> = path.split('.').collect();
    let key = parts.pop().unwrap().to_owned();
    let mut at = file;
    for part in parts {
        at = match part.strip_suffix("[]") {
            Some(list) => &mut at[list][0],
            None => &mut at[part],
        };
    }
    (at.as_object_mut().unwrap(), key)
}

#[test]
fn the_schema_refuses_exactly_what_the_loader_refuses_by_shape() {
    let schema = jsonschema::validator_for(&json_schema()).unwrap();
    let values = [
        json!("text"),
        json!("none"),
        json!("cni"),
        json!(7),
        json!(-1),
        json!(70_000),
        json!(10_000_000_000_u64),
        json!(1.5),
        json!(true),
        json!(null),
        json!([]),
        json!(["text", 7]),
        json!([["text"]]),
        json!([{}]),
        json!({}),
        json!({ "text": "text" }),
    ];
    let (mut accepted, mut refused) = (0, 0);
    let mut compare = |file: &Value, what: &str| {
        let node: Node = serde_yaml::from_str(&file.to_string()).unwrap();
        let problems = walk(&node).problems;
        assert_eq!(schema.is_valid(file), problems.is_empty(), "{what}: {problems:?}");
        if problems.is_empty() { accepted += 1 } else { refused += 1 }
    };
    compare(&everything(), "every key");
    for key in reference() {
        for value in &values {
            let mut file = everything();
            let (parent, name) = parent(&mut file, &key.path);
            parent.insert(name, value.clone());
            compare(&file, &format!("{} is {value}", key.path));
        }
        let mut file = everything();
        let (map, name) = parent(&mut file, &key.path);
        map.remove(&name);
        compare(&file, &format!("{} is missing", key.path));
        let mut file = everything();
        let (map, name) = parent(&mut file, &key.path);
        map.insert(format!("{name}Of"), json!("text"));
        compare(&file, &format!("an unknown key beside {}", key.path));
    }
    assert!(accepted > 150 && refused > 400, "{accepted} files accepted, {refused} refused");
}

#[test]
fn every_key_says_what_it_does() {
    for key in reference() {
        assert!(key.about.ends_with('.') && key.about.len() > 8, "{}: {}", key.path, key.about);
    }
}
