//! What is known about a kind of item without looking at a host.

/// A kind of item. Everything about it that both `kmctl` and `km host` must know is stated here once; what `km host`
/// does with it on a host is in a file of the same name in `src/km/host/items`.
///
/// A method without a default is a question about every kind. One with a default concerns a few of them.
pub trait Kind {
    /// Short name for messages, and the subject of its step in a plan: a path, a unit's name, or what is checked.
    fn name(&self) -> String;

    /// What it writes, and how long that is kept.
    fn writes(&self) -> Writes;

    /// Where it belongs in the sequence in which a host's manifest is applied.
    fn section(&self) -> Section;

    /// How it becomes a step of a plan.
    fn planned(&self) -> Planned;

    /// Size in bytes, unpacked, if it is sent beside the manifest.
    fn size(&self) -> Option<u64> {
        None
    }

    /// The wanted text, for the diff in a plan. Secrets have none.
    fn text(&self) -> Option<&str> {
        None
    }

    /// The unit whose journal explains why the item failed.
    fn journal(&self) -> Option<&str> {
        None
    }

    /// Whether every host's manifest contains it although it exists once per cluster: the first host writes it.
    fn once_per_cluster(&self) -> bool {
        false
    }
}

/// What an item writes on its host. `down` removes exactly this, so a file that no item declares stays behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writes {
    /// No file of its own.
    Nothing,
    /// These files.
    Files(Vec<String>, Until),
    /// This directory. Other items, or processes, write its content.
    Directory(String, Until),
}

/// When it is removed from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// By `down`: a later `up` writes it again. A directory is removed only if it is empty by then.
    Down,
    /// By `down --purge`, a directory with its content: a later `up` could not write the same again.
    Purge,
}

/// Which items are applied together. `kmctl` applies a host's manifest in stages, since hosts wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Directories, needed by every stage that writes files.
    Directories,
    /// The agreement on who bootstraps etcd, before anything that depends on it.
    Agreement,
    /// The same on every control-plane host. The first host creates it, and the others receive a copy.
    Shared,
    /// Files of the bundle, which are sent beside the manifest.
    Programs,
    /// All other files.
    Files,
    /// What saves etcd's content, before a running control plane is changed.
    Snapshot,
    /// What makes etcd run, one host at a time.
    Etcd,
    /// What runs on top of etcd.
    ControlPlane,
}

/// How an item becomes a step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Created if it is missing, and updated if it differs.
    Written,
    /// As `Written`, and correct if all that is known is that it exists.
    Existing,
    /// As `Written`, except that a missing one is an error: there is nothing to create it from.
    Kept,
    /// As `Written`, but in etcd: it may exist wherever etcd has data.
    InEtcd,
    /// Started if it does not run, and restarted if it runs with other files.
    Running,
    /// Waited for.
    Awaited,
    /// Decided with all hosts in view, which also yields its step, unless it is as wanted already.
    Membership,
    /// Decided with all hosts in view, and never a step of its own.
    Agreed,
    /// As `Written`, and nothing on a host where nothing runs yet.
    OnceRunning,
}

impl Writes {
    pub fn files(self) -> Vec<String> {
        match self {
            Writes::Files(paths, _) => paths,
            Writes::Nothing | Writes::Directory(..) => Vec::new(),
        }
    }

    /// One file.
    pub(super) fn file(path: &str, until: Until) -> Self {
        Writes::Files(vec![path.to_owned()], until)
    }
}
