//! Keeps the walls between the folders of `src` by reading what each file names.
//!
//! One package has no walls of its own: nothing would stop a `decide.rs` from asking the clock. The rules are a table
//! below; a rule that finds nothing on a planted line is itself an error.
use std::path::{Path, PathBuf};

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
    Rule { name: "only the command lines use anyhow", covers: is_library, forbidden: &["anyhow"] },
];

fn is_pure(path: &str) -> bool {
    let decides = path.ends_with("/decide.rs") || path.contains("/decide/") || path.ends_with("/decide_tests.rs");
    let named = [
        "backoff.rs",
        "cluster/spec.rs",
        "cluster/network.rs",
        "cni/rules.rs",
        "endpoints/selectors.rs",
        "node/view/translate.rs",
        "node/view/store.rs",
        "node/dns/records.rs",
        "node/dns/answer.rs",
    ];
    decides || path.starts_with("plan/") || named.contains(&path)
}

/// The command's entry reads flags, and the one place that builds the real dependencies may ask the machine.
fn is_node_agent(path: &str) -> bool {
    const EXCEPT: &[&str] = &["node/command.rs", "node/real/build.rs"];
    path.starts_with("node/") && !EXCEPT.contains(&path)
}

fn is_library(path: &str) -> bool {
    !path.starts_with("bin/") && !path.starts_with("cli/")
}

/// Replaces comments and string literals by blanks, so that only code is read.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(end) = raw_string(rest, &out) {
            end
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skipped..];
    }
    out
}

/// Length of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal that `text` begins with, if it does.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    // The `r` of an identifier's end is no beginning.
    if before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') && !before.ends_with('b') {
        return None;
    }
    let hashes = text.strip_prefix('r')?;
    let count = hashes.chars().take_while(|letter| *letter == '#').count();
    let body = hashes[count..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(count));
    let end = body.find(&close).unwrap_or(body.len());
    Some((1 + count + 1 + end + close.len()).min(text.len()))
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Every path that the code names, with `use` trees spread out: `use a::{b, c::d};` gives `a::b` and `a::c::d`.
/// Renamed imports count under their own name.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut letters = code.char_indices().peekable();
    while let Some((start, letter)) = letters.next() {
        let before = code[..start].chars().next_back();
        if !is_word(letter) || before.is_some_and(is_word) {
            continue;
        }
        // A later part of a path, or a field or method.
        let glued = code[..start].trim_end();
        if glued.ends_with("::") && !begins_absolutely(glued) || glued.ends_with('.') && !glued.ends_with("..") {
            continue;
        }
        let word: String = code[start..].chars().take_while(|letter| is_word(*letter)).collect();
        let rest = code[start + word.len()..].trim_start();
        if word == "use" {
            let tree: String = rest.chars().take_while(|letter| *letter != ';').collect();
            spread("", &tree, &mut found);
            while letters.next_if(|(_, letter)| *letter != ';').is_some() {}
            continue;
        }
        let mut path = word;
        let mut tail = rest;
        while let Some(next) = tail.strip_prefix("::") {
            let next = next.trim_start();
            let word: String = next.chars().take_while(|letter| is_word(*letter)).collect();
            if word.is_empty() {
                break;
            }
            tail = next[word.len()..].trim_start();
            path = format!("{path}::{word}");
        }
        // A lone word is a variable or a keyword, unless it is a macro of a crate.
        if path.contains("::") {
            found.push(path);
        }
    }
    found
}

/// `::std::env` begins with `::` after something that is no path.
fn begins_absolutely(glued: &str) -> bool {
    let before = glued.trim_end_matches(':').chars().next_back();
    !before.is_some_and(|letter| is_word(letter) || letter == '>')
}

fn spread(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim().trim_start_matches("::");
    if let Some(open) = tree.find('{') {
        let prefix = format!("{prefix}{}", tree[..open].replace(char::is_whitespace, ""));
        let inner = tree[open + 1..].trim_end().trim_end_matches('}');
        // The closing brace of this level is the last; commas of deeper levels do not split.
        let mut depth = 0;
        let mut part = String::new();
        for letter in inner.chars() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    spread(&prefix, &std::mem::take(&mut part), found);
                    continue;
                }
                _ => {}
            }
            part.push(letter);
        }
        // Trimming the end may have taken braces of deeper levels along.
        part.push_str(&"}".repeat(usize::try_from(depth).unwrap_or_default()));
        spread(&prefix, &part, found);
        return;
    }
    let name = tree.split_whitespace().next().unwrap_or_default();
    if !name.is_empty() {
        let path = format!("{prefix}{name}");
        found.push(path.trim_end_matches("::self").to_owned());
    }
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

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("src is a tree of folders") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let name =
        |path: &Path| path.strip_prefix(&root).expect("it was found below src").to_string_lossy().replace('\\', "/");
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("sources are text"))).collect()
}

#[test]
fn every_file_keeps_the_rules() {
    let found: Vec<String> = sources().iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn there_are_files_that_decide() {
    let paths: Vec<String> = sources().into_iter().map(|(path, _)| path).collect();
    assert!(paths.iter().any(|path| path == "endpoints/decide.rs"), "{paths:?}");
    assert!(paths.iter().any(|path| path == "cluster/spec.rs"), "{paths:?}");
}

#[test]
fn a_planted_import_is_found() {
    let pure =
        ["endpoints/decide.rs", "scheduler/decide.rs", "scheduler/decide/offers.rs", "plan/mod.rs", "cluster/spec.rs"];
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
        assert!(!violations("node/agent.rs", text).is_empty(), "{text}");
        assert!(violations("node/command.rs", text).is_empty(), "{text}");
    }
    for text in ["use anyhow::Context;", "fn f() -> anyhow::Result<()> { Ok(()) }"] {
        assert!(!violations("endpoints/run.rs", text).is_empty(), "{text}");
        assert!(violations("cli/up.rs", text).is_empty(), "{text}");
        assert!(violations("bin/km.rs", text).is_empty(), "{text}");
    }
}

#[test]
fn hidden_ways_are_found_too() {
    for text in
        ["use std::time;", "use std::time::*;", "use kube;", "use std;", "use kube::api::*;", "use std::{time, fmt};"]
    {
        assert!(!violations("endpoints/decide.rs", text).is_empty(), "{text}");
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
        "use crate::node::launch::Grant;",
    ];
    for text in allowed {
        assert_eq!(violations("endpoints/decide.rs", text), Vec::<String>::new(), "{text}");
    }
}

/// Words by which code would tell versions of Kubernetes apart, outside of the one table of them.
fn compares_versions(path: &str, text: &str) -> bool {
    let code = code(text);
    let words = code.split(|letter: char| !is_word(letter));
    path != "k8s/version.rs" && words.into_iter().any(|word| word == "minor")
}

#[test]
fn versions_are_told_apart_in_one_table_only() {
    let found: Vec<String> =
        sources().into_iter().filter(|(path, text)| compares_versions(path, text)).map(|(path, _)| path).collect();
    assert!(found.is_empty(), "what differs between minors belongs into k8s/version.rs, not into {found:?}");
    assert!(compares_versions("node/spec.rs", "fn f(v: Version) -> bool { v.minor < 38 }"));
    assert!(compares_versions("k8s/mod.rs", "let Version { minor, .. } = v;"));
    assert!(!compares_versions("k8s/version.rs", "self.minor < 38"));
}
