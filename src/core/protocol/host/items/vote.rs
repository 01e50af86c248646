//! A member's vote in etcd.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Writes};
use super::member::MemberSpec;

/// Waits until the host's member has caught up, and gives it its vote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VoteSpec(pub MemberSpec);

impl Kind for VoteSpec {
    fn name(&self) -> String {
        format!("etcd member {} votes", self.0.name)
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    fn section(&self) -> Section {
        Section::Etcd
    }

    fn planned(&self) -> Planned {
        Planned::OnceRunning
    }
}
