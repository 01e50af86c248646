//! Changes single numbers in the text of cluster.yaml and nothing else: comments, order and layout are preserved. Pure.
use super::problem::Place;
use super::spec::Cluster;
use super::tree::{Node, Value};

/// Why the text is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It could not be read as a cluster.yaml.
    #[error("invalid cluster.yaml: {0}")]
    Unreadable(String),
    /// Its layout is one that this code cannot edit.
    #[error("failed to edit nodes.min and nodes.max in a file of this form")]
    Unclear,
}

/// The text with `spec.nodes.min` and `spec.nodes.max` set; with `max` `None` the key is removed.
pub fn set_bounds(text: &str, min: u32, max: Option<u32>) -> Result<String, EditError> {
    let read = |text: &str| -> Result<Cluster, EditError> {
        serde_yaml::from_str(text).map_err(|error| EditError::Unreadable(error.without_snippet().to_string()))
    };
    let mut wanted = read(text)?;
    let mut edited = text.to_owned();
    if wanted.spec.nodes.min != min {
        edited = set(&edited, "min", Some(min), min)?;
    }
    if wanted.spec.nodes.max != max {
        edited = set(&edited, "max", max, min)?;
    }
    (wanted.spec.nodes.min, wanted.spec.nodes.max) = (min, max);
    // If the result does not read back as exactly the wanted cluster, the wrong place was edited.
    if read(&edited).is_ok_and(|cluster| cluster == wanted) { Ok(edited) } else { Err(EditError::Unclear) }
}

type Entry = (Place, String, Node);

fn entries(node: &Node) -> Result<&[Entry], EditError> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        Value::Nothing => Ok(&[]),
        _ => Err(EditError::Unclear),
    }
}

fn entry<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|(_, key, _)| key == name)
}

/// Sets or removes one key. If the mapping would be left empty, its only entry is replaced with `min`.
fn set(text: &str, key: &str, value: Option<u32>, min: u32) -> Result<String, EditError> {
    let root: Node =
        serde_yaml::from_str(text).map_err(|error| EditError::Unreadable(error.without_snippet().to_string()))?;
    let spec = entry(entries(&root)?, "spec").ok_or(EditError::Unclear)?;
    let inside = entries(&spec.2)?;
    let Some(nodes) = entry(inside, "nodes") else {
        let Some(value) = value else { return Ok(text.to_owned()) };
        return insert(text, spec, &format!("nodes: {{ {key}: {value} }}"));
    };
    let inside = entries(&nodes.2)?;
    match (entry(inside, key), value) {
        (Some((_, _, old)), Some(value)) => {
            let begin = offset(text, old.place)?;
            Ok(splice(text, begin, token_end(text, begin), &value.to_string()))
        }
        (None, Some(value)) => insert(text, nodes, &format!("{key}: {value}")),
        (Some((place, _, old)), None) => {
            let (begin, end) = (offset(text, *place)?, token_end(text, offset(text, old.place)?));
            if inside.len() == 1 {
                return Ok(splice(text, begin, end, &format!("min: {min}")));
            }
            Ok(remove(text, begin, end))
        }
        (None, None) => Ok(text.to_owned()),
    }
}

/// Inserts an entry at the start of the mapping that is this entry's value.
fn insert(text: &str, (place, _, node): &Entry, new: &str) -> Result<String, EditError> {
    let inside = entries(node)?;
    let begin = offset(text, *place)?;
    // A flow mapping (in braces) starts on the line of its key; a block mapping does not.
    if let Ok(at) = offset(text, node.place)
        && text[at..].starts_with('{')
    {
        let rest = &text[at + 1..];
        let close = at + 1 + rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        return Ok(match (inside.is_empty(), rest.starts_with(char::is_whitespace)) {
            (true, _) => splice(text, at + 1, close, &format!(" {new} ")),
            (false, true) => splice(text, at + 1, at + 1, &format!(" {new},")),
            (false, false) => splice(text, at + 1, at + 1, &format!("{new}, ")),
        });
    }
    let line_end = text[begin..].find('\n').map(|end| begin + end + 1).ok_or(EditError::Unclear)?;
    let newline = if text[..line_end].ends_with("\r\n") { "\r\n" } else { "\n" };
    let indent = match inside.first() {
        Some((first, _, _)) => usize::try_from(first.column).map_err(|_| EditError::Unclear)? - 1,
        None => usize::try_from(place.column).map_err(|_| EditError::Unclear)? + 1,
    };
    Ok(splice(text, line_end, line_end, &format!("{}{new}{newline}", " ".repeat(indent))))
}

/// Removes an entry, with its line if it is the only entry there; a comment after it is kept.
fn remove(text: &str, begin: usize, end: usize) -> String {
    let line_begin = text[..begin].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
    let (before, after) = (&text[line_begin..begin], text[end..line_end].trim());
    if before.trim().is_empty() {
        if after.is_empty() {
            return splice(text, line_begin, line_end, "");
        }
        if after.starts_with('#') {
            let comment = end + text[end..].find('#').unwrap_or(0);
            return splice(text, begin, comment, "");
        }
    }
    let rest = text[end..].trim_start();
    match rest.strip_prefix(',') {
        Some(rest) => splice(text, begin, text.len() - rest.trim_start().len(), ""),
        None => {
            let kept = text[..begin].trim_end();
            let kept = kept.strip_suffix(',').unwrap_or(kept);
            splice(text, kept.len(), end, "")
        }
    }
}

