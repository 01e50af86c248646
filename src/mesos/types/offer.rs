//! Offers and the operations on them.
use serde::{Deserialize, Serialize};

use super::{
    AgentId, AllocationInfo, Attribute, DomainInfo, DurationInfo, ExecutorId, FrameworkId, OfferId, OperationId,
    Resource, TaskInfo, TimeInfo, Url,
};

/// Maintenance announced by an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailability {
    /// Start of the maintenance.
    pub start: TimeInfo,
    /// Length of the maintenance; absent means permanent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<DurationInfo>,
}

/// Resources of one agent, offered to one role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Identifier, used to accept or decline the offer.
    pub id: OfferId,
    /// Framework that the offer is made to.
    pub framework_id: FrameworkId,
    /// Agent that the resources belong to.
    pub agent_id: AgentId,
    /// Hostname of the agent.
    pub hostname: String,
    /// URL of the agent's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// Region and zone of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainInfo>,
    /// The offered resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Attributes, set by the agent's operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// The framework's executors that run on the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executor_ids: Vec<ExecutorId>,
    /// Announced maintenance of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailability: Option<Unavailability>,
    /// Role that the resources are allocated to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_info: Option<AllocationInfo>,
}

impl Offer {
    /// The role that the offer is made to.
    pub fn role(&self) -> Option<&str> {
        self.allocation_info.as_ref().and_then(|info| info.role.as_deref())
    }
}

/// Tasks to launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The tasks, each with the agent and resources it uses.
    #[serde(default)]
    pub task_infos: Vec<TaskInfo>,
}

/// Resources to reserve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// Resources before the reservation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Resource>,
    /// Resources after the reservation.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// Reserved resources to make available to all roles again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unreserve {
    /// Resources with their current reservations.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// An operation on accepted offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// Launches tasks.
    Launch {
        /// Tasks to launch.
        launch: Launch,
    },
    /// Reserves resources.
    Reserve {
        /// Requests feedback about the operation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<OperationId>,
        /// Resources to reserve.
        reserve: Reserve,
    },
    /// Releases a reservation.
    Unreserve {
        /// Requests feedback about the operation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<OperationId>,
        /// Resources to release.
        unreserve: Unreserve,
    },
    /// An operation that this crate does not know.
    #[serde(other)]
    Unknown,
}

impl Operation {
    /// Launches tasks.
    pub fn launch(task_infos: Vec<TaskInfo>) -> Self {
        Self::Launch { launch: Launch { task_infos } }
    }
}

/// How long the unused rest of an ACCEPT or DECLINE is not offered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Seconds; Mesos uses 5 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_seconds: Option<f64>,
}

impl Filters {
    /// A filter for this many seconds.
    pub fn refuse(seconds: f64) -> Self {
        Self { refuse_seconds: Some(seconds) }
    }
}
