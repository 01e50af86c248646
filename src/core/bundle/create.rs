//! Creates a bundle from a directory with `bin/`, `cni/`, `images/`, `licenses/`, and `cni.d/` with the network
//! configuration of a plugin of the user's own.
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::pack::Packer;
use super::{BundleError, Manifest, Purpose};

/// Binaries that run on control-plane hosts.
const CONTROL_PLANE: [&str; 5] =
    ["bin/etcd", "bin/etcdctl", "bin/kube-apiserver", "bin/kube-controller-manager", "bin/kube-scheduler"];

/// Optional binaries for control-plane hosts.
const CONTROL_PLANE_TOOLS: [&str; 1] = ["bin/etcdutl"];

/// Binaries that every node needs. All files in the other directories (except `licenses/`) are for nodes as well.
const NODE: [&str; 6] =
    ["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/kube-proxy", "bin/kubelet", "bin/runc"];

/// Stock plugins that a node's network uses, unless `cni.d/` contains a configuration of the user's own.
const PLUGINS: [&str; 4] = ["cni/host-local", "cni/loopback", "cni/portmap", "cni/ptp"];

/// The paths of the files that a bundle must contain. The plugins are not required if `cni.d/` contains a configuration
/// of the user's own.
pub fn required() -> impl Iterator<Item = &'static str> {
    CONTROL_PLANE.into_iter().chain(NODE).chain(PLUGINS)
}

/// Packs `folder` into `out` and returns the manifest. `progress` is called with every file's path before it is packed.
pub fn create(
    folder: &Path,
    kubernetes: &str,
    architecture: &str,
    out: &Path,
    mut progress: impl FnMut(&str),
) -> Result<Manifest, BundleError> {
    let sources = collect(folder)?;
    let configured = sources.iter().any(|(path, _)| path.starts_with("cni.d/"));
    let missing: Vec<String> = required()
        .filter(|path| !(configured && PLUGINS.contains(path)))
        .filter(|wanted| !sources.iter().any(|(path, _)| path == wanted))
        .map(str::to_owned)
        .collect();
    if !missing.is_empty() {
        return Err(BundleError::Incomplete { path: folder.to_owned(), missing });
    }
    let mut packer = Packer::new(out)?;
    for (path, source) in &sources {
        progress(path);
        let failed = |error| BundleError::File { what: "pack", path: source.to_owned(), source: error };
        let images = if path.starts_with("images/") { image_names(source)? } else { Vec::new() };
        packer.add(path, images, BufReader::with_capacity(1 << 20, File::open(source).map_err(failed)?))?;
    }
    packer.finish(kubernetes, architecture, Vec::new())
}

/// Which hosts need the file at `path` of a bundle.
pub(super) fn purposes(path: &str) -> Vec<Purpose> {
    if path.starts_with("licenses/") {
        Vec::new()
    } else if CONTROL_PLANE.contains(&path) || CONTROL_PLANE_TOOLS.contains(&path) {
        vec![Purpose::ControlPlane]
    } else {
        vec![Purpose::Node]
    }
}

