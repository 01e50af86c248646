//! The lock file: what a bundle was made of, so that the next one is made of the same.
//!
//! ```json
//! {
//!   "format": 1,
//!   "kubernetes": "v1.37.2",
//!   "architecture": "amd64",
//!   "components": { "etcd": "3.6.16", "containerd": "2.3.7", "runc": "1.5.3", "cniPlugins": "1.10.0",
//!                   "pause": "3.10.2", "coredns": "v1.14.6" },
//!   "files": [{ "url": "https://dl.k8s.io/…/kubelet", "sha256": "…", "size": 92000000,
//!               "checksum": "https://dl.k8s.io/…/kubelet.sha256" }],
//!   "images": [{ "name": "registry.k8s.io/pause:3.10.2", "digest": "sha256:…",
//!                "blobs": [{ "url": "https://registry.k8s.io/v2/pause/blobs/sha256:…", "sha256": "…",
//!                            "size": 300000 }] }]
//! }
//! ```
//!
//! URLs are upstream's own, whatever mirror was used. A file with an entry needs no published checksum, so an entry
//! that was written by hand is a pin: `format`, `kubernetes`, `architecture`, and `url` and `sha256` of a file are
//! enough.
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checksums::is_digest;
use kmctl_core::k8s::Components;

/// What a bundle was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Version of this format: 1.
    pub format: u32,
    /// Version of Kubernetes, e.g. `v1.37.2`.
    pub kubernetes: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// The versions that were paired. If absent, the versions that this kmctl pairs are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Components>,
    /// Every file.
    pub files: Vec<LockedFile>,
    /// Every image.
    #[serde(default)]
    pub images: Vec<LockedImage>,
}

/// A file that was downloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedFile {
    /// Upstream's URL.
    pub url: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the sha256 was published. `None` for a pin and for blobs, whose URL contains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
}

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedImage {
    /// Name with tag, e.g. `registry.k8s.io/pause:3.10.2`.
    pub name: String,
    /// What the tag referred to: the digest of the index, or of the manifest if there is no index.
    pub digest: String,
    /// The blobs of the bundle's architecture.
    #[serde(default)]
    pub blobs: Vec<LockedFile>,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("failed to read the lock {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is not a lock file.
    #[error("{path} is not a lock file: {why}")]
    NotALock {
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It was made for something else.
    #[error("the lock {path} is for Kubernetes {kubernetes} on {architecture}, not for {wanted}")]
    Other {
        path: PathBuf,
        /// The lock's version of Kubernetes.
        kubernetes: String,
        /// The lock's architecture.
        architecture: String,
        /// What was requested.
        wanted: String,
    },
}

impl Lock {
    /// Reads the lock at `path`. Returns `None` if there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Lock>, LockError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Lock::parse(&text).map(Some).map_err(|why| LockError::NotALock { path: path.to_owned(), why }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LockError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(text: &str) -> Result<Lock, String> {
        let lock: Lock = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if lock.format != 1 {
            return Err(format!("unsupported format {}", lock.format));
        }
        if let Some(Components { etcd, containerd, runc, cni_plugins, pause, coredns }) = &lock.components {
            // They become parts of URLs and of file names.
            for version in [etcd, containerd, runc, cni_plugins, pause, coredns] {
                let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_+".contains(letter);
                if version.is_empty() || version.starts_with('.') || !version.chars().all(plain) {
                    return Err(format!("`{version}` is not a version"));
                }
            }
        }
        let blobs = lock.images.iter().flat_map(|image| &image.blobs);
        if let Some(file) = lock.files.iter().chain(blobs).find(|file| !is_digest(&file.sha256)) {
            return Err(format!("`{}` of {} is not a sha256", file.sha256, file.url));
        }
        Ok(lock)
    }

    /// Checks that it was made for this version and architecture.
    pub(super) fn fits(&self, path: &Path, kubernetes: &str, architecture: &str) -> Result<(), LockError> {
        if self.kubernetes == kubernetes && self.architecture == architecture {
            return Ok(());
        }
        Err(LockError::Other {
            path: path.to_owned(),
            kubernetes: self.kubernetes.clone(),
            architecture: self.architecture.clone(),
            wanted: format!("Kubernetes {kubernetes} on {architecture}"),
        })
    }

    /// The entry of the file at `url`.
    pub(super) fn file(&self, url: &str) -> Option<&LockedFile> {
        self.files.iter().find(|file| file.url == url)
    }

    /// The entry of the image `name`.
    pub(super) fn image(&self, name: &str) -> Option<&LockedImage> {
        self.images.iter().find(|image| image.name == name)
    }

    /// Writes the lock, unless the file has the same content already.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.as_file().sync_all()?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path).map(|_| ()).map_err(|error| error.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        Lock {
            format: 1,
            kubernetes: "v1.37.2".to_owned(),
            architecture: "amd64".to_owned(),
            components: Components::of("v1.37.2".parse().unwrap()).ok(),
            files: vec![LockedFile {
                url: "https://dl.k8s.io/x".to_owned(),
                sha256: "0".repeat(64),
                size: None,
                checksum: None,
            }],
            images: Vec::new(),
        }
    }

    #[test]
    fn a_lock_is_read_as_it_was_written_and_only_for_what_it_was_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        lock().write(&path).unwrap();
        let read = Lock::read(&path).unwrap().unwrap();
        assert_eq!(read, lock());
        assert!(read.fits(&path, "v1.37.2", "amd64").is_ok());
        assert!(read.fits(&path, "v1.37.3", "amd64").is_err() && read.fits(&path, "v1.37.2", "arm64").is_err());
    }

    #[test]
    fn what_is_no_lock_is_told_with_what_is_wrong() {
        let good = serde_json::to_string(&lock()).unwrap();
        let table = [
            ("{".to_owned(), "EOF"),
            (good.replace("\"format\":1", "\"format\":2"), "format 2"),
            (good.replace("3.6.16", "../3"), "`../3` is not a version"),
            (good.replace(&"0".repeat(64), "00"), "`00` of https://dl.k8s.io/x is not a sha256"),
        ];
        for (text, why) in table {
            let error = Lock::parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
