//! The host manifest: everything that a control-plane host should have, in the order in which it is applied.
use serde::{Deserialize, Serialize};

use super::items::{Item, MemberSpec, UnitSpec};

/// Version of this format; `km host` refuses other versions.
pub const FORMAT: u32 = 2;

/// Everything that a host should have. Items are applied from first to last, so an item must follow everything it
/// needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the host.
    pub host: String,
    /// Kubernetes version of the bundle.
    pub version: String,
    /// The desired items, in order.
    pub items: Vec<Item>,
}

impl HostManifest {
    /// The systemd units among the items.
    pub fn units(&self) -> Vec<UnitSpec> {
        self.items.iter().filter_map(Item::unit).cloned().collect()
    }

    /// The host as a member of etcd.
    pub fn member(&self) -> Option<&MemberSpec> {
        self.items.iter().find_map(|item| match item {
            Item::Member(spec) => Some(spec),
            _ => None,
        })
    }
}
