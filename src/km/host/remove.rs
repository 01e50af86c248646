//! Removes what `apply` installed.
use super::digests::DIGESTS;
use super::events::Reporter;
use super::files::Root;
use super::items::on_host;
use super::{AgentError, identity, lock, units};
use kmctl_core::protocol::host::{
    Change, DATA_RECORD, Event, FRAMEWORK, KM, LIBRARY, MARK, Removal, RemoveRequest, STATE, Until, Writes,
};

/// Stops the units from last to first and removes their files. Continues after an error that concerns a file, and
/// returns the first one.
pub(crate) fn remove(root: &Root, request: RemoveRequest, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let RemoveRequest { manifest, removal, keep_framework, holder } = request;
    identity::check(root, &manifest.cluster, &manifest.host)?;
    let lock = lock::take(root, holder)?;
    let purge = removal == Removal::Everything;
    for item in manifest.items.iter().rev() {
        if let Some(change) = on_host(item).stop(root, reporter)? {
            reporter.done(item.name(), change)?;
        }
    }
    let mut problems = Vec::new();
    for writes in manifest.items.iter().rev().map(|item| item.kind().writes()) {
        let Writes::Files(paths, until) = writes else { continue };
        // `down` keeps what a later `up` cannot write again.
        for path in paths.into_iter().filter(|_| purge || until == Until::Down) {
            match root.remove(&path) {
                Ok(true) => reporter.done(path, Change::Removed)?,
                Ok(false) => {}
                Err(error) => problems.push(error),
            }
        }
    }
    units::reload(root)?;
    let mut trees = vec![units::records()];
    if !keep_framework {
        // After the framework's teardown its id is useless.
        trees.push(FRAMEWORK.to_owned());
    }
    if purge {
        trees.extend(manifest.items.iter().filter_map(|item| match item.kind().writes() {
            Writes::Directory(path, Until::Purge) if path != FRAMEWORK => Some(path),
            _ => None,
        }));
    }
    for tree in trees {
        match root.remove_tree(&tree) {
            Ok(true) => reporter.done(tree, Change::Removed)?,
            Ok(false) => {}
            Err(error) => problems.push(error),
        }
    }
    root.remove(DIGESTS)?;
    if purge {
        // Other clusters may have their directories beside it: this host can be an agent of another cluster.
        root.remove(&format!("{STATE}/lock"))?;
    }
    if purge && problems.is_empty() {
        // Last, so that what a killed purge has left is still known as this cluster's.
        root.remove(DATA_RECORD)?;
        root.remove(MARK)?;
    }
    // km itself: the running process keeps its inode.
    if root.remove(KM)? {
        reporter.done(KM.to_owned(), Change::Removed)?;
    }
    for item in manifest.items.iter().rev() {
        if let Writes::Directory(path, _) = item.kind().writes() {
            root.remove_if_empty(&path);
        }
    }
    for folder in [format!("{LIBRARY}/bin"), LIBRARY.to_owned()] {
        root.remove_if_empty(&folder);
    }
    drop(lock);
    match problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => {
            let (changed, unchanged) = reporter.counts;
            reporter.send(&Event::Finished { changed, unchanged })
        }
    }
}
