//! Compares a file with the table of keys and collects every problem. The types in `spec` tell serde the same, but serde stops
//! at the first problem and suggests no similar key.
use serde_json::json;

use super::keys::{Field, Kind, ROOT};
use crate::cluster::problem::Problem;
use crate::cluster::tree::{Node, Value};

/// A file without what does not match the table and with placeholders for what is missing, so that the rest of it can still be
/// checked.
pub(in crate::cluster) struct Walked {
    pub(in crate::cluster) problems: Vec<Problem>,
    pub(in crate::cluster) remainder: serde_json::Value,
}

/// Compares a file with the table.
pub(in crate::cluster) fn walk(root: &Node) -> Walked {
    let mut problems = Vec::new();
    let remainder = map(ROOT, root, "", &mut problems);
    Walked { problems, remainder }
}

fn below(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

fn report(node: &Node, key: &str, text: String, problems: &mut Vec<Problem>) {
    problems.push(Problem { place: Some(node.place), key: key.to_owned(), text });
}

fn map(fields: &'static [Field], node: &Node, key: &str, problems: &mut Vec<Problem>) -> serde_json::Value {
    let mut result = serde_json::Map::new();
    let nothing = Vec::new();
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Nothing => &nothing,
        other => {
            report(node, key, format!("must be a mapping, not {}", other.called()), problems);
            return empty(&Kind::Map(fields));
        }
    };
    for (place, name, value) in entries {
        match fields.iter().find(|field| field.name == name) {
            Some(field) => {
                if let Some(value) = fit(&field.kind, value, &below(key, name), problems) {
                    result.insert(name.clone(), value);
                }
            }
            None => {
                let text = format!("unknown key{}", advice(fields, key, name));
                problems.push(Problem { place: Some(*place), key: below(key, name), text });
            }
        }
    }
    for field in fields.iter().filter(|field| field.required) {
        if !entries.iter().any(|(_, name, _)| name == field.name) {
            report(node, &below(key, field.name), "is missing".to_owned(), problems);
        }
        result.entry(field.name).or_insert_with(|| empty(&field.kind));
    }
    result.into()
}

/// The value as serde wants it, or nothing where it does not fit.
fn fit(kind: &'static Kind, node: &Node, key: &str, problems: &mut Vec<Problem>) -> Option<serde_json::Value> {
    let mut wrong = |wanted: &str| {
        report(node, key, format!("must be {wanted}, not {}", node.value.called()), problems);
        None
    };
    match (kind, &node.value) {
        (Kind::Map(fields), _) => Some(map(fields, node, key, problems)),
        (Kind::Maps(fields), Value::List(items)) => {
            let item = |(index, item)| map(fields, item, &format!("{key}[{index}]"), problems);
            Some(items.iter().enumerate().map(item).collect())
        }
        (Kind::Texts | Kind::TextOrList, Value::List(items)) => {
            let item = |(index, item)| fit(&Kind::Text, item, &format!("{key}[{index}]"), problems);
            Some(items.iter().enumerate().filter_map(item).collect())
        }
        (Kind::Text | Kind::TextOrList, Value::Text(text)) => Some(json!(text)),
        (Kind::Text | Kind::TextOrList, Value::Number(number)) => Some(json!(number.to_string())),
        (Kind::Text | Kind::TextOrList, Value::Truth(truth)) => Some(json!(truth.to_string())),
        (Kind::Number(limit), Value::Number(number)) => match number.as_u64() {
            Some(value) if value <= *limit => Some(json!(value)),
            _ => {
                report(node, key, format!("must be an integer from 0 to {limit}, not {number}"), problems);
                None
            }
        },
        (Kind::Word(words), Value::Text(text)) if words.contains(&text.as_str()) => Some(json!(text)),
        (Kind::Word(words), Value::Text(text)) => {
            let nearest = nearest(text, words.iter().copied());
            let meant = nearest.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
            report(node, key, format!("must be one of {}, not `{text}`{meant}", words.join(", ")), problems);
            None
        }
        (Kind::Text, Value::Nothing) => wrong("a string (`\"\"` for none)"),
        (Kind::Text, _) => wrong("a string"),
        (Kind::TextOrList, _) => wrong("a string or a list of strings"),
        (Kind::Number(_), _) => wrong("a number"),
        (Kind::Word(words), _) => wrong(&format!("one of {}", words.join(", "))),
        (Kind::Texts, _) => wrong("a list of strings"),
        (Kind::Maps(_), _) => wrong("a list of mappings"),
    }
}

/// Stands in for something required that is missing, which has been reported.
fn empty(kind: &Kind) -> serde_json::Value {
    match kind {
        Kind::Text | Kind::TextOrList => json!(""),
        Kind::Number(_) => json!(0),
        Kind::Word(words) => json!(words.first()),
        Kind::Texts | Kind::Maps(_) => json!([]),
        Kind::Map(fields) => {
            let required = fields.iter().filter(|field| field.required);
            required.map(|field| (field.name.to_owned(), empty(&field.kind))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}

/// What the author of an unknown key may have meant: the same key at its right place, or a similar one at this place.
fn advice(fields: &[Field], key: &str, name: &str) -> String {
    if let Some(field) = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)) {
        return format!("; did you mean `{}`?", field.name);
    }
    let mut places = Vec::new();
    find(ROOT, "", name, &mut places);
    if let [place] = places.as_slice() {
        return format!("; move it to `{place}`");
    }
    if let Some(near) = nearest(name, fields.iter().map(|field| field.name)) {
        return format!("; did you mean `{near}`?");
    }
    let names: Vec<_> = fields.iter().map(|field| field.name).collect();
    let of = if key.is_empty() { "the file".to_owned() } else { format!("`{key}`") };
    format!("; {of} has the keys {}", names.join(", "))
}

fn find(fields: &[Field], key: &str, name: &str, places: &mut Vec<String>) {
    for field in fields {
        let path = below(key, field.name);
        if field.name == name {
            places.push(path.clone());
        }
        match &field.kind {
            Kind::Map(fields) => find(fields, &path, name, places),
            Kind::Maps(fields) => find(fields, &format!("{path}[]"), name, places),
            _ => {}
        }
    }
}

/// The most similar of `candidates`, if any is similar at all: at most a third of its letters differ.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let (distance, best) = candidates
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_lowercase()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= (best.len() / 3).max(1)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_words_are_near_and_others_are_not() {
        let words = ["endpoint", "hosts", "min", "max", "podCIDR"];
        let table = [
            ("endpiont", Some("endpoint")),
            ("host", Some("hosts")),
            ("podCidr", Some("podCIDR")),
            ("podcdir", Some("podCIDR")),
            ("mix", Some("min")),
            ("banana", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, words.into_iter()), expected, "{name}");
        }
    }

    #[test]
    fn the_table_and_the_types_know_the_same_keys() {
        // Every key of the types, filled in, passes the table; every key of the table is taken by the types.
        fn full(kind: &Kind) -> serde_json::Value {
            match kind {
                Kind::Map(fields) => {
                    fields.iter().map(|f| (f.name.to_owned(), full(&f.kind))).collect::<serde_json::Map<_, _>>().into()
                }
                Kind::Maps(fields) => json!([full(&Kind::Map(fields))]),
                Kind::Texts => json!(["a"]),
                other => empty(other),
            }
        }
        let everything = full(&Kind::Map(ROOT));
        let cluster: crate::cluster::Cluster = serde_json::from_value(everything.clone()).unwrap();
        let printed = serde_json::to_value(&cluster).unwrap();
        assert_eq!(printed, everything);
    }
}
