//! Reads and verifies a bundle.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};

use super::{BundleError, BundleFile, Manifest};

/// Location of a packed file in the archive.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    packed: u64,
}

/// An open bundle whose table of contents has been read; its files have not been verified yet.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    manifest: Manifest,
    text: String,
    places: BTreeMap<String, Place>,
}

impl Bundle {
    /// Reads the table of contents and the locations of the files.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::File { what: "read", path: path.to_owned(), source };
        let not_ours = |why: String| BundleError::NotABundle { path: path.to_owned(), why };
        let mut archive = tar::Archive::new(File::open(path).map_err(failed)?);
        let mut manifest: Option<(Manifest, String)> = None;
        let mut places = BTreeMap::new();
        let entries = archive.entries_with_seek().map_err(failed)?;
        for entry in entries {
            // tar's own error would print the bytes that it could not parse.
            let mut entry = entry.map_err(|_| not_ours("damaged, or not an archive".to_owned()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if manifest.is_none() {
                if name != "manifest.json" {
                    return Err(not_ours("the first entry is not manifest.json".to_owned()));
                }
                let mut text = String::new();
                entry.read_to_string(&mut text).map_err(failed)?;
                let parsed =
                    serde_json::from_str(&text).map_err(|error| not_ours(format!("invalid manifest.json: {error}")))?;
                manifest = Some((parsed, text));
            } else if let Some(name) = name.strip_suffix(".gz") {
                places.insert(name.to_owned(), Place { offset: entry.raw_file_position(), packed: entry.size() });
            }
        }
        let (manifest, text) = manifest.ok_or_else(|| not_ours("it is empty".to_owned()))?;
        if manifest.format != 1 {
            return Err(not_ours(format!("unsupported format {}", manifest.format)));
        }
        for file in &manifest.files {
            let plain = Path::new(&file.path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if !plain {
                return Err(not_ours(format!("path `{}` is outside of the bundle", file.path)));
            }
        }
        Ok(Bundle { path: path.to_owned(), manifest, text, places })
    }

    /// The table of contents.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// `manifest.json` verbatim, as it is installed next to the unpacked files.
    pub fn manifest_text(&self) -> &str {
        &self.text
    }

    /// Path of the archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unpacks every file that `wanted` selects and compares it with the manifest. All problems are reported at once,
    /// in the manifest's order.
    ///
    /// # Errors
    /// Files that do not match the manifest, or cannot be read.
    pub fn verify(&self, wanted: impl Fn(&BundleFile) -> bool) -> Result<(), BundleError> {
        self.compare(wanted, |file| self.unpacked(file))
    }

    /// Like [`Bundle::verify`], but does not unpack files whose packed digest is in the manifest. That is enough for
    /// files that are about to be uploaded: the receiver verifies the unpacked bytes.
    ///
    /// # Errors
    /// Files that do not match the manifest, or cannot be read.
    pub fn verify_packed(&self, wanted: impl Fn(&BundleFile) -> bool) -> Result<(), BundleError> {
        self.compare(wanted, |file| match &file.packed_sha256 {
            None => self.unpacked(file),
            Some(expected) => match self.packed(&file.path).and_then(|(mut packed, _)| hex_digest(&mut packed)) {
                Ok((sha256, _)) if sha256 == *expected => None,
                Ok((sha256, _)) => Some(format!("{} has packed sha256 {sha256}, expected {expected}", file.path)),
                Err(error) => Some(format!("failed to read {}: {error}", file.path)),
            },
        })
    }

    /// All problems that `problem` finds with the wanted files, in the manifest's order. Uses all available processors.
    fn compare(
        &self,
        wanted: impl Fn(&BundleFile) -> bool,
        problem: impl Fn(&BundleFile) -> Option<String> + Sync,
    ) -> Result<(), BundleError> {
        let files: Vec<&BundleFile> = self.manifest.files.iter().filter(|file| wanted(file)).collect();
        let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((number, file)) = files.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Some(problem) = problem(file) {
                            found.lock().unwrap_or_else(PoisonError::into_inner).insert(number, problem);
                        }
                    }
                });
            }
        });
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let problems: Vec<String> = found.into_values().collect();
        if problems.is_empty() { Ok(()) } else { Err(BundleError::Mismatch { path: self.path.clone(), problems }) }
    }

    fn unpacked(&self, file: &BundleFile) -> Option<String> {
        let outcome = self.packed(&file.path).and_then(|(packed, _)| hex_digest(&mut GzDecoder::new(packed)));
        match outcome {
            Ok((sha256, size)) if sha256 == file.sha256 && size == file.size => None,
            Ok((sha256, _)) => Some(format!("{} has sha256 {sha256}, expected {}", file.path, file.sha256)),
            Err(error) => Some(format!("failed to unpack {}: {error}", file.path)),
        }
    }

    /// A file as stored in the archive, gzipped, and its packed size.
    pub fn packed(&self, path: &str) -> io::Result<(impl BufRead + Send + use<>, u64)> {
        let place = self
            .places
            .get(path)
            .copied()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not in the archive"))?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(place.offset))?;
        Ok((BufReader::with_capacity(1 << 18, file).take(place.packed), place.packed))
    }
}

/// The sha256 of everything that `source` yields, and its length in bytes.
pub fn hex_digest(source: &mut impl Read) -> io::Result<(String, u64)> {
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(digest.finalize()), size));
        }
        digest.update(&buffer[..read]);
        size += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::bundle::create;

    fn bundle(folder: &Path) -> PathBuf {
        let source = crate::bundle::create::tests::folder();
        let out = folder.join("bundle");
        create(source.path(), "v1.37.2", "amd64", &out, |_| ()).unwrap();
        out
    }

    #[test]
    fn a_changed_byte_is_found_and_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = bundle(folder.path());
        let opened = Bundle::open(&path).unwrap();
        let place = opened.places["bin/kube-apiserver"];
        let mut bytes = fs::read(&path).unwrap();
        bytes[(place.offset + place.packed / 2) as usize] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        for error in [bundle.verify(|_| true).unwrap_err(), bundle.verify_packed(|_| true).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("bin/kube-apiserver"), "{error}");
            assert!(!error.contains("bin/kubelet"), "{error}");
        }
        bundle.verify_packed(|file| file.path != "bin/kube-apiserver").unwrap();
    }

    #[test]
    fn a_bundle_of_before_is_verified_by_unpacking() {
        let folder = tempfile::tempdir().unwrap();
        let mut opened = Bundle::open(&bundle(folder.path())).unwrap();
        for file in &mut opened.manifest.files {
            file.packed_sha256 = None;
        }
        opened.verify_packed(|_| true).unwrap();
        opened.manifest.files[0].sha256 = "0".repeat(64);
        assert!(opened.verify_packed(|_| true).is_err());
    }

    #[test]
    fn a_truncated_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = bundle(folder.path());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let refused = Bundle::open(&path).and_then(|bundle| bundle.verify(|_| true));
        assert!(refused.is_err());
    }

    #[test]
    fn other_files_are_not_taken_for_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"hello").unwrap();
        assert!(Bundle::open(&path).is_err());
        fs::write(&path, b"").unwrap();
        assert!(Bundle::open(&path).is_err());
    }
}
