//! The record of the host that bootstraps the etcd cluster.
use super::kind::{Kind, Planned, Section, Until, Writes};

/// The file that records the founder's name.
pub const FOUNDER: &str = "/var/lib/kmctl/etcd-founder";

/// Records the host that bootstraps the etcd cluster. Its name is only known after all hosts have been inspected, so it
/// is sent separately from the manifest.
#[derive(Clone, Copy, Debug)]
pub struct Founder;

impl Kind for Founder {
    fn name(&self) -> String {
        FOUNDER.to_owned()
    }

    fn writes(&self) -> Writes {
        Writes::file(FOUNDER, Until::Purge)
    }

    fn section(&self) -> Section {
        Section::Agreement
    }

    fn planned(&self) -> Planned {
        Planned::Agreed
    }
}
