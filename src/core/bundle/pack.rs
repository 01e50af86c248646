//! Writes the archive: files are packed one by one as they become available, then joined after their manifest.
//!
//! The bundle's file name does not exist until the archive is complete and on the disk. Packed files are unnamed
//! temporary files until then, so that a killed run leaves none behind. The archive is first written under a name that
//! ends with `.partial`, which the next run reuses.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::manifest::Component;
use super::read::hex_digest;
use super::{BundleError, BundleFile, Manifest, create};

/// Level 2: packing is faster than most links, and higher levels save a tenth for twice the time. It stores
/// incompressible data as is, which level 1 makes larger and slow to unpack.
const LEVEL: Compression = Compression::new(2);

/// A bundle that is being created.
pub struct Packer {
    out: PathBuf,
    folder: PathBuf,
    packed: Vec<(BundleFile, File)>,
}

impl Packer {
    /// A packer that will write `out`.
    pub fn new(out: &Path) -> Result<Packer, BundleError> {
        let folder = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Packer { out: out.to_owned(), folder, packed: Vec::new() })
    }

    /// The directory in which the bundle is created.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Packs everything that `source` yields as `path`.
    pub fn add(&mut self, path: &str, images: Vec<String>, source: impl Read) -> Result<(), BundleError> {
        let failed = |error| BundleError::File { what: "pack", path: PathBuf::from(path), source: error };
        let mut file = tempfile::tempfile_in(&self.folder).map_err(failed)?;
        let (sha256, size) = pack(source, &file).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let (packed_sha256, _) = hex_digest(&mut file).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let purposes = create::purposes(path);
        let path = path.to_owned();
        self.packed
            .push((BundleFile { path, sha256, size, packed_sha256: Some(packed_sha256), purposes, images }, file));
        Ok(())
    }

    /// Joins all packed files and renames the result to its final name.
    pub fn finish(
        mut self,
        kubernetes: &str,
        architecture: &str,
        components: Vec<Component>,
    ) -> Result<Manifest, BundleError> {
        self.packed.sort_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        let files = self.packed.iter().map(|(file, _)| file.clone()).collect();
        let (kubernetes, architecture) = (kubernetes.to_owned(), architecture.to_owned());
        let manifest = Manifest { format: 1, kubernetes, architecture, components, files };
        let partial = self.folder.join(format!(".{}.partial", self.out.file_name().unwrap_or_default().display()));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BundleError::File { what: "write", path, source }
        };
        let file = own(&partial).map_err(failed(&partial))?;
        let written = self.write(&manifest, &file).map_err(failed(&partial));
        let named = written.and_then(|()| fs::rename(&partial, &self.out).map_err(failed(&self.out)));
        if named.is_err() {
            // The partial file may fill the disk. A failed removal is ignored: the error of the write matters more.
            let _ = fs::remove_file(&partial);
        }
        named.map(|()| manifest)
    }

    fn write(&self, manifest: &Manifest, out: &File) -> io::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::new(out));
        let text = serde_json::to_vec_pretty(manifest)?;
        archive.append_data(&mut header(text.len() as u64), "manifest.json", text.as_slice())?;
        for (file, packed) in &self.packed {
            let mut header = header(packed.metadata()?.len());
            archive.append_data(&mut header, format!("{}.gz", file.path), packed)?;
        }
        archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// An empty file at `path`, locked so that no other run writes to it.
fn own(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another command is writing it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    file.set_len(0)?;
    Ok(file)
}

/// A header without times and owners, so that equal files produce an equal bundle.
pub fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn pack(mut source: impl Read, packed: &File) -> io::Result<(String, u64)> {
    let mut writer = GzEncoder::new(BufWriter::new(packed), LEVEL);
    let mut digest = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        writer.write_all(&buffer[..read])?;
        size += read as u64;
    }
    writer.finish()?.flush()?;
    Ok((hex::encode(digest.finalize()), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_leaves_nothing_and_two_runs_do_not_write_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("bundle");
        let mut packer = Packer::new(&out).unwrap();
        packer.add("bin/etcd", Vec::new(), &b"etcd"[..]).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let held = own(&folder.path().join(".bundle.partial")).unwrap();
        let error = packer.finish("v1.37.2", "amd64", Vec::new()).unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error, "another command is writing it");
        drop(held);
        assert!(!out.exists());
    }
}
