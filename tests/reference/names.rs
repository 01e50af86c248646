//! docs/reference/names.md: annotations, labels and objects, as src/core/k8s/names.rs documents them.
use std::fmt::Write as _;

use crate::{cell, page, root};

#[test]
fn names() {
    let source = std::fs::read_to_string(root().join("src/core/k8s/names.rs")).expect("the table of names");
    let mut text = "\
# Names in the Kubernetes API

What kmctl writes there or reads from there. Users set the annotations of pods that name Mesos roles; everything else is
written by kmctl and is not meant to be edited.

| name | meaning |
| --- | --- |
"
    .to_owned();
    let (mut about, mut rows) = (String::new(), 0);
    for line in source.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("/// ") {
            about = format!("{about} {comment}");
        } else if let Some((_, value)) = line.strip_prefix("pub const ").and_then(|line| line.split_once(" = \"")) {
            let value = value.trim_end_matches("\";");
            writeln!(text, "| `{value}` | {} |", cell(about.trim())).expect("a string");
            (about, rows) = (String::new(), rows + 1);
        } else {
            about.clear();
        }
    }
    assert!(rows > 15, "only {rows} names were found");
    page("names.md", &text);
}
