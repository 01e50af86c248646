//! Entries by key, and the only way to change one.
use std::collections::BTreeMap;

/// Entries by key. Rules read entries here, and change one only through its own methods within [`Table::update`]: sums
/// and indexes that follow from entries can be kept here later without any rule noticing.
#[derive(Clone, Debug)]
pub struct Table<E>(BTreeMap<String, E>);

impl<E> Default for Table<E> {
    fn default() -> Table<E> {
        Table(BTreeMap::new())
    }
}

impl<E> Table<E> {
    pub fn get(&self, key: &str) -> Option<&E> {
        self.0.get(key)
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// In the order of keys, as all iterators here.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &E)> {
        self.0.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &E> {
        self.0.values()
    }

    /// All keys, for rules that change entries while they visit them.
    pub fn keys(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Changes an entry. None, without a call, if there is none.
    pub fn update<R>(&mut self, key: &str, change: impl FnOnce(&mut E) -> R) -> Option<R> {
        self.0.get_mut(key).map(change)
    }

    /// Changes every entry.
    pub fn update_each(&mut self, mut change: impl FnMut(&String, &mut E)) {
        for (key, entry) in &mut self.0 {
            change(key, entry);
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<E> {
        self.0.remove(key)
    }

    /// Entries are created by their own parts.
    pub(super) fn insert(&mut self, key: String, entry: E) {
        self.0.insert(key, entry);
    }
}
