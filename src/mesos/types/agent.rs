//! Agents, masters and their locations.
use serde::{Deserialize, Serialize};

use super::{AgentCapabilityType, AgentId, Attribute, Resource};

/// An object that carries only a name; used for regions and zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name, set by the operator.
    pub name: String,
}

/// Region and zone of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultDomain {
    /// Regions are far apart.
    pub region: Named,
    /// Zones of a region are close together but fail independently.
    pub zone: Named,
}

/// Location of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainInfo {
    /// Region and zone, if the operator set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault_domain: Option<FaultDomain>,
}

impl DomainInfo {
    /// A domain with a region and a zone.
    pub fn new(region: impl Into<String>, zone: impl Into<String>) -> Self {
        let (region, zone) = (Named { name: region.into() }, Named { name: zone.into() });
        Self { fault_domain: Some(FaultDomain { region, zone }) }
    }
}

/// Network address of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Hostname of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// IP address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// TCP port.
    pub port: u16,
}

/// A URL in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Url {
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub address: Address,
    /// Path below the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A feature that an agent supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCapability {
    /// The feature. Mesos sends a capability that it has no name for without this field; it is read as `Unknown`.
    #[serde(rename = "type", default)]
    pub kind: AgentCapabilityType,
}

/// An agent, as the master and its executors see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Hostname, set by the agent's operator.
    pub hostname: String,
    /// Port of the agent's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// All resources of the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Attributes, set by the agent's operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// Identifier, assigned by the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AgentId>,
    /// Region and zone of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainInfo>,
}

/// A master, as it describes itself to frameworks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterInfo {
    /// Changes with every restart of the master process.
    pub id: String,
    /// Port of the master's API.
    pub port: u16,
    /// Hostname of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Version of Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Network address of the master's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Region and zone of the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainInfo>,
}
