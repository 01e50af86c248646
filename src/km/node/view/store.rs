//! The objects of one list as this node's kube-proxy sees them, with versions and a history of their own. Pure.
//!
//! Versions are not the API server's: a pod's new address changes an object here that did not change there. They obey
//! the same rules, so that any client of the API may list and watch: a list has a version, each later change has a
//! higher one, and a watch continues from a version. A version that is too old (or was never issued) is [`Expired`].
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};

use super::translate::{Here, Resource, Translations};

/// How many changes a watch may lag behind. Beyond that the client lists again, which is always possible.
const HISTORY: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object is new.
    Added,
    /// The object has changed.
    Modified,
    /// The object is gone.
    Deleted,
}

impl ChangeKind {
    /// The name in a watch event.
    pub fn name(self) -> &'static str {
        match self {
            ChangeKind::Added => "ADDED",
            ChangeKind::Modified => "MODIFIED",
            ChangeKind::Deleted => "DELETED",
        }
    }
}

/// A change, as sent to watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version that the change created.
    pub version: u64,
    pub kind: ChangeKind,
    /// The object as JSON, with that version in it; for a deleted object, its last state.
    pub object: Bytes,
}

/// The version is too old to continue from, or was not issued by this store: list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The requested version.
    pub asked: u64,
    /// The oldest version to continue from.
    pub oldest: u64,
}

/// An object of the API server.
#[derive(Debug)]
struct Entry {
    /// The object's UID and version on the API server, by which unchanged objects of a relist are recognized.
    seen: String,
    /// The object itself, if it names this node: it is rewritten again when the node's ports change.
    local: Option<Value>,
    /// Names of the objects that replace it.
    shown: BTreeSet<String>,
}

/// The objects of one list.
#[derive(Debug)]
pub struct Store {
    resource: Resource,
    here: Here,
    /// By `namespace/name`.
    entries: BTreeMap<String, Entry>,
    /// By `namespace/name`, as JSON.
    shown: BTreeMap<String, Bytes>,
    version: u64,
    history: VecDeque<Change>,
    /// Version of the newest change that is no longer in the history.
    forgotten: u64,
    /// Whether the API server's list is complete.
    synced: bool,
    /// The objects of a list in progress.
    listed: BTreeSet<String>,
}

impl Store {
    /// An empty store.
    pub fn new(resource: Resource, here: Here) -> Store {
        Store {
            resource,
            here,
            entries: BTreeMap::new(),
            shown: BTreeMap::new(),
            // Zero means "any" to a client.
            version: 1,
            history: VecDeque::new(),
            forgotten: 0,
            synced: false,
            listed: BTreeSet::new(),
        }
    }

    /// Starts a list.
    pub fn begin_list(&mut self) {
        self.listed.clear();
    }

    /// Completes the list: objects that it did not contain are removed.
    pub fn end_list(&mut self) {
        let gone: Vec<String> = self.entries.keys().filter(|key| !self.listed.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        self.listed.clear();
        self.synced = true;
    }

    /// Adds or updates an object of the API server.
    pub fn apply(&mut self, mut object: Value) {
        let key = key(&object);
        self.listed.insert(key.clone());
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let seen = format!("{}@{}", text("uid"), text("resourceVersion"));
        if self.entries.get(&key).is_some_and(|entry| entry.seen == seen) {
            return;
        }
        // Larger than the rest, and useless to a reader.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        self.show(key, seen, object);
    }

    /// Removes an object that the API server no longer has.
    pub fn delete(&mut self, object: &Value) {
        self.remove(&key(object));
    }

    /// Updates the destinations of the node's ports.
    pub fn translate(&mut self, ports: Translations) {
        if self.here.ports == ports {
            return;
        }
        self.here.ports = ports;
        let local = |(key, entry): (&String, &Entry)| Some((key.clone(), entry.seen.clone(), entry.local.clone()?));
        let again: Vec<(String, String, Value)> = self.entries.iter().filter_map(local).collect();
        for (key, seen, object) in again {
            self.show(key, seen, object);
        }
    }

    /// Whether the API server's list was complete at least once.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The current version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All objects, as JSON.
    pub fn list(&self) -> Vec<Bytes> {
        self.shown.values().cloned().collect()
    }

    /// The changes after `version`, oldest first.
    pub fn since(&self, version: u64) -> Result<Vec<Change>, Expired> {
        if version < self.forgotten || version > self.version {
            return Err(Expired { asked: version, oldest: self.forgotten.max(1) });
        }
        Ok(self.history.iter().filter(|change| change.version > version).cloned().collect())
    }

    fn show(&mut self, key: String, seen: String, object: Value) {
        let rewritten = self.resource.rewrite(&object, &self.here);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let before = self.entries.remove(&key).map(|entry| entry.shown).unwrap_or_default();
        let mut now = BTreeSet::new();
        for mut object in rewritten {
            let name = format!("{namespace}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
            now.insert(name.clone());
            let old = self.shown.get(&name).map(parsed);
            if let Some(old) = &old {
                object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                if object == *old {
                    continue;
                }
            }
            let kind = if old.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
            let bytes = self.change(kind, object);
            self.shown.insert(name, bytes);
        }
        for name in before.difference(&now) {
            self.hide(name);
        }
        let local = self.resource.names(&object, self.here.address).then_some(object);
        self.entries.insert(key, Entry { seen, local, shown: now });
    }

    fn remove(&mut self, key: &str) {
        let Some(entry) = self.entries.remove(key) else { return };
        entry.shown.iter().for_each(|name| self.hide(name));
    }

    fn hide(&mut self, name: &str) {
        if let Some(bytes) = self.shown.remove(name) {
            self.change(ChangeKind::Deleted, parsed(&bytes));
        }
    }

    /// Records a change of `object` and returns the object as JSON with its new version.
    fn change(&mut self, kind: ChangeKind, mut object: Value) -> Bytes {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Bytes::from(object.to_string());
        self.history.push_back(Change { version: self.version, kind, object: object.clone() });
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
        object
    }
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn parsed(bytes: &Bytes) -> Value {
    // Written above; an unreadable object would only be reported as changed once more.
    serde_json::from_slice(bytes).unwrap_or_default()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
