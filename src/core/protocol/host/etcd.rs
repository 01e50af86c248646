//! How a host gets into etcd, and out of it.
use serde::{Deserialize, Serialize};

use super::holder::Holder;

/// Where it is written down.
pub const FOUNDER: &str = "/var/lib/kmctl/etcd-founder";

/// The founder's name, as a host is to write it down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Founding {
    /// The host that begins the cluster.
    pub name: String,
    /// The name that was found, which this one replaces. If there is another one by now, nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

/// How a host without data gets into etcd. Only who has seen all hosts can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdStart {
    /// It begins a new cluster.
    Bootstrap,
    /// It joins the one that the other hosts have.
    Join,
}

/// What a host has to know of how etcd begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beginning {
    /// How it gets into etcd, where it has no data.
    pub start: Option<EtcdStart>,
    /// What it has to write down.
    pub founding: Option<Founding>,
}

/// A host as a member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberSpec {
    /// The host's name.
    pub name: String,
    /// Where other members reach it, `https://address:2380`.
    pub peer: String,
    /// Where it is asked on its own host.
    pub local: String,
    /// Where the other hosts' members are asked.
    pub others: Vec<String>,
    /// The folder that exists once it is a member.
    pub data: String,
    /// The file that tells etcd at its very first start how to begin.
    pub environment: String,
    /// The authority's path without endings.
    pub authority: String,
    /// The client certificate's path without endings.
    pub client: String,
}

/// A member, as etcd lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// etcd's id, decimal.
    pub id: String,
    /// Empty until it has started.
    pub name: String,
    /// Where other members reach it.
    pub peers: Vec<String>,
    /// Whether it has no vote yet.
    pub learner: bool,
}

/// What `km host leave` reads from standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaveRequest {
    /// The host that asks.
    pub member: MemberSpec,
    /// The member that goes.
    pub name: String,
    /// Who runs this, for the lock.
    pub holder: Holder,
}