fn splice(text: &str, begin: usize, end: usize, new: &str) -> String {
    format!("{}{new}{}", &text[..begin], &text[end..])
}

/// The end of a plain scalar: white space, or a character that ends an entry.
fn token_end(text: &str, begin: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']' | '#');
    text[begin..].find(ends).map_or(text.len(), |end| begin + end)
}

/// Converts a place to a byte offset in the text; columns count characters.
fn offset(text: &str, place: Place) -> Result<usize, EditError> {
    let number = |value: u64| usize::try_from(value).ok().and_then(|value| value.checked_sub(1));
    let (Some(line), Some(column)) = (number(place.line), number(place.column)) else { return Err(EditError::Unclear) };
    let begin: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(begin..).ok_or(EditError::Unclear)?;
    let within = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(column);
    within.map(|within| begin + within).ok_or(EditError::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster.yaml with the given lines as `nodes`, indented by two.
    fn file(nodes: &str) -> String {
        format!(
            "# Größe: klein\napiVersion: kmctl.io/v1alpha1\nkind: Cluster\nmetadata: {{ name: demo }}\nspec:\n  \
             # the masters\n  mesos: {{ master: \"10.0.0.5:5050\" }}\n{nodes}  controlPlane:\n    \
             endpoint: 10.0.0.11:6443\n    hosts:\n      - {{ address: 10.0.0.11 }}\n"
        )
    }

    #[test]
    fn only_the_numbers_change() {
        let cases = [
            ("  nodes:\n    min: 1\n    max: 20\n", "  nodes:\n    min: 3\n    max: 5\n"),
            (
                "  nodes:\n    # few\n    min:   1   # one\n    idleTimeout: 10m\n    max: 20\t# many\n",
                "  nodes:\n    # few\n    min:   3   # one\n    idleTimeout: 10m\n    max: 5\t# many\n",
            ),
            ("  nodes: { min: 1, max: 20 } # ü\n", "  nodes: { min: 3, max: 5 } # ü\n"),
            ("  nodes: {max: 20}\n", "  nodes: {min: 3, max: 5}\n"),
            ("  nodes: { idleTimeout: 1m }\n", "  nodes: { max: 5, min: 3, idleTimeout: 1m }\n"),
            ("  nodes: {}\n", "  nodes: { max: 5, min: 3 }\n"),
            (
                "  nodes: # of all\n    # how long\n    idleTimeout: 1m\n",
                "  nodes: # of all\n    max: 5\n    min: 3\n    # how long\n    idleTimeout: 1m\n",
            ),
        ];
        for (before, after) in cases {
            assert_eq!(set_bounds(&file(before), 3, Some(5)), Ok(file(after)), "{before}");
        }
    }

    #[test]
    fn without_a_bound_the_key_goes_and_its_comment_stays() {
        let cases = [
            ("  nodes:\n    min: 1\n    max: 20\n", "  nodes:\n    min: 1\n"),
            ("  nodes:\n    min: 1\n    max: 20  # at most\n", "  nodes:\n    min: 1\n    # at most\n"),
            ("  nodes:\n    max: 20  # at most\n", "  nodes:\n    min: 1\n    # at most\n"),
            ("  nodes: { min: 1, max: 20 }\n", "  nodes: { min: 1 }\n"),
            ("  nodes: { max: 20, min: 1 }\n", "  nodes: { min: 1 }\n"),
            ("  nodes: { min: 1, max: 20, idleTimeout: 1m }\n", "  nodes: { min: 1, idleTimeout: 1m }\n"),
        ];
        for (before, after) in cases {
            assert_eq!(set_bounds(&file(before), 1, None), Ok(file(after)), "{before}");
        }
    }

    #[test]
    fn a_file_without_nodes_gets_them_and_the_same_values_change_nothing() {
        let edited = set_bounds(&file(""), 2, None).unwrap();
        assert_eq!(edited, file("").replace("spec:\n", "spec:\n  nodes: { min: 2 }\n"));
        assert_eq!(set_bounds(&file(""), 0, None), Ok(file("")));
        assert_eq!(set_bounds(&edited, 2, None), Ok(edited));
    }

    #[test]
    fn a_mapping_is_never_left_without_a_key() {
        let edited = set_bounds(&file("  nodes:\n    max: 20  # at most\n"), 0, None);
        assert_eq!(edited, Ok(file("  nodes:\n    min: 0  # at most\n")));
    }

    #[test]
    fn what_is_no_cluster_yaml_is_left_alone() {
        assert!(matches!(set_bounds("a: [", 1, None), Err(EditError::Unreadable(_))));
        // A key inside a string looks like a key, but must not be treated as one.
        let text = file("  bundle: \"min: 1\"\n  nodes: { min: 1 }\n");
        assert_eq!(set_bounds(&text, 2, None), Ok(text.replace("{ min: 1 }", "{ min: 2 }")));
    }
}
