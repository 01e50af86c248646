//! Makes a bundle out of a folder with `bin/`, `cni/`, `images/`, and `cni.d/` with the network configuration that belongs
//! to a plugin of the user's own.
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::read::{hex, hex_digest};
use super::{BundleError, BundleFile, Manifest, Purpose};

/// Programs that run on control-plane hosts.
const CONTROL_PLANE: [&str; 5] =
    ["bin/etcd", "bin/etcdctl", "bin/kube-apiserver", "bin/kube-controller-manager", "bin/kube-scheduler"];

/// Programs that every node needs. What lies in the other folders is the node's as well.
const NODE: [&str; 6] =
    ["bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/kube-proxy", "bin/kubelet", "bin/runc"];

/// Stock plugins that a node's network is made of, unless a configuration of the user's own comes along in `cni.d/`.
const PLUGINS: [&str; 4] = ["cni/host-local", "cni/loopback", "cni/portmap", "cni/ptp"];

/// The files that a bundle must have, by their path in it; the plugins unless `cni.d/` has a configuration of the user's own.
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
    // The manifest comes first in the archive but knows every digest, so the files are packed aside, then joined.
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let failed = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| BundleError::File { what, path, source }
    };
    let staging = tempfile::tempdir_in(&parent).map_err(failed("make a folder in", &parent))?;
    let mut files = Vec::new();
    for (path, source) in &sources {
        progress(path);
        let packed = staging.path().join(files.len().to_string());
        let (sha256, size) = pack(source, &packed).map_err(failed("pack", source))?;
        let of_packed = File::open(&packed).and_then(|mut packed| hex_digest(&mut packed));
        let (packed_sha256, _) = of_packed.map_err(failed("read", &packed))?;
        let images = if path.starts_with("images/") { image_names(source)? } else { Vec::new() };
        let (path, purposes) = (path.clone(), purposes(path));
        files.push(BundleFile { path, sha256, size, packed_sha256: Some(packed_sha256), purposes, images });
    }
    let manifest =
        Manifest { format: 1, kubernetes: kubernetes.to_owned(), architecture: architecture.to_owned(), files };
    let partial = parent.join(format!(".{}.partial", out.file_name().unwrap_or_default().to_string_lossy()));
    write_archive(&manifest, staging.path(), &partial).map_err(failed("write", &partial))?;
    fs::rename(&partial, out).map_err(failed("write", out))?;
    Ok(manifest)
}

fn write_archive(manifest: &Manifest, staging: &Path, out: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(BufWriter::new(File::create(out)?));
    let text = serde_json::to_vec_pretty(manifest)?;
    archive.append_data(&mut header(text.len() as u64), "manifest.json", text.as_slice())?;
    for (index, file) in manifest.files.iter().enumerate() {
        let packed = File::open(staging.join(index.to_string()))?;
        let mut header = header(packed.metadata()?.len());
        archive.append_data(&mut header, format!("{}.gz", file.path), packed)?;
    }
    let mut file = archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.flush()?;
    file.sync_all()
}

/// Times and owners are left out, so that equal files make an equal bundle.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

/// Level 2: packing is faster than most links, and higher levels gain a tenth for twice the time. It stores what cannot be
/// packed, which level 1 makes larger and slow to unpack.
const LEVEL: Compression = Compression::new(2);

fn pack(source: &Path, packed: &Path) -> io::Result<(String, u64)> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(source)?);
    let mut writer = GzEncoder::new(BufWriter::new(File::create(packed)?), LEVEL);
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        writer.write_all(&buffer[..read])?;
        size += read as u64;
    }
    writer.finish()?.flush()?;
    Ok((hex(&digest.finalize()), size))
}

fn purposes(path: &str) -> Vec<Purpose> {
    if CONTROL_PLANE.contains(&path) { vec![Purpose::ControlPlane] } else { vec![Purpose::Node] }
}

/// Every file of a bundle's folders, sorted by its path in the bundle.
fn collect(folder: &Path) -> Result<Vec<(String, PathBuf)>, BundleError> {
    let mut found = Vec::new();
    fs::read_dir(folder).map_err(|source| BundleError::File { what: "list", path: folder.to_owned(), source })?;
    for part in ["bin", "cni", "cni.d", "images"] {
        let part_folder = folder.join(part);
        if !part_folder.is_dir() {
            continue;
        }
        let failed = |source| BundleError::File { what: "list", path: part_folder.clone(), source };
        for entry in fs::read_dir(&part_folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Follows links: Debian's packages link some programs.
            if entry.path().is_file() {
                found.push((format!("{part}/{}", entry.file_name().to_string_lossy()), entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Names in an image archive as `docker save` writes it.
fn image_names(archive: &Path) -> Result<Vec<String>, BundleError> {
    #[derive(serde::Deserialize)]
    struct Image {
        #[serde(rename = "RepoTags", default)]
        tags: Option<Vec<String>>,
    }
    let failed = |source| BundleError::File { what: "read image archive", path: archive.to_owned(), source };
    let mut reader = tar::Archive::new(BufReader::new(File::open(archive).map_err(failed)?));
    for entry in reader.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if entry.path().map_err(failed)?.as_os_str() != "manifest.json" {
            continue;
        }
        let mut text = String::new();
        entry.read_to_string(&mut text).map_err(failed)?;
        let images: Vec<Image> = serde_json::from_str(&text).map_err(|error| BundleError::NotABundle {
            path: archive.to_owned(),
            why: format!("its manifest.json cannot be read: {error}"),
        })?;
        return Ok(images.into_iter().flat_map(|image| image.tags.unwrap_or_default()).collect());
    }
    Err(BundleError::NotABundle {
        path: archive.to_owned(),
        why: "an image archive must hold a manifest.json, as `docker save` writes it".to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bundle::Bundle;

    /// A folder with tiny stand-ins for every required program.
    pub(crate) fn folder() -> tempfile::TempDir {
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
