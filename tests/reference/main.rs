//! docs/reference is written from the code. `scripts/reference` writes it; without, it is compared with what it would write.
mod command_line;
mod names;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use km::scheduler::decide::{Effect, Refused};
use km::scheduler::metrics::Metrics;
use kmctl_core::cluster::{KeyReference, json_schema, load, reference};
use kmctl_core::k8s::events::{EVENTS, EventKind};
use kmctl_core::protocol::Summary;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Compares a file of docs/reference with what it has to be, or writes it.
#[track_caller]
fn page(name: &str, text: &str) {
    let path = root().join("docs/reference").join(name);
    if std::env::var_os("KMCTL_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/reference/{name} is not what the code says: run scripts/reference");
}

/// A cell of a table: its bars would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn cluster_yaml() {
    let mut text = "\
# cluster.yaml

Every key that `kmctl` knows; any other key is an error. `kmctl schema` prints the same as a
[JSON Schema](cluster.schema.json), which editors use for completion. With the YAML language server, the first line of the
file says so:

```yaml
# yaml-language-server: $schema=cluster.schema.json
```

`[]` stands for each element of a list. A key in bold has to be written where its parent is.
"
    .to_owned();
    let keys = reference();
    let is_chapter = |key: &KeyReference| key.is_section && key.path.matches('.').count() <= 1;
    let chapters: Vec<&KeyReference> = keys.iter().filter(|key| is_chapter(key)).collect();
    // The innermost chapter that a key is in.
    let chapter_of = |key: &KeyReference| {
        let inside = |chapter: &&&KeyReference| key.path.starts_with(&format!("{}.", chapter.path));
        chapters.iter().filter(inside).map(|chapter| chapter.path.as_str()).max_by_key(|path| path.len())
    };
    for key in keys.iter().filter(|key| !is_chapter(key) && chapter_of(key).is_none()) {
        write!(text, "\n`{}`: {}\n", key.path, key.about).expect("a string");
    }
    for chapter in &chapters {
        let inside = |key: &&KeyReference| !is_chapter(key) && chapter_of(key) == Some(chapter.path.as_str());
        write!(text, "\n## {}\n\n{}\n", chapter.path, chapter.about).expect("a string");
        for (number, key) in keys.iter().filter(inside).enumerate() {
            if number == 0 {
                text.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
            }
            let name = if key.required { format!("**`{}`**", key.path) } else { format!("`{}`", key.path) };
            let default = key.default.as_ref().map(|default| format!("`{default}`")).unwrap_or_default();
            writeln!(text, "| {name} | {} | {} | {} |", cell(&key.kind), cell(&default), cell(key.about))
                .expect("a string");
        }
    }
    page("cluster-yaml.md", &text);
}

#[test]
fn the_schema_of_cluster_yaml() {
    page("cluster.schema.json", &(serde_json::to_string_pretty(&json_schema()).expect("JSON") + "\n"));
}

/// Blocks of YAML in the documents that are whole files of a cluster.
fn examples() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    let mut files = vec![root().join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in files.into_iter().filter(|file| file.extension().is_some_and(|name| name == "md")) {
        let text = std::fs::read_to_string(&file).expect("a document");
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if block.contains("kind: Cluster\n") {
                found.push((file.clone(), block.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_cluster_in_the_documents_is_accepted_by_schema_and_loader() {
    let schema = jsonschema::validator_for(&json_schema()).expect("a schema");
    let folder = tempfile::tempdir().expect("a directory");
    let examples = examples();
    assert!(!examples.is_empty());
    for (file, block) in examples {
        let value: serde_json::Value = serde_yaml::from_str(&block).expect("YAML");
        let wrong: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", file.display());
        let path = folder.path().join("cluster.yaml");
        std::fs::write(&path, &block).expect("written");
        load(&path).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[test]
fn metrics() {
    let mut text = "\
# Metrics

km scheduler serves these in Prometheus' text format at `/metrics`, on port 10270 of its control-plane host, to holders of the
extender's client certificate. With several hosts only the leading instance counts.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"
    .to_owned();
    // A family without a sample is not printed.
    let metrics = Metrics::new();
    metrics.effect(&Effect::ListAgents);
    metrics.failure("bind");
    metrics.question("filter");
    let mut summary = Summary::default();
    summary.nodes.insert("ready".to_owned(), 1);
    let encoded = metrics.encode(&summary);
    let (mut about, mut rows) = (String::new(), 0);
    let mut lines = encoded.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            about = help.split_once(' ').map(|(_, help)| help.trim_end_matches('.').to_owned()).unwrap_or_default();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let sample = lines.peek().copied().unwrap_or_default();
            let labels = sample.split_once('{').and_then(|(_, rest)| rest.split_once("=\"")).map(|(label, _)| label);
            let labels = labels.map(|label| format!("`{label}`")).unwrap_or_default();
            writeln!(text, "| `{name}{suffix}` | {kind} | {labels} | {} |", cell(&about)).expect("a string");
            rows += 1;
        }
    }
    assert!(rows >= 9, "only {rows} metrics were found");
    page("metrics.md", &text);
}

#[test]
fn events() {
    let mut text = "\
# Events

Events that kmctl writes into the Kubernetes API; the stock components write theirs beside them.

| reason | object | component | when |
| --- | --- | --- | --- |
"
    .to_owned();
    for EventKind { reason, object, component, about } in EVENTS {
        writeln!(text, "| `{reason}` | {object} | {component} | {} |", cell(about)).expect("a string");
    }
    text.push_str(
        "
## Reasons against a node

km scheduler answers kube-scheduler's questions with one fixed text for each reason. kube-scheduler repeats them in its own
`FailedScheduling` events and in the pod's condition `PodScheduled`. Figures and names are in km-scheduler's event and in
`kmctl why pod`.

| text |
| --- |
",
    );
    for reason in Refused::ALL {
        writeln!(text, "| {} |", cell(reason.text())).expect("a string");
    }
    page("events.md", &text);
}
