//! Compares a host with its manifest. Nothing is changed.
use kmctl_core::protocol::host::Observation;
use kmctl_core::protocol::host::Observations;
use kmctl_core::protocol::host::Observed;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::AgentError;
use super::files::Root;
use super::units;
use super::{founder, http, lock, material, member, objects};
use kmctl_core::bundle::hex_digest;
use kmctl_core::protocol::host::UnitState;
use kmctl_core::protocol::host::{FORMAT, HostManifest, Item, KM, LIBRARY, STATE};

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

const DIGESTS: &str = "/var/lib/kmctl/digests.json";

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

pub(crate) fn observe(root: &Root, manifest: &HostManifest, now: Timestamp) -> Result<Observations, AgentError> {
    let mut digests = Digests::load(root);
    let names: Vec<String> = manifest
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Unit(spec) => Some(spec.name.clone()),
            _ => None,
        })
        .collect();
    let states = units::states(root, &names)?;
    let etcd_runs = states.get("etcd.service").is_some_and(|state| state.active == "active");
    let members = manifest.items.iter().filter(|_| etcd_runs).find_map(|item| match item {
        Item::Vote(spec) => Some(member::list(root, spec)),
        _ => None,
    });
    let mut items = Vec::new();
    for item in &manifest.items {
        let unit = match item {
            Item::Unit(spec) => states.get(&spec.name).cloned(),
            _ => None,
        };
        let observed = match item {
            Item::Vote(spec) => member::observe_vote(spec, members.as_ref()),
            item => observe_item(root, item, unit.as_ref(), &mut digests, now)?,
        };
        items.push(Observation { name: item.name(), observed, unit });
    }
    let mut versions: Vec<String> = fs::read_dir(root.at(LIBRARY))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("manifest.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    versions.sort();
    Ok(Observations {
        format: FORMAT,
        hostname: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        km: digests.of(root, KM)?,
        lock: lock::holder(root),
        versions,
        members: members.and_then(Result::ok).unwrap_or_default(),
        founder: founder::read(root)?,
        items,
    })
}

/// Compares one item.
pub(crate) fn observe_item(
    root: &Root,
    item: &Item,
    unit: Option<&UnitState>,
    digests: &mut Digests,
    now: Timestamp,
) -> Result<Observed, AgentError> {
    match item {
        Item::Directory { path, mode, .. } => Ok(match root.mode(path) {
            None => Observed::Missing,
            Some(_) if !root.is_directory(path) => Observed::different("it is no folder"),
            Some(found) => Observed::from_problems(wrong_mode(found, *mode)),
        }),
        Item::File { path, mode, text, .. } => {
            let Some(current) = root.text(path)? else { return Ok(Observed::Missing) };
            let mut why = wrong_mode(root.mode(path).unwrap_or_default(), *mode);
            if current == *text {
                return Ok(Observed::from_problems(why));
            }
            why.push("its text differs".to_owned());
            Ok(Observed::Different { why, current: Some(current) })
        }
        Item::Program { path, mode, sha256, .. } => {
            let Some(found) = digests.of(root, path)? else { return Ok(Observed::Missing) };
            let mut why = wrong_mode(root.mode(path).unwrap_or_default(), *mode);
            if found != *sha256 {
                why.push(format!("its sha256 is {found}"));
            }
            Ok(Observed::from_problems(why))
        }
        Item::Secret { path, sha256 } => {
            let Some(bytes) = root.bytes(path)? else { return Ok(Observed::Missing) };
            let mut why = wrong_mode(root.mode(path).unwrap_or_default(), 0o600);
            let found = {
                use sha2::Digest;
                hex::encode(sha2::Sha256::digest(&bytes))
            };
            if sha256.as_ref().is_some_and(|wanted| *wanted != found) {
                why.push("its content differs".to_owned());
            }
            Ok(Observed::from_problems(why))
        }
        Item::Authority(spec) => material::observe_authority(root, spec, now),
        Item::KeyPair { path } => material::observe_key_pair(root, path),
        Item::EncryptionKey { path } => material::observe_encryption_key(root, path),
        Item::Certificate(spec) => material::observe_certificate(root, spec, now),
        Item::Kubeconfig(spec) => material::observe_kubeconfig(root, spec, now),
        Item::Unit(spec) => Ok(Observed::from_problems(units::problems(root, spec, unit, digests)?)),
        // A snapshot is only taken along with other changes; it is no state that could differ. The right founder is
        // known only to a run that sees all hosts.
        Item::Snapshot { .. } | Item::Vote(_) | Item::Founder => Ok(Observed::Same),
        Item::Member(spec) => Ok(member::observe(root, spec)),
        Item::Health(spec) if root.is_host() => Ok(match http::probe(root, spec) {
            Ok(None) => Observed::Same,
            Ok(Some(answer)) => Observed::different(answer),
            // The certificates do not exist yet.
            Err(_) => Observed::Missing,
        }),
        Item::Objects { kubeconfig, objects } if root.is_host() => objects::observe(root, kubeconfig, objects),
        Item::Health(_) | Item::Objects { .. } => Ok(Observed::Same),
    }
}

fn wrong_mode(found: u32, wanted: u32) -> Vec<String> {
    if found == wanted { Vec::new() } else { vec![format!("its mode is {found:04o}, wanted {wanted:04o}")] }
}

/// Directory of the records of what units were started with.
pub(crate) fn records() -> String {
    format!("{STATE}/units")
}
