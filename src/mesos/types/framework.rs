//! Frameworks.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FrameworkCapabilityType, FrameworkId, Labels};

/// A feature that a framework supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameworkCapability {
    /// The feature. Mesos sends a capability that it has no name for without this field; it is read as `Unknown`.
    #[serde(rename = "type", default)]
    pub kind: FrameworkCapabilityType,
}

impl From<FrameworkCapabilityType> for FrameworkCapability {
    fn from(kind: FrameworkCapabilityType) -> Self {
        Self { kind }
    }
}

/// A framework, as it describes itself to the master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameworkInfo {
    /// User that executors run as.
    pub user: String,
    /// Name, shown in Mesos.
    pub name: String,
    /// Identifier, assigned by the master; absent in the very first subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<FrameworkId>,
    /// Seconds that tasks outlive a lost connection. Mesos' default is 0: all tasks are killed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_timeout: Option<f64>,
    /// Lets executors survive a restart of their agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<bool>,
    /// Roles of the framework; requires the capability MULTI_ROLE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Legacy single role, used without MULTI_ROLE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Host that the scheduler runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Principal that the framework authenticates as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// URL of the framework's web UI, linked from Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webui_url: Option<String>,
    /// Features that the framework supports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<FrameworkCapability>,
    /// Labels, shown in Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Minimum size of offers by role, passed through unchanged.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offer_filters: BTreeMap<String, serde_json::Value>,
}
