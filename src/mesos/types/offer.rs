//! Offers and what is done with them.
use serde::{Deserialize, Serialize};

use super::{
    AgentId, AllocationInfo, Attribute, DomainInfo, DurationInfo, ExecutorId, FrameworkId, OfferId, OperationId,
    Resource, TaskInfo, TimeInfo, Url,
};

/// Maintenance that an operator announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailability {
    /// From when on.
    pub start: TimeInfo,
    /// For how long; absent means for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<DurationInfo>,
}

/// Resources of one agent for one role.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// To whom.
    pub framework_id: FrameworkId,
    /// Of which agent.
    pub agent_id: AgentId,
    /// The agent's name.
    pub hostname: String,
    /// The agent's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// Where the agent stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainInfo>,
    /// What.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// What the agent's operator says about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// The framework's executors that live on the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub executor_ids: Vec<ExecutorId>,
    /// Announced maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailability: Option<Unavailability>,
    /// For which role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_info: Option<AllocationInfo>,
}

impl Offer {
    /// The role that it is made to.
    pub fn role(&self) -> Option<&str> {
        self.allocation_info.as_ref().and_then(|info| info.role.as_deref())
    }
}

/// Tasks to launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The tasks.
    #[serde(default)]
    pub task_infos: Vec<TaskInfo>,
}

/// Resources to reserve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// Before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Resource>,
    /// After.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// Resources to give back to everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unreserve {
    /// As they are reserved.
    #[serde(default)]
    pub resources: Vec<Resource>,
}

/// What to do with accepted offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// Launches tasks.
    Launch {
        /// Which.
        launch: Launch,
    },
    /// Reserves resources.
    Reserve {
        /// For feedback.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<OperationId>,
        /// Which.
        reserve: Reserve,
    },
    /// Gives a reservation back.
    Unreserve {
        /// For feedback.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<OperationId>,
        /// Which.
        unreserve: Unreserve,
    },
    /// An operation that this program does not know.
    #[serde(other)]
    Unknown,
}

impl Operation {
    /// Launches tasks.
    pub fn launch(task_infos: Vec<TaskInfo>) -> Self {
        Self::Launch { launch: Launch { task_infos } }
    }
}

/// How long what an ACCEPT or DECLINE leaves over is not offered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Seconds; Mesos takes 5 when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse_seconds: Option<f64>,
}

impl Filters {
    /// Not offered again for so many seconds.
    pub fn refuse(seconds: f64) -> Self {
        Self { refuse_seconds: Some(seconds) }
    }
}
