//! Applies a manifest to a host, item by item, in order.
use kmctl_core::protocol::host::Header;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::process::Command;

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::bufread::GzDecoder;
use jiff::Timestamp;

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::observe::{self, Digests};
use super::{founder, http, lock, material, member, objects, units};
use kmctl_core::protocol::host::Observed;
use kmctl_core::protocol::host::{Change, Event};
use kmctl_core::protocol::host::{FORMAT, Item, STATE};

/// How many snapshots of etcd are kept.
const SNAPSHOTS: usize = 5;

/// Reads the stream's header and leaves the packed files in the stream.
fn read_header(stream: &mut dyn BufRead) -> Result<Header, AgentError> {
    let failed = |source| AgentError::Input { what: "read the stream's header".to_owned(), source };
    let mut line = String::new();
    stream.read_line(&mut line).map_err(failed)?;
    let length: u64 = line.trim().parse().map_err(|_| failed(io::Error::other("it does not begin with a length")))?;
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text).map_err(failed)?;
    let header: Header = serde_json::from_slice(&text).map_err(|error| failed(io::Error::other(error)))?;
    if header.manifest.format != FORMAT {
        return Err(AgentError::Refused(format!(
            "format {} of the manifest is not known to this km",
            header.manifest.format
        )));
    }
    Ok(header)
}

/// Applies a stream. The lock is held until the end.
pub(crate) fn apply(
    root: &Root,
    stream: &mut dyn BufRead,
    reporter: &mut Reporter<'_>,
    now: Timestamp,
) -> Result<(), AgentError> {
    let header = read_header(stream)?;
    let _lock = lock::take(root, header.holder.clone())?;
    let mut run = Run { root, header: &header, digests: Digests::load(root), next_payload: 0, now };
    run.tidy()?;
    for item in &header.manifest.items {
        let name = item.name();
        let outcome = run.item(item, stream, reporter);
        let change = outcome.map_err(|error| explain(item, error, reporter))?;
        reporter.done(name, change)?;
    }
    run.digests.save(root)?;
    let (changed, unchanged) = reporter.counts;
    reporter.send(&Event::Finished { changed, unchanged })
}

/// Reports an item's failure, with the journal of its unit.
fn explain(item: &Item, error: AgentError, reporter: &mut Reporter<'_>) -> AgentError {
    let unit = match item {
        Item::Unit(spec) => Some(&spec.name),
        Item::Health(spec) => Some(&spec.unit),
        _ => None,
    };
    let journal = unit.map(|unit| units::journal(unit)).unwrap_or_default();
    // If the events have no reader any more, the error itself still ends the run.
    let _ = reporter.send(&Event::Failed { item: Some(item.name()), causes: causes(&error), journal });
    error
}

/// An error and its chain of causes, outermost first.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

struct Run<'a> {
    root: &'a Root,
    header: &'a Header,
    digests: Digests,
    next_payload: usize,
    now: Timestamp,
}

