//! Keeps the walls that the compiler does not hold, by reading what each file of `src` names.
//!
//! Between members the compiler holds them; within one nothing would stop a `decide.rs` from asking the clock. The rules
//! are a table below; a rule that finds nothing on a planted line is itself an error.
mod graph;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use graph::Graph;
use source::{code, is_word, paths, sources, spread};

/// What pure code must not name: I/O, the clock, randomness, the environment, and of kube everything but its types.
const IMPURE: &[&str] = &[
    "tokio",
    "ssh2",
    "reqwest",
    "rand",
    "hyper",
    "axum",
    "nix",
    "uuid::Uuid::new_v4",
    "std::fs",
    "std::process",
    "std::env",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "kube::Client",
    "kube::Api",
    "kube::Config",
    "kube::api::Api",
    "kube::client",
    "kube::config",
    "kube::runtime",
    "kube::discovery",
];

/// Settings reach the node agent through its two arguments, so nothing else may read any.
const SETTINGS: &[&str] = &["std::env", "clap"];

/// A rule over files.
struct Rule {
    name: &'static str,
    /// Whether it speaks of this file (path below `src`, with `/`).
    covers: fn(&str) -> bool,
    forbidden: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { name: "what decides is pure", covers: is_pure, forbidden: IMPURE },
    Rule { name: "the node agent has no third source of settings", covers: is_node_agent, forbidden: SETTINGS },
    Rule { name: "only what commands do uses anyhow", covers: is_library, forbidden: &["anyhow"] },
];

fn is_pure(path: &str) -> bool {
    let decides = path.ends_with("/decide.rs") || path.contains("/decide/") || path.ends_with("/decide_tests.rs");
    let named = [
        "core/backoff.rs",
        "core/cluster/spec.rs",
        "core/cluster/network.rs",
        "km/cni/rules.rs",
        "km/endpoints/selectors.rs",
        "km/node/view/translate.rs",
        "km/node/view/store.rs",
        "km/node/dns/records.rs",
        "km/node/dns/answer.rs",
    ];
    let folders = ["kmctl/plan/", "kmctl/diagnose/", "core/model/", "core/node/", "core/protocol/host/"];
    decides || folders.iter().any(|folder| path.starts_with(folder)) || named.contains(&path)
}

/// The command's entry reads flags, and the one place that builds the real dependencies may ask the machine.
fn is_node_agent(path: &str) -> bool {
    const EXCEPT: &[&str] = &["km/node/command.rs", "km/node/real/build.rs"];
    (path.starts_with("km/node/") || path.starts_with("core/node/")) && !EXCEPT.contains(&path)
}

fn is_library(path: &str) -> bool {
    let commands = ["kmctl/cli/", "kmctl/provision/", "kmctl/failure.rs"];
    path != "km/program.rs" && !commands.iter().any(|command| path.starts_with(command))
}

/// Whether `path` names `forbidden`, something below it, or (by a glob) everything beside it.
fn names(path: &str, forbidden: &str) -> bool {
    let below = |path: &str, of: &str| path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with("::"));
    match path.strip_suffix("::*") {
        Some(parent) => below(parent, forbidden) || forbidden.rsplit_once("::").is_some_and(|(of, _)| of == parent),
        None => below(path, forbidden),
    }
}

