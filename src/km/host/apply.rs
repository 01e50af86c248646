//! Applies a manifest to a host, item by item, in order.
use kmctl_core::protocol::host::Header;
use std::io::{self, BufRead, Read};
use std::path::Path;

use jiff::Timestamp;

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::items::on_host;
use super::run::{Inspection, Run, decode};
use super::{identity, keys, lock, units};
use kmctl_core::protocol::host::{Event, FORMAT, Item, STATE};

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
    // Before the lock, which already creates a directory, and again under it.
    identity::check(root, &header.mark.mark.cluster, &header.mark.mark.member)?;
    let _lock = lock::take(root, header.holder.clone())?;
    identity::claim(root, &header.mark)?;
    tidy(root, &header)?;
    let mut run = Run::new(Inspection::new(root, now), &header, stream, reporter);
    for item in &header.manifest.items {
        let shared = if item.is_shared() { take_shared(root, &header, item) } else { Ok(()) };
        let outcome = shared.and_then(|()| on_host(item).apply(&mut run));
        let change = outcome.map_err(|error| explain(item, error, run.reporter))?;
        run.reporter.done(item.name(), change)?;
    }
    run.host.digests.save(root)?;
    let (changed, unchanged) = reporter.counts;
    reporter.send(&Event::Finished { changed, unchanged })
}

/// Reports an item's failure, with the journal of its unit.
fn explain(item: &Item, error: AgentError, reporter: &mut Reporter<'_>) -> AgentError {
    let journal = item.kind().journal().map(units::journal).unwrap_or_default();
    // If the events have no reader any more, the error itself still ends the run.
    let _ = reporter.send(&Event::Failed { item: Some(item.name()), causes: causes(&error), journal });
    error
}

/// An error and its chain of causes, outermost first.
pub(crate) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}

/// Removes temporary files that a killed run left.
fn tidy(root: &Root, header: &Header) -> Result<(), AgentError> {
    let mut folders: Vec<String> = header
        .manifest
        .items
        .iter()
        .flat_map(Item::paths)
        .filter_map(|path| Path::new(&path).parent().map(|folder| folder.to_string_lossy().into_owned()))
        .chain([units::records(), STATE.to_owned()])
        .collect();
    folders.sort();
    folders.dedup();
    folders.iter().try_for_each(|folder| root.remove_partials(folder))
}

/// Writes the keys that another control-plane host created, before this host creates its own. Keys that a killed
/// run created here are replaced as long as the host has never been a member of etcd. After that, different keys
/// mean that the host belongs to another cluster.
fn take_shared(root: &Root, header: &Header, item: &Item) -> Result<(), AgentError> {
    for path in item.paths() {
        let Some(text) = header.shared.get(&path) else { continue };
        let wanted = decode(&path, text)?;
        match root.bytes(&path)? {
            Some(found) if found == wanted => {}
            Some(_) if header.etcd.start.is_none() => {
                return Err(AgentError::Refused(format!(
                    "{path} is not what the other control-plane hosts have, and this host has etcd's data: it \
                     belongs to another cluster"
                )));
            }
            _ => root.write(&path, keys::mode_of_shared(&path), &wanted)?,
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