impl Run<'_> {
    /// Removes temporary files that a killed run left.
    fn tidy(&self) -> Result<(), AgentError> {
        let mut folders: Vec<String> = self
            .header
            .manifest
            .items
            .iter()
            .flat_map(Item::paths)
            .filter_map(|path| Path::new(&path).parent().map(|folder| folder.to_string_lossy().into_owned()))
            .chain([observe::records(), STATE.to_owned()])
            .collect();
        folders.sort();
        folders.dedup();
        folders.iter().try_for_each(|folder| self.root.remove_partials(folder))
    }

    fn item(
        &mut self,
        item: &Item,
        stream: &mut dyn BufRead,
        reporter: &mut Reporter<'_>,
    ) -> Result<Change, AgentError> {
        if item.is_shared() {
            self.take_shared(item)?;
        }
        match item {
            // These items inspect the host themselves: the current state decides, not an earlier observation.
            Item::Program { path, mode, sha256, .. } => return self.program(path, *mode, sha256, stream, reporter),
            Item::Member(spec) => return member::apply(self.root, spec, self.header.etcd.start),
            Item::Founder => return founder::apply(self.root, self.header.etcd.founding.as_ref()),
            Item::Vote(_) | Item::Unit(_) | Item::Health(_) | Item::Snapshot { .. } | Item::Objects { .. } => {
                return self.running(item, reporter);
            }
            // The match that writes them names each kind.
            _ => {}
        }
        let observed = observe::observe_item(self.root, item, None, &mut self.digests, self.now)?;
        let change = match observed {
            Observed::Same | Observed::Kept { .. } | Observed::Unknown { .. } => return Ok(Change::Unchanged),
            Observed::Missing => Change::Created,
            Observed::Different { .. } => Change::Updated,
        };
        if observed.changes_content() {
            self.outdate(&item.paths())?;
        }
        match item {
            Item::Directory { path, mode, .. } => self.root.make_directory(path, *mode)?,
            Item::File { path, mode, text, .. } => self.root.write(path, *mode, text.as_bytes())?,
            Item::Secret { path, sha256 } => self.secret(path, sha256.as_deref())?,
            Item::Authority(spec) => material::apply_authority(self.root, spec, self.now)?,
            Item::KeyPair { path } => material::apply_key_pair(self.root, path)?,
            Item::EncryptionKey { path } => material::apply_encryption_key(self.root, path)?,
            Item::Certificate(spec) => material::apply_certificate(self.root, spec, self.now)?,
            Item::Kubeconfig(spec) => material::apply_kubeconfig(self.root, spec, self.now)?,
            Item::Program { .. }
            | Item::Founder
            | Item::Member(_)
            | Item::Vote(_)
            | Item::Unit(_)
            | Item::Health(_)
            | Item::Snapshot { .. }
            | Item::Objects { .. } => {}
        }
        Ok(change)
    }

    /// A unit may be running with the file that is about to be replaced. This is recorded first, so that the unit is
    /// restarted by this run, or by the next one if this one is killed in between.
    fn outdate(&self, paths: &[String]) -> Result<(), AgentError> {
        for spec in &self.header.units {
            if spec.reads.iter().any(|path| paths.contains(path)) {
                units::outdate(self.root, &spec.name)?;
            }
        }
        Ok(())
    }

    /// Writes the keys that another control-plane host created, before this host creates its own. Keys that a killed
    /// run created here are replaced as long as the host has never been a member of etcd. After that, different keys
    /// mean that the host belongs to another cluster.
    fn take_shared(&self, item: &Item) -> Result<(), AgentError> {
        for path in item.paths() {
            let Some(text) = self.header.shared.get(&path) else { continue };
            let wanted = decode(&path, text)?;
            match self.root.bytes(&path)? {
                Some(found) if found == wanted => {}
                Some(_) if self.header.etcd.start.is_none() => {
                    return Err(AgentError::Refused(format!(
                        "{path} is not what the other control-plane hosts have, and this host has etcd's data: it \
                         belongs to another cluster"
                    )));
                }
                _ => self.root.write(&path, material::mode_of_shared(&path), &wanted)?,
            }
        }
        Ok(())
    }

    fn secret(&self, path: &str, sha256: Option<&str>) -> Result<(), AgentError> {
        match (self.header.secrets.get(path), sha256) {
            (Some(text), Some(_)) => self.root.write(path, 0o600, &decode(path, text)?),
            _ if self.root.mode(path).is_some() => self.root.set_mode(path, 0o600),
            _ => Err(AgentError::Refused(format!("{path} is missing and was not sent"))),
        }
    }

    /// Installs a file from the bundle. Its bytes must be read from the stream even if they are no longer needed.
    fn program(
        &mut self,
        path: &str,
        mode: u32,
        sha256: &str,
        stream: &mut dyn BufRead,
        reporter: &mut Reporter<'_>,
    ) -> Result<Change, AgentError> {
        let sent = self.header.payload.get(self.next_payload).filter(|payload| payload.path == path);
        let found = self.digests.of(self.root, path)?;
        if let Some(payload) = sent {
            self.next_payload += 1;
            reporter.send(&Event::Started { item: path.to_owned() })?;
            let mut packed = stream.take(payload.packed);
            if found.as_deref() != Some(sha256) {
                self.outdate(&[path.to_owned()])?;
                self.root.write_from(path, mode, &mut GzDecoder::new(&mut packed), Some(sha256))?;
                self.digests.remember(self.root, path, sha256);
                io::copy(&mut packed, &mut io::sink())
                    .map_err(|source| AgentError::Input { what: format!("read {path} from the stream"), source })?;
                return Ok(if found.is_none() { Change::Created } else { Change::Updated });
            }
            io::copy(&mut packed, &mut io::sink())
                .map_err(|source| AgentError::Input { what: format!("read {path} from the stream"), source })?;
        } else if found.as_deref() != Some(sha256) {
            return Err(AgentError::Refused(format!("{path} differs from the bundle and was not sent: run again")));
        }
        if self.root.mode(path) != Some(mode) {
            self.root.set_mode(path, mode)?;
            return Ok(Change::Updated);
        }
        Ok(Change::Unchanged)
    }

    /// Items that need systemd or a running component. In a private root only the records are kept.
    fn running(&mut self, item: &Item, reporter: &mut Reporter<'_>) -> Result<Change, AgentError> {
        match item {
            Item::Unit(spec) => {
                let mut state = units::states(self.root, std::slice::from_ref(&spec.name))?.remove(&spec.name);
                if state.as_ref().is_some_and(|state| state.stale_definition) || state.is_none() {
                    units::reload(self.root)?;
                    state = units::states(self.root, std::slice::from_ref(&spec.name))?.remove(&spec.name);
                }
                if units::problems(self.root, spec, state.as_ref(), &mut self.digests)?.is_empty() {
                    return Ok(Change::Unchanged);
                }
                reporter.send(&Event::Started { item: spec.name.clone() })?;
                if state.as_ref().is_none_or(|state| state.enabled != "enabled") {
                    self.enable_all()?;
                }
                let was = |active: &str| state.as_ref().is_some_and(|state| state.active == active);
                units::restart(self.root, spec, was("failed"), &mut self.digests)?;
                let ran = was("active");
                Ok(if ran { Change::Restarted } else { Change::Started })
            }
            Item::Health(spec) if self.root.is_host() => {
                reporter.send(&Event::Started { item: spec.name.clone() })?;
                http::wait(self.root, spec, reporter)?;
                Ok(Change::Healthy)
            }
            Item::Objects { kubeconfig, objects } if self.root.is_host() => {
                let changed = objects::apply(self.root, kubeconfig, objects)?;
                Ok(if changed > 0 { Change::Updated } else { Change::Unchanged })
            }
            Item::Vote(spec) => {
                reporter.send(&Event::Started { item: item.name() })?;
                member::promote(self.root, spec, reporter)
            }
            Item::Snapshot { program, credentials, endpoint, folder } if self.root.is_host() => {
                if !self.etcd_runs()? {
                    return Ok(Change::Unchanged);
                }
                reporter.send(&Event::Started { item: item.name() })?;
                snapshot(self.root, program, credentials, endpoint, folder, self.now)?;
                Ok(Change::Created)
            }
            _ => Ok(Change::Unchanged),
        }
    }

    /// Enables all units of this part at boot, including those that are started later.
    fn enable_all(&self) -> Result<(), AgentError> {
        let names = self.header.manifest.items.iter().filter_map(|item| match item {
            Item::Unit(spec) => Some(spec.name.as_str()),
            _ => None,
        });
        units::enable(self.root, &names.collect::<Vec<_>>())
    }

    fn etcd_runs(&self) -> Result<bool, AgentError> {
        let states = units::states(self.root, &["etcd.service".to_owned()])?;
        Ok(states.get("etcd.service").is_some_and(|state| state.active == "active"))
    }
}

