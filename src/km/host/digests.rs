//! The digests of files, remembered between runs.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::AgentError;
use super::files::Root;
use kmctl_core::bundle::hex_digest;

/// Digests of files, cached as long as their inodes show no write: hashing half a gigabyte of binaries would take most
/// of a run in which nothing changes.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    known: BTreeMap<String, Remembered>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    inode: u64,
    size: u64,
    /// ctime in nanoseconds. The kernel sets it at every change, and it cannot be set back.
    changed: i128,
    sha256: String,
}

/// Where they are remembered.
pub(super) const DIGESTS: &str = "/var/lib/kmctl/digests.json";

impl Digests {
    pub(crate) fn load(root: &Root) -> Self {
        let known = root.text(DIGESTS).ok().flatten().and_then(|text| serde_json::from_str(&text).ok());
        Digests { known: known.unwrap_or_default() }
    }

    /// Called at the end of a run that changed something; losing the cache costs only time.
    pub(crate) fn save(&self, root: &Root) -> Result<(), AgentError> {
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        if root.bytes(DIGESTS)?.as_deref() == Some(&text) {
            return Ok(());
        }
        root.write(DIGESTS, 0o600, &text)
    }

    /// Records the digest of a file that was verified while it was written.
    pub(crate) fn remember(&mut self, root: &Root, path: &str, sha256: &str) {
        if let Ok(found) = fs::metadata(root.at(path)) {
            let remembered = Remembered {
                inode: found.ino(),
                size: found.len(),
                changed: changed(&found),
                sha256: sha256.to_owned(),
            };
            self.known.insert(path.to_owned(), remembered);
        }
    }

    /// The file's sha256, or none if there is no file.
    pub(crate) fn of(&mut self, root: &Root, path: &str) -> Result<Option<String>, AgentError> {
        let at = root.at(path);
        let Ok(found) = fs::metadata(&at) else { return Ok(None) };
        let changed = changed(&found);
        let same =
            |known: &&Remembered| (known.inode, known.size, known.changed) == (found.ino(), found.len(), changed);
        if let Some(known) = self.known.get(path).filter(same) {
            return Ok(Some(known.sha256.clone()));
        }
        let file = File::open(&at).map_err(AgentError::file("read", &at))?;
        let (sha256, size) = hex_digest(&mut BufReader::new(file)).map_err(AgentError::file("read", &at))?;
        let remembered = Remembered { inode: found.ino(), size, changed, sha256: sha256.clone() };
        self.known.insert(path.to_owned(), remembered);
        Ok(Some(sha256))
    }
}

fn changed(found: &fs::Metadata) -> i128 {
    i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec())
}
