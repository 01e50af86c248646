//! systemd units.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Writes};

/// etcd's unit. It is handled apart from the other units: hosts restart it one at a time.
pub const ETCD: &str = "etcd.service";

/// A systemd unit that should run with its current files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitSpec {
    /// E.g. `etcd.service`.
    pub name: String,
    /// Files that the running process has read. If one of them changes, the unit is restarted.
    pub reads: Vec<String>,
}

/// The section of what concerns a unit.
pub(super) fn section_of(unit: &str) -> Section {
    if unit == ETCD { Section::Etcd } else { Section::ControlPlane }
}

impl Kind for UnitSpec {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn writes(&self) -> Writes {
        // The unit's file is an item of its own.
        Writes::Nothing
    }

    fn section(&self) -> Section {
        section_of(&self.name)
    }

    fn planned(&self) -> Planned {
        Planned::Running
    }

    fn journal(&self) -> Option<&str> {
        Some(&self.name)
    }
}