/// Every file of a bundle's directories, sorted by its path in the bundle.
fn collect(folder: &Path) -> Result<Vec<(String, PathBuf)>, BundleError> {
    let mut found = Vec::new();
    fs::read_dir(folder).map_err(|source| BundleError::File { what: "list", path: folder.to_owned(), source })?;
    for part in ["bin", "cni", "cni.d", "images", "licenses"] {
        let part_folder = folder.join(part);
        if !part_folder.is_dir() {
            continue;
        }
        let failed = |source| BundleError::File { what: "list", path: part_folder.clone(), source };
        for entry in fs::read_dir(&part_folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // `is_file` follows links: Debian's packages link some binaries.
            if entry.path().is_file() {
                found.push((format!("{part}/{}", entry.file_name().to_string_lossy()), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Names in an image archive, either in the `docker save` format or in an OCI layout for containerd.
fn image_names(archive: &Path) -> Result<Vec<String>, BundleError> {
    #[derive(serde::Deserialize)]
    struct Image {
        #[serde(rename = "RepoTags", default)]
        tags: Option<Vec<String>>,
    }
    #[derive(serde::Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, String>,
    }
    let failed = |source| BundleError::File { what: "read image archive", path: archive.to_owned(), source };
    let not_read = |name: &str, error: serde_json::Error| BundleError::NotABundle {
        path: archive.to_owned(),
        why: format!("invalid {name}: {error}"),
    };
    let mut layout = None;
    let mut reader = tar::Archive::new(BufReader::new(File::open(archive).map_err(failed)?));
    for entry in reader.entries_with_seek().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        if name != "manifest.json" && name != "index.json" {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(failed)?;
        if name == "manifest.json" {
            let images: Vec<Image> = serde_json::from_str(&text).map_err(|error| not_read(&name, error))?;
            return Ok(images.into_iter().flat_map(|image| image.tags.unwrap_or_default()).collect());
        }
        let index: Index = serde_json::from_str(&text).map_err(|error| not_read(&name, error))?;
        let names = index.manifests.into_iter().filter_map(|mut entry| entry.annotations.remove(IMAGE_NAME));
        layout = Some(names.collect());
    }
    layout.ok_or_else(|| BundleError::NotABundle {
        path: archive.to_owned(),
        why: "an image archive must contain manifest.json, as `docker save` writes it, or index.json".to_owned(),
    })
}

/// The annotation from which containerd reads an image's name (containerd/containerd:core/images/annotations.go).
pub const IMAGE_NAME: &str = "io.containerd.image.name";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bundle::Bundle;
    use crate::bundle::pack::header;

    /// A directory with tiny stand-ins for every required file.
    pub fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in CONTROL_PLANE.iter().chain(&NODE).chain(&PLUGINS) {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, format!("program {path}").repeat(1000)).unwrap();
        }
        fs::create_dir_all(folder.path().join("images")).unwrap();
        let image = File::create(folder.path().join("images/pause.tar")).unwrap();
        let mut tar = tar::Builder::new(image);
        let text = br#"[{"Config":"c.json","RepoTags":["k8s.gcr.io/pause:3.2"],"Layers":[]}]"#;
        tar.append_data(&mut header(text.len() as u64), "manifest.json", &text[..]).unwrap();
        tar.finish().unwrap();
        folder
    }

    #[test]
    fn a_new_bundle_verifies_and_is_the_same_each_time() {
        let folder = folder();
        let out = tempfile::tempdir().unwrap();
        let (one, two) = (out.path().join("one"), out.path().join("two"));
        let mut seen = Vec::new();
        let manifest = create(folder.path(), "v1.37.2", "amd64", &one, |path| seen.push(path.to_owned())).unwrap();
        create(folder.path(), "v1.37.2", "amd64", &two, |_| ()).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert_eq!(seen.len(), manifest.files.len());
        let bundle = Bundle::open(&one).unwrap();
        assert_eq!(*bundle.manifest(), manifest);
        bundle.verify(|_| true).unwrap();
        let pause = manifest.files.iter().find(|file| file.path == "images/pause.tar").unwrap();
        assert_eq!(pause.images, ["k8s.gcr.io/pause:3.2"]);
        assert_eq!(pause.purposes, [Purpose::Node]);
        let etcd = manifest.files.iter().find(|file| file.path == "bin/etcd").unwrap();
        assert_eq!(etcd.purposes, [Purpose::ControlPlane]);
    }

    #[test]
    fn what_cannot_be_packed_does_not_grow() {
        let folder = folder();
        let mut bytes = vec![0; 1 << 20];
        rand::fill(&mut bytes[..]);
        fs::write(folder.path().join("bin/etcd"), &bytes).unwrap();
        let out = folder.path().join("bundle");
        create(folder.path(), "v1.37.2", "amd64", &out, |_| ()).unwrap();
        let (_, packed) = Bundle::open(&out).unwrap().packed("bin/etcd").unwrap();
        assert!(packed < (1 << 20) + 1024, "{packed} bytes");
    }

    #[test]
    fn a_plugin_and_its_configuration_are_the_nodes() {
        let folder = folder();
        fs::create_dir(folder.path().join("cni.d")).unwrap();
        for path in ["cni/mine", "cni.d/10-mine.conflist"] {
            fs::write(folder.path().join(path), path).unwrap();
        }
        let out = folder.path().join("bundle");
        let manifest = create(folder.path(), "v1.37.2", "amd64", &out, |_| ()).unwrap();
        for path in ["cni/mine", "cni.d/10-mine.conflist"] {
            let file = manifest.files.iter().find(|file| file.path == path).unwrap();
            assert_eq!(file.purposes, [Purpose::Node], "{path}");
        }
    }

    #[test]
    fn a_folder_without_the_stock_plugins_needs_a_configuration_of_its_own() {
        let folder = folder();
        fs::remove_file(folder.path().join("cni/ptp")).unwrap();
        let out = folder.path().join("bundle");
        let error = create(folder.path(), "v1.37.2", "amd64", &out, |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("lacks cni/ptp"), "{error}");
        fs::create_dir(folder.path().join("cni.d")).unwrap();
        fs::write(folder.path().join("cni.d/10-mine.conflist"), "{}").unwrap();
        create(folder.path(), "v1.37.2", "amd64", &out, |_| ()).unwrap();
    }

    #[test]
    fn a_folder_without_a_required_program_is_refused_by_name() {
        let folder = folder();
        fs::remove_file(folder.path().join("bin/etcd")).unwrap();
        let error =
            create(folder.path(), "v1.37.2", "amd64", &folder.path().join("out"), |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("lacks bin/etcd"), "{error}");
    }
}
