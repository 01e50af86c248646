//! How a host becomes a member of etcd, and how it leaves.
use serde::{Deserialize, Serialize};

use super::items::MemberSpec;
use super::lock_owner::LockOwner;

/// The environment file that configures etcd's first start. It is removed once etcd votes.
pub const ETCD_ENVIRONMENT: &str = "/etc/kubernetes/etcd-initial.env";

/// The founder's name, for a host to record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BootstrapClaim {
    /// The host that bootstraps the etcd cluster.
    pub name: String,
    /// The recorded name that this one replaces. If another name has been recorded since, nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

/// How etcd starts on a host without data. Only kmctl can decide this, after inspecting all hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdStart {
    /// Bootstraps a new cluster.
    Bootstrap,
    /// Joins the cluster of the other hosts.
    Join,
}

/// What a host must know to start etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdBootstrap {
    /// How etcd starts, if the host has no data.
    pub start: Option<EtcdStart>,
    /// The founder to record, if any.
    pub founding: Option<BootstrapClaim>,
    /// Whether a new cluster may be bootstrapped although the host has lost the data of an older one: the operator has
    /// asked for it.
    #[serde(default)]
    pub begin_anew: bool,
}

/// A member, as listed by etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Member id in etcd, decimal.
    pub id: String,
    /// Empty until it has started.
    pub name: String,
    /// URLs for other members.
    pub peers: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
}

/// What `km host leave` reads from standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaveRequest {
    /// The cluster that the host belongs to.
    pub cluster: String,
    /// The host that sends the request.
    pub member: MemberSpec,
    /// Name of the member to remove.
    pub name: String,
    /// Recorded in the host's lock.
    pub holder: LockOwner,
}
