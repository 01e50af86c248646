//! What disappeared while nothing was watched. A watch that restarts lists all objects again, and that list does not name the
//! objects deleted in between: they are found by comparing keys.
use std::collections::BTreeSet;

/// The keys that were known when a list began and that it has not named yet.
#[derive(Clone, Debug)]
pub struct Relist<K> {
    missing: Option<BTreeSet<K>>,
}

impl<K> Default for Relist<K> {
    fn default() -> Self {
        Relist { missing: None }
    }
}

impl<K: Ord> Relist<K> {
    /// A list begins. An unfinished one before it counts for nothing.
    pub fn begin(&mut self, known: impl IntoIterator<Item = K>) {
        self.missing = Some(known.into_iter().collect());
    }

    /// The list names an object, or a watch does meanwhile.
    pub fn name(&mut self, key: &K) {
        if let Some(missing) = &mut self.missing {
            missing.remove(key);
        }
    }

    /// The list is complete. Returns the keys that no longer exist; none without a [`begin`](Relist::begin).
    pub fn end(&mut self) -> BTreeSet<K> {
        self.missing.take().unwrap_or_default()
    }
}

/// The keys of one watch, for watchers that keep nothing else of its objects.
#[derive(Clone, Debug)]
pub struct KnownKeys<K> {
    present: BTreeSet<K>,
    relist: Relist<K>,
}

impl<K> Default for KnownKeys<K> {
    fn default() -> Self {
        KnownKeys { present: BTreeSet::new(), relist: Relist::default() }
    }
}

impl<K: Ord + Clone> KnownKeys<K> {
    /// A list begins.
    pub fn begin(&mut self) {
        self.relist.begin(self.present.iter().cloned());
    }

    /// An object exists.
    pub fn insert(&mut self, key: K) {
        self.relist.name(&key);
        self.present.insert(key);
    }

    /// An object was deleted.
    pub fn remove(&mut self, key: &K) {
        self.relist.name(key);
        self.present.remove(key);
    }

    /// The list is complete. Returns the keys that no longer exist, and forgets them.
    pub fn end(&mut self) -> BTreeSet<K> {
        let gone = self.relist.end();
        self.present.retain(|key| !gone.contains(key));
        gone
    }

    /// Whether no object is known.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reveals_what_was_deleted_while_nothing_was_watched() {
        let mut keys = KnownKeys::default();
        keys.begin();
        for key in ["a", "b", "c"] {
            keys.insert(key);
        }
        assert!(keys.end().is_empty(), "the first list");
        keys.remove(&"a");
        keys.insert("d");
        keys.begin();
        keys.insert("b");
        // The stream breaks; the next list counts.
        keys.begin();
        keys.insert("c");
        keys.insert("e");
        assert_eq!(keys.end(), BTreeSet::from(["b", "d"]));
        keys.begin();
        assert_eq!(keys.end(), BTreeSet::from(["c", "e"]));
        assert!(keys.is_empty());
    }

    #[test]
    fn what_is_deleted_during_a_list_is_reported_once() {
        let mut keys = KnownKeys::default();
        keys.insert("a");
        keys.begin();
        keys.remove(&"a");
        assert!(keys.end().is_empty());
    }
}
