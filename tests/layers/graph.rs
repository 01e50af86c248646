//! Which files of a member name which others.
use std::collections::{BTreeMap, BTreeSet};

use crate::source::{code, paths, spread};

/// A module's path, without the member.
type Module = Vec<String>;

/// Files by their paths below the member, with the files that each names. Tests are left out: they may look anywhere.
pub struct Graph {
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn of(files: &[(String, String)]) -> Graph {
        let files: Vec<(&String, Module, String)> = files
            .iter()
            .filter(|(path, _)| !is_test(path))
            .map(|(path, text)| (path, module(path), code(without_tests(text))))
            .collect();
        let by_module: BTreeMap<&Module, &String> = files.iter().map(|(path, module, _)| (module, *path)).collect();
        let mut passed_on = BTreeMap::new();
        let mut named = Vec::new();
        for (path, module, text) in &files {
            let mut rest = String::new();
            for (number, part) in text.split("pub").enumerate() {
                let (visibility, after) = match part.strip_prefix('(').and_then(|part| part.split_once(')')) {
                    Some((_, after)) => (true, after),
                    None => (number > 0, part),
                };
                let Some(tree) = after.trim_start().strip_prefix("use ").filter(|_| visibility) else {
                    rest.push_str(if number > 0 { "pub" } else { "" });
                    rest.push_str(part);
                    continue;
                };
                let (tree, after) = tree.split_once(';').unwrap_or((tree, ""));
                let mut leaves = Vec::new();
                spread("", tree, &mut leaves);
                for leaf in leaves {
                    let target = resolve(&leaf, module).unwrap_or_else(|| [module.clone(), words(&leaf)].concat());
                    if let Some(name) = target.last().cloned() {
                        passed_on.insert((module.clone(), name), target);
                    }
                }
                rest.push_str(after);
            }
            for used in paths(&rest) {
                named.extend(resolve(&used, module).map(|target| ((*path).clone(), target)));
            }
        }
        let mut edges: BTreeMap<String, BTreeSet<String>> =
            files.iter().map(|(path, ..)| ((*path).clone(), BTreeSet::new())).collect();
        for (from, target) in named {
            if let Some(to) = home(&target, &by_module, &passed_on, 0)
                && *to != from
            {
                edges.entry(from).or_default().insert(to.clone());
            }
        }
        Graph { edges }
    }

    /// Sets of files of which each names every other one, at least through others.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reached = |from: &String| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&String> = self.edges[from].iter().collect();
            while let Some(file) = next.pop() {
                if seen.insert(file) {
                    next.extend(&self.edges[file]);
                }
            }
            seen
        };
        let reach: BTreeMap<&String, BTreeSet<&String>> = self.edges.keys().map(|file| (file, reached(file))).collect();
        let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
        for (file, others) in &reach {
            let circle: Vec<String> =
                others.iter().filter(|other| reach[**other].contains(*file)).map(|other| (*other).clone()).collect();
            if circle.len() > 1 {
                found.insert(circle);
            }
        }
        found.into_iter().collect()
    }

    /// What names a folder that stands behind its own in `order`.
    pub fn against(&self, order: &[&str]) -> Vec<String> {
        let place = |path: &str| {
            let top = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
            order.iter().position(|folder| *folder == top).map_or(0, |place| place + 1)
        };
        let mut found = Vec::new();
        for (from, others) in &self.edges {
            // The member's own root names all of them.
            let wrong = others.iter().filter(|to| from != "lib.rs" && place(to) > place(from));
            found.extend(wrong.map(|to| format!("{from} names {to}")));
        }
        found
    }
}

fn is_test(path: &str) -> bool {
    path.ends_with("_tests.rs") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The text before the tests at its end.
fn without_tests(text: &str) -> &str {
    let begins = ["\n#[cfg(test)]\nmod ", "\n#[cfg(test)]\npub(crate) mod ", "\n#[cfg(test)]\npub(super) mod "];
    let end = begins.iter().filter_map(|begin| {
        let at = text.find(begin)?;
        text[at + begin.len()..].lines().next()?.ends_with('{').then_some(at)
    });
    &text[..end.min().unwrap_or(text.len())]
}

fn module(path: &str) -> Module {
    let mut words: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if words.last().is_some_and(|last| last == "mod" || last == "lib") {
        words.pop();
    }
    words
}

fn words(path: &str) -> Module {
    path.split("::").filter(|word| *word != "*").map(str::to_owned).collect()
}

/// The path from the member's root on; none for a path of another crate.
fn resolve(path: &str, module: &Module) -> Option<Module> {
    let words = words(path);
    let first = words.first()?;
    match first.as_str() {
        "crate" => Some(words[1..].to_vec()),
        "self" => Some([module.clone(), words[1..].to_vec()].concat()),
        "super" => {
            let ups = words.iter().take_while(|word| *word == "super").count();
            let kept = module.len().checked_sub(ups)?;
            Some([module[..kept].to_vec(), words[ups..].to_vec()].concat())
        }
        _ => None,
    }
}

/// The file in which `target` is defined, past what folders only pass on.
fn home<'a>(
    target: &Module,
    by_module: &BTreeMap<&Module, &'a String>,
    passed_on: &BTreeMap<(Module, String), Module>,
    depth: usize,
) -> Option<&'a String> {
    for length in (0..=target.len()).rev() {
        let module = target[..length].to_vec();
        let Some(file) = by_module.get(&module) else { continue };
        if length < target.len()
            && depth < 8
            && let Some(next) = passed_on.get(&(module, target[length].clone()))
        {
            let next = [next.clone(), target[length + 1..].to_vec()].concat();
            return home(&next, by_module, passed_on, depth + 1);
        }
        return Some(*file);
    }
    None
}
