//! What is done with the items of a manifest on a host: a file per kind. What is known about a kind without a host is
//! in core's `protocol/host/items`.
mod authority;
mod certificate;
mod directory;
mod encryption_key;
mod file;
pub(super) mod founder;
mod health;
mod key_pair;
mod kubeconfig;
mod member;
mod objects;
mod program;
mod secret;
mod snapshot;
mod unit;
mod vote;

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::run::{Inspection, Run};
use kmctl_core::protocol::host::{Change, Founder, Item, Kind, Observed};

/// A kind of item, on a host.
pub(crate) trait OnHost {
    /// Compares the host with the item. Nothing is changed.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError>;

    /// Makes the host match the item, or waits until it does.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError>;

    /// Stops what the item has started, before anything is removed. `None` if it starts nothing. What it has written is
    /// removed afterwards, as [`Kind::writes`] says.
    fn stop(&self, _: &Root, _: &mut Reporter<'_>) -> Result<Option<Change>, AgentError> {
        Ok(None)
    }
}

/// The item as its kind. This match is the only one over all kinds in `km host`.
pub(crate) fn on_host(item: &Item) -> &dyn OnHost {
    match item {
        Item::Directory(spec) => spec,
        Item::File(spec) => spec,
        Item::Program(spec) => spec,
        Item::Secret(spec) => spec,
        Item::Authority(spec) => spec,
        Item::KeyPair(spec) => spec,
        Item::EncryptionKey(spec) => spec,
        Item::Certificate(spec) => spec,
        Item::Kubeconfig(spec) => spec,
        Item::Snapshot(spec) => spec,
        Item::Founder => &Founder,
        Item::Member(spec) => spec,
        Item::Vote(spec) => spec,
        Item::Unit(spec) => spec,
        Item::Health(spec) => spec,
        Item::Objects(spec) => spec,
    }
}

/// Writes an item that is missing or differs.
fn converge(
    item: &(impl Kind + OnHost),
    run: &mut Run<'_, '_>,
    write: impl FnOnce(&Inspection<'_>) -> Result<(), AgentError>,
) -> Result<Change, AgentError> {
    let observed = item.observe(&mut run.host)?;
    let change = match observed {
        Observed::Same | Observed::Kept { .. } | Observed::Unknown { .. } => return Ok(Change::Unchanged),
        Observed::Missing => Change::Created,
        Observed::Different { .. } => Change::Updated,
    };
    if observed.changes_content() {
        run.outdate(&item.writes().files())?;
    }
    write(&run.host)?;
    Ok(change)
}
