//! `kmctl bundle show` and `kmctl bundle diff`: the content of a bundle, and how two differ. Both read tables of
//! contents only.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::cli::context::{Context, OutputFormat};
use crate::failure::{Code, Failure};
use kmctl_core::bundle::{Bundle, Component, Manifest};

/// Runs `kmctl bundle show`.
pub(super) fn show(file: &Path, context: &Context) -> Result<Code, Failure> {
    let bundle = open(file)?;
    match context.settings.output {
        OutputFormat::Text => context.stdout(&shown(bundle.manifest()))?,
        OutputFormat::Json => context.json(bundle.manifest())?,
    }
    Ok(Code::Ok)
}

/// Runs `kmctl bundle diff`.
pub(super) fn diff(one: &Path, other: &Path, context: &Context) -> Result<Code, Failure> {
    let difference = compare(open(one)?.manifest(), open(other)?.manifest());
    match context.settings.output {
        OutputFormat::Text => context.stdout(&told(&difference))?,
        OutputFormat::Json => context.json(&difference)?,
    }
    Ok(Code::Ok)
}

fn open(file: &Path) -> Result<Bundle, Failure> {
    let opened = Bundle::open(file);
    opened.map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("failed to open {}", file.display()));
        Failure::new(Code::Invalid, error)
    })
}

fn shown(manifest: &Manifest) -> String {
    let Manifest { format: _, kubernetes, architecture, components, files } = manifest;
    let mut text = format!("Kubernetes {kubernetes} for {architecture}\n");
    if components.is_empty() {
        text.push_str("\nComponents: not recorded, the bundle was created from a directory\n");
    } else {
        text.push_str("\nComponents\n");
    }
    for Component { name, version, origins, licence } in components {
        _ = writeln!(text, "  {name:12} {version:10} {licence}");
        origins.iter().for_each(|origin| _ = writeln!(text, "    {origin}"));
    }
    _ = writeln!(text, "\n{:>12}  {:64}  FILE", "BYTES", "SHA256");
    for file in files {
        _ = writeln!(text, "{:>12}  {}  {}", file.size, file.sha256, file.path);
        file.images.iter().for_each(|image| _ = writeln!(text, "{:>12}  {:64}    {image}", "", ""));
    }
    text
}

/// How two bundles differ. Equal parts are empty or absent.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<[String; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<[String; 2]>,
    /// Versions of components. A bundle may lack some.
    components: BTreeMap<String, [Option<String>; 2]>,
    files: Vec<FileDifference>,
}

#[derive(Debug, PartialEq, Serialize)]
struct FileDifference {
    path: String,
    /// In the first bundle, and in the second.
    sha256: [Option<String>; 2],
    size: [Option<u64>; 2],
}

fn compare(one: &Manifest, other: &Manifest) -> Difference {
    let both = |of: fn(&Manifest) -> &String| {
        let pair = [of(one).clone(), of(other).clone()];
        (pair[0] != pair[1]).then_some(pair)
    };
    let versions = |manifest: &Manifest| -> BTreeMap<String, String> {
        manifest.components.iter().map(|one| (one.name.clone(), one.version.clone())).collect()
    };
    let [first, second] = [versions(one), versions(other)];
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let components = names
        .into_iter()
        .map(|name| (name.clone(), [first.get(name).cloned(), second.get(name).cloned()]))
        .filter(|(_, [one, other])| one != other)
        .collect();
    let contents = |manifest: &Manifest| -> BTreeMap<String, (String, u64)> {
        manifest.files.iter().map(|file| (file.path.clone(), (file.sha256.clone(), file.size))).collect()
    };
    let [first, second] = [contents(one), contents(other)];
    let paths: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let files = paths
        .into_iter()
        .map(|path| (path, [first.get(path).cloned(), second.get(path).cloned()]))
        .filter(|(_, [one, other])| one != other)
        .map(|(path, pair)| {
            let [one, other] = pair.map(Option::unzip);
            FileDifference { path: path.clone(), sha256: [one.0, other.0], size: [one.1, other.1] }
        })
        .collect();
    Difference {
        kubernetes: both(|manifest| &manifest.kubernetes),
        architecture: both(|manifest| &manifest.architecture),
        components,
        files,
    }
}

fn told(difference: &Difference) -> String {
    let Difference { kubernetes, architecture, components, files } = difference;
    let mut text = String::new();
    for (what, pair) in [("kubernetes", kubernetes), ("architecture", architecture)] {
        if let Some([one, other]) = pair {
            _ = writeln!(text, "~ {what}: {one} → {other}");
        }
    }
    let absent = "none".to_owned();
    // Kubernetes is a component, too, and was printed already.
    for (name, [one, other]) in components.iter().filter(|(name, _)| *name != "kubernetes" || kubernetes.is_none()) {
        let [one, other] = [one, other].map(|version| version.as_ref().unwrap_or(&absent));
        _ = writeln!(text, "~ component {name}: {one} → {other}");
    }
    for FileDifference { path, sha256, size } in files {
        _ = match (sha256, size) {
            ([Some(one), Some(other)], [Some(before), Some(after)]) => {
                writeln!(text, "~ {path}: {before} → {after} bytes, sha256 {} → {}", short(one), short(other))
            }
            ([Some(one), None], [Some(size), _]) => {
                writeln!(text, "- {path}: {size} bytes, sha256 {}", short(one))
            }
            ([_, Some(other)], [_, Some(size)]) => writeln!(text, "+ {path}: {size} bytes, sha256 {}", short(other)),
            _ => Ok(()),
        };
    }
    if text.is_empty() { "The bundles have the same content.\n".to_owned() } else { text }
}

/// Enough of a digest to show that it differs. `-o json` prints all of it.
fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::bundle::BundleFile;

    fn manifest(kubernetes: &str, etcd: Option<&str>, files: &[(&str, &str)]) -> Manifest {
        let component = |version: &str| Component {
            name: "etcd".to_owned(),
            version: version.to_owned(),
            origins: vec!["https://example/etcd.tar.gz".to_owned()],
            licence: "Apache-2.0".to_owned(),
        };
        let file = |(path, content): &(&str, &str)| BundleFile {
            path: (*path).to_owned(),
            sha256: content.repeat(64),
            size: content.len() as u64,
            packed_sha256: None,
            purposes: Vec::new(),
            images: Vec::new(),
        };
        Manifest {
            format: 1,
            kubernetes: kubernetes.to_owned(),
            architecture: "amd64".to_owned(),
            components: etcd.map(component).into_iter().collect(),
            files: files.iter().map(file).collect(),
        }
    }

    #[test]
    fn two_bundles_are_compared_by_version_and_by_file() {
        let one = manifest("v1.36.3", Some("v3.6.15"), &[("bin/etcd", "a"), ("bin/kubelet", "b"), ("bin/old", "c")]);
        let other = manifest("v1.37.2", Some("v3.6.16"), &[("bin/etcd", "d"), ("bin/kubelet", "b"), ("bin/new", "e")]);
        insta::assert_snapshot!(told(&compare(&one, &other)));
        assert_eq!(told(&compare(&one, &one)), "The bundles have the same content.\n");
        let folder = manifest("v1.36.3", None, &[]);
        assert!(told(&compare(&folder, &one)).contains("component etcd: none → v3.6.15"));
        insta::assert_snapshot!(shown(&other));
    }
}
