//! A YAML file as a tree that records the place of every node, so that problems can be reported with their place.
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;

use super::problem::Place;

/// A YAML node and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nothing,
    Truth(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Place, String, Node)>),
}

impl Value {
    /// The name of the type in a message.
    pub(super) fn called(&self) -> &'static str {
        match self {
            Value::Nothing => "nothing",
            Value::Truth(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// Whether the file contains `key`, e.g. `spec.controlPlane`.
    pub(super) fn has(&self, key: &str) -> bool {
        let mut node = self;
        key.split('.').all(|part| {
            let Value::Map(entries) = &node.value else { return false };
            let found = entries.iter().find(|(_, name, _)| name == part);
            found.inspect(|(_, _, below)| node = below).is_some()
        })
    }

    /// The place of `key`, e.g. `spec.controlPlane.hosts[1].name`. If the file does not contain it, the place of its
    /// nearest existing parent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let (mut node, mut place) = (self, self.place);
        for part in key.split(['.', '[']) {
            let found = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|(_, name, _)| name == part).map(|(at, _, node)| (*at, node))
                }
                Value::List(items) => {
                    let index = part.trim_end_matches(']').parse::<usize>().ok();
                    index.and_then(|index| items.get(index)).map(|node| (node.place, node))
                }
                _ => None,
            };
            let Some((at, next)) = found else { break };
            (node, place) = (next, at);
        }
        place
    }
}

fn place(at: serde_yaml::Location) -> Place {
    Place { line: at.line(), column: at.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { place: place(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Nothing)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
                Value::deserialize(deserializer)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Truth(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(Value::Number(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(serde_json::Number::from_f64(value).map_or(Value::Text(value.to_string()), Value::Number))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = entries.next_key::<Spanned<String>>()? {
                    map.push((place(key.referenced), key.value, entries.next_value()?));
                }
                Ok(Value::Map(map))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_where_it_stands() {
        let root: Node = serde_yaml::from_str("a: 1\nb:\n  - x: no\n  - { y: [], z: }\nc: '7'\n").unwrap();
        let table = [
            ("a", (1, 1)),
            ("b", (2, 1)),
            ("b[0].x", (3, 5)),
            ("b[1].y", (4, 7)),
            ("b[1].missing", (4, 5)),
            ("c", (5, 1)),
            ("missing.key", (1, 1)),
        ];
        for (key, (line, column)) in table {
            assert_eq!(root.place_of(key), Place { line, column }, "{key}");
        }
    }
}
