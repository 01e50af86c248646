//! The items of a host manifest: a file per kind, with its spec and everything about it that is pure.
mod authority;
mod certificate;
mod directory;
mod encryption_key;
mod file;
mod founder;
mod health;
mod key_pair;
mod kind;
mod kubeconfig;
mod member;
mod objects;
mod program;
mod secret;
mod snapshot;
mod unit;
mod vote;

use serde::{Deserialize, Serialize};

pub use authority::AuthoritySpec;
pub use certificate::CertificateSpec;
pub use directory::DirectorySpec;
pub use encryption_key::EncryptionKeySpec;
pub use file::FileSpec;
pub use founder::{FOUNDER, Founder};
pub use health::HealthSpec;
pub use key_pair::KeyPairSpec;
pub use kind::{Kind, Planned, Section, Until, Writes};
pub use kubeconfig::KubeconfigSpec;
pub use member::MemberSpec;
pub use objects::{ObjectSpec, ObjectsSpec};
pub use program::ProgramSpec;
pub use secret::SecretSpec;
pub use snapshot::SnapshotSpec;
pub use unit::{ETCD, UnitSpec};
pub use vote::VoteSpec;

/// One desired item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum Item {
    Directory(DirectorySpec),
    File(FileSpec),
    Program(ProgramSpec),
    Secret(SecretSpec),
    Authority(AuthoritySpec),
    KeyPair(KeyPairSpec),
    EncryptionKey(EncryptionKeySpec),
    Certificate(CertificateSpec),
    Kubeconfig(KubeconfigSpec),
    Snapshot(SnapshotSpec),
    Founder,
    Member(MemberSpec),
    Vote(VoteSpec),
    Unit(UnitSpec),
    Health(HealthSpec),
    Objects(ObjectsSpec),
}

impl Item {
    /// The item as its kind. This match is the only one over all kinds here; that of `km host` is in
    /// `src/km/host/items/mod.rs`.
    pub fn kind(&self) -> &dyn Kind {
        match self {
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

    /// Short name for messages: a path, a unit's name, or what is checked.
    pub fn name(&self) -> String {
        self.kind().name()
    }

    /// The files that the item writes.
    pub fn paths(&self) -> Vec<String> {
        self.kind().writes().files()
    }

    pub fn section(&self) -> Section {
        self.kind().section()
    }

    pub fn planned(&self) -> Planned {
        self.kind().planned()
    }

    /// Whether the item is the same on every control-plane host. The first host creates it, and the others receive a
    /// copy.
    pub fn is_shared(&self) -> bool {
        self.section() == Section::Shared
    }

    /// The systemd unit, if it is one.
    pub fn unit(&self) -> Option<&UnitSpec> {
        match self {
            Item::Unit(spec) => Some(spec),
            _ => None,
        }
    }

    /// The file of the bundle, if it is one.
    pub fn program(&self) -> Option<&ProgramSpec> {
        match self {
            Item::Program(spec) => Some(spec),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item of every kind per line, as the first release wrote them: a recorded manifest stays readable, and its
    /// digest in a saved plan the same.
    const RECORDED: &str = include_str!("recorded.jsonl");

    fn recorded() -> impl Iterator<Item = (&'static str, Item)> {
        RECORDED.lines().map(|line| (line, serde_json::from_str(line).unwrap()))
    }

    #[test]
    fn recorded_items_keep_their_bytes() {
        for (line, item) in recorded() {
            assert_eq!(serde_json::to_string(&item).unwrap(), line);
        }
    }

    #[test]
    fn an_item_of_every_kind_is_recorded() {
        // serde names all kinds when it meets an unknown one.
        let error = serde_json::from_str::<Item>(r#"{"kind":"?"}"#).unwrap_err().to_string();
        let kinds: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(kinds.len() >= 16, "{error}");
        for kind in kinds {
            assert!(RECORDED.contains(&format!(r#"{{"kind":"{kind}""#)), "{kind} is not in recorded.jsonl");
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        for (line, _) in recorded().filter(|(_, item)| *item != Item::Founder) {
            let more = line.replacen('{', r#"{"more":1,"#, 1);
            assert!(serde_json::from_str::<Item>(&more).is_err(), "{more}");
        }
    }

    #[test]
    fn what_is_shared_between_hosts_outlives_a_down() {
        for (_, item) in recorded().filter(|(_, item)| item.is_shared()) {
            let Writes::Files(paths, until) = item.kind().writes() else { panic!("{} writes no file", item.name()) };
            assert_eq!(until, Until::Purge, "{paths:?}: another host would have the only copy");
        }
    }
}