fn decode(path: &str, text: &str) -> Result<Vec<u8>, AgentError> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|error| AgentError::Input { what: format!("decode {path}"), source: io::Error::other(error) })
}

/// Saves a snapshot of etcd beside its data, and removes all but the newest snapshots.
fn snapshot(
    root: &Root,
    program: &str,
    credentials: &[String; 3],
    endpoint: &str,
    folder: &str,
    now: Timestamp,
) -> Result<(), AgentError> {
    let name = now.strftime("%Y%m%dT%H%M%SZ.db").to_string();
    let target = root.at(folder).join(&name);
    let [authority, certificate, key] = credentials;
    let output = Command::new(root.at(program))
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .arg(format!("--cacert={authority}"))
        .arg(format!("--cert={certificate}"))
        .arg(format!("--key={key}"))
        .args(["snapshot", "save"])
        .arg(&target)
        .output()
        .map_err(AgentError::file("run", &root.at(program)))?;
    if !output.status.success() {
        return Err(AgentError::Unit {
            what: "take a snapshot of etcd".to_owned(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let mut names: Vec<String> = std::fs::read_dir(root.at(folder))
        .map_err(AgentError::file("list", &root.at(folder)))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".db"))
        .collect();
    names.sort();
    let old = names.len().saturating_sub(SNAPSHOTS);
    for name in &names[..old] {
        root.remove(&format!("{folder}/{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
