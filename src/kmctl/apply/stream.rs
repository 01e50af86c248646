//! The one stream that a host receives: a header, then the files of the bundle that it lacks, as packed in the archive.
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::ApplyError;
use kmctl_core::bundle::{Bundle, BundleError};
use kmctl_core::protocol::host::{
    EtcdBootstrap, Header, HostManifest, Item, LIBRARY, LockOwner, MarkClaim, Payload, ProgramSpec, UnitSpec,
};

/// A stream and its length.
pub(crate) struct Stream {
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) bytes: u64,
}

/// What a stage applies of a host's manifest.
pub(crate) struct Part {
    pub(crate) manifest: HostManifest,
    /// All units of the host.
    pub(crate) units: Vec<UnitSpec>,
    /// Whose the host is.
    pub(crate) mark: MarkClaim,
}

/// Files of the bundle that a host lacks, by their path on the host.
pub(crate) type Missing = Vec<String>;

/// The path in the bundle of a binary's path on the host: the part below a directory of the library.
fn in_bundle(path: &str) -> Option<&str> {
    path.strip_prefix(LIBRARY)?.strip_prefix('/')?.split_once('/').map(|(_, path)| path)
}

/// Verifies everything that is about to be sent, before any of it is sent.
pub(crate) fn verify(bundle: &Bundle, missing: &Missing) -> Result<(), BundleError> {
    let wanted: Vec<&str> = missing.iter().filter_map(|path| in_bundle(path)).collect();
    bundle.verify_packed(|file| wanted.contains(&file.path.as_str()))
}

/// Builds the stream.
pub(crate) fn stream(
    bundle: Option<&Arc<Bundle>>,
    part: &Part,
    missing: &Missing,
    secrets: &BTreeMap<String, String>,
    shared: &BTreeMap<String, String>,
    etcd: &EtcdBootstrap,
    holder: &LockOwner,
) -> Result<Stream, ApplyError> {
    let Part { manifest, units, mark } = part;
    let mut payload = Vec::new();
    let mut parts = Vec::new();
    // The host reads them in the manifest's order.
    for ProgramSpec { path, .. } in manifest.items.iter().filter_map(Item::program) {
        let Some(bundle) = bundle else { continue };
        let Some(name) = in_bundle(path).filter(|_| missing.contains(path)) else { continue };
        let (_, packed) = bundle.packed(name).map_err(|source| {
            let path = bundle.path().to_owned();
            ApplyError::Bundle(BundleError::File { what: "read", path, source })
        })?;
        payload.push(Payload { path: path.clone(), packed });
        parts.push(name.to_owned());
    }
    let packed: u64 = payload.iter().map(|file| file.packed).sum();
    let header = Header {
        manifest: manifest.clone(),
        units: units.clone(),
        mark: mark.clone(),
        payload,
        secrets: secrets.clone(),
        shared: shared.clone(),
        etcd: etcd.clone(),
        holder: holder.clone(),
    };
    let header = header.to_bytes();
    let bytes = header.len() as u64 + packed;
    let files = Files { bundle: bundle.cloned(), names: parts.into_iter(), open: None };
    Ok(Stream { reader: Box::new(Cursor::new(header).chain(files)), bytes })
}

/// The packed files one after the other, each opened only when it is read.
struct Files {
    bundle: Option<Arc<Bundle>>,
    names: std::vec::IntoIter<String>,
    open: Option<Box<dyn Read + Send>>,
}

impl Read for Files {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(open) = &mut self.open {
                let read = open.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            let (Some(bundle), Some(name)) = (&self.bundle, self.names.next()) else { return Ok(0) };
            self.open = Some(Box::new(bundle.packed(&name)?.0));
        }
    }
}