/// Everything of `text` that a rule forbids in a file at `path`.
fn violations(path: &str, text: &str) -> Vec<String> {
    // `use std::time;` and `use kube;` would hide what follows; so modules that hold forbidden things count as such
    // when they are imported whole.
    let whole = ["std::time", "kube", "std::net", "std", "jiff"];
    let code = code(text);
    let paths = paths(&code);
    let mut imported = Vec::new();
    for part in code.split("use ").skip(1) {
        spread("", part.split(';').next().unwrap_or_default(), &mut imported);
    }
    let mut found = Vec::new();
    for rule in RULES.iter().filter(|rule| (rule.covers)(path)) {
        for forbidden in rule.forbidden {
            found.extend(
                paths
                    .iter()
                    .filter(|path| names(path, forbidden))
                    .map(|used| format!("src/{path} names {used}, but {}", rule.name)),
            );
            found.extend(imported.iter().filter(|used| whole.contains(&used.as_str())).filter_map(|used| {
                let inside = forbidden.strip_prefix(used.as_str())?.starts_with("::");
                inside.then(|| format!("src/{path} imports {used} whole, but {}", rule.name))
            }));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_file_keeps_the_rules() {
    let found: Vec<String> = sources().iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn there_are_files_that_decide() {
    let paths: Vec<String> = sources().into_iter().map(|(path, _)| path).collect();
    assert!(paths.iter().any(|path| path == "km/endpoints/decide.rs"), "{paths:?}");
    assert!(paths.iter().any(|path| path == "core/cluster/spec.rs"), "{paths:?}");
}

#[test]
fn a_planted_import_is_found() {
    let pure = [
        "km/endpoints/decide.rs",
        "km/node/decide.rs",
        "km/scheduler/decide/offers.rs",
        "kmctl/plan/mod.rs",
        "core/model/pods.rs",
    ];
    for path in pure {
        for forbidden in IMPURE {
            let (parent, name) = forbidden.rsplit_once("::").unwrap_or(("", forbidden));
            let planted = [
                format!("use {forbidden};"),
                format!("use ::{forbidden};"),
                format!("use {forbidden} as other;"),
                format!("fn f() {{ let _ = {forbidden}::something(); }}"),
                format!("fn f() {{ let _ = ::{forbidden}::something(); }}"),
                format!("use {forbidden}::{{a, b::{{c, d}}}};"),
            ];
            let nested =
                [format!("use {parent}::{{a::{{b, c}}, {name}}};"), format!("use {parent}::{{{name}::e, f}};")];
            let nested = nested.into_iter().filter(|_| !parent.is_empty());
            for text in planted.into_iter().chain(nested) {
                assert!(!violations(path, &text).is_empty(), "not found in {path}: {text}");
            }
        }
    }
    for text in ["use std::env;", "use std::{env, fmt};", "let x = std::env::var(n);", "use clap::Parser;"] {
        assert!(!violations("km/node/agent.rs", text).is_empty(), "{text}");
        assert!(violations("km/node/command.rs", text).is_empty(), "{text}");
    }
    for text in ["use anyhow::Context;", "fn f() -> anyhow::Result<()> { Ok(()) }"] {
        assert!(!violations("km/endpoints/run.rs", text).is_empty(), "{text}");
        assert!(violations("kmctl/cli/up.rs", text).is_empty(), "{text}");
        assert!(violations("km/program.rs", text).is_empty(), "{text}");
    }
}

#[test]
fn hidden_ways_are_found_too() {
    for text in
        ["use std::time;", "use std::time::*;", "use kube;", "use std;", "use kube::api::*;", "use std::{time, fmt};"]
    {
        assert!(!violations("km/endpoints/decide.rs", text).is_empty(), "{text}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let allowed = [
        "use std::time::Duration;",
        "use std::net::IpAddr;",
        "use kube::api::ObjectMeta;",
        "use k8s_openapi::api::core::v1::Pod;",
        "// tokio::spawn is not for here",
        "/* use tokio; */",
        "let text = \"use tokio::spawn;\";",
        "let text = r#\"std::env \"quoted\" tokio::x\"#;",
        "let tokio = 1;",
        "use super::rand::Thing;",
        "use kmctl_core::protocol::launch::Grant;",
    ];
    for text in allowed {
        assert_eq!(violations("km/endpoints/decide.rs", text), Vec::<String>::new(), "{text}");
    }
}

/// Words by which code would tell versions of Kubernetes apart, outside of the one table of them.
fn compares_versions(path: &str, text: &str) -> bool {
    let code = code(text);
    let words = code.split(|letter: char| !is_word(letter));
    path != "core/k8s/version.rs" && words.into_iter().any(|word| word == "minor")
}

#[test]
fn versions_are_told_apart_in_one_table_only() {
    let found: Vec<String> =
        sources().into_iter().filter(|(path, text)| compares_versions(path, text)).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "what differs between minors belongs into core/k8s/version.rs, not into {found:?}");
    assert!(compares_versions("km/node/run.rs", "fn f(v: Version) -> bool { v.minor < 38 }"));
    assert!(compares_versions("core/k8s/mod.rs", "let Version { minor, .. } = v;"));
    assert!(!compares_versions("core/k8s/version.rs", "self.minor < 38"));
}

/// Members, and the order of the folders (and files) at the top of each: a file names only what stands before its own. What
/// is not listed stands before all of them.
const ORDER: [(&str, &[&str]); 5] = [
    ("mesos", &["types", "scheduler", "executor", "operator", "fake"]),
    ("core", &["progress", "pki", "cluster", "k8s", "bundle", "protocol", "model", "node"]),
    ("runonce", &["decide", "artifacts", "run"]),
    ("km", &["cni", "endpoints", "host", "mesos", "node", "scheduler", "program"]),
    (
        "kmctl",
        &[
            "upstream",
            "host",
            "failure",
            "over_host",
            "inventory",
            "render",
            "plan",
            "diagnose",
            "apply",
            "provision",
            "cli",
        ],
    ),
];

fn member(name: &str) -> Vec<(String, String)> {
    let of = |(path, text): (String, String)| Some((path.strip_prefix(&format!("{name}/"))?.to_owned(), text));
    sources().into_iter().filter_map(of).collect()
}

#[test]
fn no_folder_names_one_that_stands_behind_it() {
    for (name, order) in ORDER {
        let found = Graph::of(&member(name)).against(order);
        assert!(found.is_empty(), "src/{name}: {}", found.join("\n"));
    }
}

#[test]
fn no_more_than_two_files_name_each_other_in_a_circle() {
    for (name, _) in ORDER {
        let circles: Vec<_> = Graph::of(&member(name)).circles().into_iter().filter(|files| files.len() > 2).collect();
        assert!(circles.is_empty(), "src/{name}: {circles:#?}");
    }
}

#[test]
fn planted_circles_and_steps_against_the_order_are_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let files = [
        file("lib.rs", "pub mod a;\npub mod b;"),
        file("a/mod.rs", "mod one;\nmod two;\nmod three;\npub use one::One;"),
        file("a/one.rs", "use super::two::Two;\npub struct One(Two);"),
        file("a/two.rs", "use crate::a::three;\npub struct Two(three::Three);"),
        // Through what the folder passes on: it lies in `one`.
        file("a/three.rs", "pub struct Three(super::One);"),
        file("b.rs", "use crate::a::One;\npub struct B(One);"),
    ];
    let graph = Graph::of(&files);
    assert_eq!(graph.circles(), [["a/one.rs", "a/three.rs", "a/two.rs"]]);
    assert_eq!(graph.against(&["a", "b"]), Vec::<String>::new());
    assert_eq!(graph.against(&["b", "a"]), ["b.rs names a/one.rs"]);
    // What only tests name is no wall's business, and neither is what a comment says.
    let files = [
        file("lib.rs", "mod a;\nmod b;"),
        file("a.rs", "// crate::b::B\n#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n"),
        file("b.rs", "use crate::a::A;"),
    ];
    assert!(Graph::of(&files).circles().is_empty());
}

/// `a ──▶ b, c` of the picture in docs/architecture.md, by member.
fn picture(text: &str) -> BTreeSet<(String, String)> {
    let drawing = text.split("```text").nth(1).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let mut arrows = BTreeSet::new();
    for (from, to) in drawing.lines().filter_map(|line| line.split_once(" ──▶ ")) {
        arrows.extend(to.split(", ").map(|to| (from.trim().to_owned(), to.trim().to_owned())));
    }
    arrows
}

#[test]
fn the_picture_of_the_members_is_what_their_manifests_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let package = |name: &str| if name == "core" { "kmctl-core".to_owned() } else { name.to_owned() };
    let names: Vec<String> = ORDER.iter().map(|(name, _)| package(name)).collect();
    let mut arrows = BTreeSet::new();
    for (name, _) in ORDER {
        let manifest = read(&format!("src/{name}/Cargo.toml"));
        let section = manifest.split("\n[dependencies]").nth(1).expect("dependencies");
        let lines = section.split("\n[").next().unwrap_or_default().lines();
        let used = lines.filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.to_owned()));
        arrows.extend(used.filter(|used| names.contains(used)).map(|used| (package(name), used)));
    }
    let drawn = picture(&read("docs/architecture.md"));
    assert_eq!(drawn, arrows, "docs/architecture.md draws another picture than src/*/Cargo.toml");
    // No arrow leads back: each member has fewer than all that it uses have, down to none.
    let mut left: BTreeSet<&String> = names.iter().collect();
    while let Some(free) = left.iter().find(|name| !arrows.iter().any(|(from, to)| from == **name && left.contains(to)))
    {
        let free = *free;
        left.remove(free);
    }
    assert!(left.is_empty(), "a circle of members: {left:?}");
}

/// A file or directory of ours, not a pattern or a placeholder.
fn is_path(named: &str) -> bool {
    let ours = ["src/", "tests/", "templates/", "scripts/"].iter().any(|folder| named.starts_with(folder));
    ours && !named.contains(['*', ' ', '<', '…']) && !named.contains("NAME")
}

#[test]
fn every_file_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    let mut seen = 0;
    let documents = std::fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    for path in documents.chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name))) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for named in text.split('`').skip(1).step_by(2).filter(|named| is_path(named)) {
            seen += 1;
            if !root.join(named).exists() {
                missing.push(format!("{}: {named}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen > 40, "{seen}");
}
