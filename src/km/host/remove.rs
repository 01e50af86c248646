//! Removes what `apply` installed.
use kmctl_core::protocol::host::Removal;
use kmctl_core::protocol::host::RemoveRequest;
use std::time::Duration;

use super::events::Reporter;
use super::files::Root;
use super::{AgentError, lock, units};
use kmctl_core::protocol::host::{Change, Event};
use kmctl_core::protocol::host::{FRAMEWORK, Item, KM, LIBRARY, STATE};

/// Whether an item is removed although its data are kept. `down` keeps what a later `up` cannot recreate.
fn goes(item: &Item) -> bool {
    match item {
        Item::File { data, .. } => !data,
        Item::Program { .. } | Item::Kubeconfig(_) | Item::Member(_) => true,
        Item::Secret { .. } | Item::Authority(_) | Item::KeyPair { .. } | Item::EncryptionKey { .. } => false,
        Item::Certificate(_) | Item::Founder => false,
        Item::Directory { .. }
        | Item::Snapshot { .. }
        | Item::Vote(_)
        | Item::Unit(_)
        | Item::Health(_)
        | Item::Objects { .. } => false,
    }
}

/// Stops the units from last to first and removes their files. Continues after an error that concerns a file, and
/// returns the first one.
pub(crate) fn remove(root: &Root, request: RemoveRequest, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let RemoveRequest { manifest, removal, keep_framework, holder } = request;
    let lock = lock::take(root, holder)?;
    let purge = removal == Removal::Everything;
    for item in manifest.items.iter().rev() {
        if let Item::Unit(spec) = item {
            reporter.send(&Event::Started { item: spec.name.clone() })?;
            let mut waiting = |since: Duration| {
                let (item, last) = (spec.name.clone(), "still stopping".to_owned());
                reporter.send(&Event::Waiting { item, seconds: since.as_secs(), last })
            };
            let there = units::stop(root, &spec.name, &mut waiting)?;
            let change = if there { Change::Removed } else { Change::Unchanged };
            reporter.done(spec.name.clone(), change)?;
        }
    }
    let mut problems = Vec::new();
    for item in manifest.items.iter().rev().filter(|item| purge || goes(item)) {
        for path in item.paths() {
            match root.remove(&path) {
                Ok(true) => reporter.done(path, Change::Removed)?,
                Ok(false) => {}
                Err(error) => problems.push(error),
            }
        }
    }
    units::reload(root)?;
    let mut trees = vec![format!("{STATE}/units")];
    if !keep_framework {
        // After the framework's teardown its id is useless.
        trees.push(FRAMEWORK.to_owned());
    }
    if purge {
        trees.extend(manifest.items.iter().filter_map(|item| match item {
            Item::Directory { path, data: true, .. } if path != FRAMEWORK => Some(path.clone()),
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
    root.remove(&format!("{STATE}/digests.json"))?;
    if purge {
        // Other clusters may have their directories beside it: this host can be an agent of another cluster.
        root.remove(&format!("{STATE}/lock"))?;
    }
    // km itself: the running process keeps its inode.
    if root.remove(KM)? {
        reporter.done(KM.to_owned(), Change::Removed)?;
    }
    for item in manifest.items.iter().rev() {
        if let Item::Directory { path, .. } = item {
            root.remove_if_empty(path);
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
