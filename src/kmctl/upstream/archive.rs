//! Extracts entries from a gzipped tar, together with licences.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

/// Why an archive was not read to its end.
pub(super) enum ArchiveError<E> {
    /// It is damaged, or not an archive.
    Read(io::Error),
    /// It has no such entry.
    NoEntry(String),
    /// `take` failed.
    Reader(E),
}

/// Calls `take` for every entry of `archive` that `entries` names, with its target path, and for every licence, whose
/// target path is `licenses/COMPONENT.NAME`.
pub(super) fn take<E>(
    archive: &Path,
    entries: &BTreeMap<String, String>,
    component: &str,
    mut take: impl FnMut(&str, &mut dyn Read) -> Result<(), E>,
) -> Result<(), ArchiveError<E>> {
    let mut missing: Vec<&String> = entries.keys().collect();
    let file = File::open(archive).map_err(ArchiveError::Read)?;
    let mut reader = tar::Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 20, file)));
    for entry in reader.entries().map_err(ArchiveError::Read)? {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let becomes = match entries.get(&path) {
            Some(becomes) => becomes.clone(),
            None => match licence(&path) {
                Some(name) => format!("licenses/{component}.{name}"),
                None => continue,
            },
        };
        missing.retain(|wanted| **wanted != path);
        take(&becomes, &mut entry).map_err(ArchiveError::Reader)?;
    }
    match missing.first() {
        Some(entry) => Err(ArchiveError::NoEntry((*entry).clone())),
        None => Ok(()),
    }
}

/// The name of a licence or notice at the top of an archive, or one directory below.
fn licence(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let known = ["LICENSE", "LICENCE", "NOTICE", "COPYING", "COPYRIGHT"];
    (path.matches('/').count() <= 1 && known.iter().any(|known| name.starts_with(known))).then_some(name)
}
