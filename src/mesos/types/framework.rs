//! Frameworks.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FrameworkCapabilityType, FrameworkId, Labels};

/// Something a framework understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkCapability {
    /// What; a capability newer than the other side's own words arrives without any.
    #[serde(rename = "type", default)]
    pub kind: FrameworkCapabilityType,
}

impl From<FrameworkCapabilityType> for FrameworkCapability {
    fn from(kind: FrameworkCapabilityType) -> Self {
        Self { kind }
    }
}

/// A framework.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameworkInfo {
    /// User that executors run as.
    pub user: String,
    /// Shown in Mesos.
    pub name: String,
    /// Its id; absent at the very first subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<FrameworkId>,
    /// Seconds that tasks outlive a lost connection. Mesos' default is 0: all are killed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_timeout: Option<f64>,
    /// Lets executors survive a restart of their agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<bool>,
    /// Roles, with capability MULTI_ROLE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Old single role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where the scheduler runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The authenticated name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Linked from Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webui_url: Option<String>,
    /// What it understands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<FrameworkCapability>,
    /// Shown in Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Smallest offers wanted, by role; handed through.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offer_filters: BTreeMap<String, serde_json::Value>,
}
