//! Reads what Rust files name, well enough for the walls.
use std::path::{Path, PathBuf};

/// Replaces comments and string literals by blanks, so that only code is read.
pub fn code(text: &str) -> String {
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

pub fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Every path that the code names, with `use` trees spread out: `use a::{b, c::d};` gives `a::b` and `a::c::d`.
/// Renamed imports count under their own name.
pub fn paths(code: &str) -> Vec<String> {
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

pub fn spread(prefix: &str, tree: &str, found: &mut Vec<String>) {
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

/// Every file of `src`, by its path below it, with its text.
pub fn sources() -> Vec<(String, String)> {
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
