//! Why there is no plan: the found state must not be changed.
use kmctl_core::protocol::host::{ETCD_DATA, Loss, OwnershipError};

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A host is not this cluster's.
    #[error(transparent)]
    Ownership(#[from] OwnershipError),
    /// Hosts with etcd's data belong to different clusters of the same name.
    #[error("{} belong{} to another cluster {cluster}: the ids are {}", hosts.join(" and "), if hosts.len() == 1 { "s" } else { "" }, ids.join(" and "))]
    TwoIds {
        cluster: String,
        hosts: Vec<String>,
        /// The different ids.
        ids: [String; 2],
    },
    /// A new host has the address of another one, which is still a member of etcd.
    #[error("{host} has the address of {member}, which is still a member of etcd")]
    AddressOfMember {
        host: String,
        /// The member's name.
        member: String,
    },
    /// Another version or bundle runs there.
    #[error("cannot upgrade {host} from {found} to {wanted}: upgrades are not supported yet")]
    Upgrade {
        host: String,
        /// The version or bundle that runs there.
        found: String,
        /// The version that cluster.yaml requires.
        wanted: String,
    },
    /// Its pods have another network.
    #[error("cannot change network.mode of {host} from {found} to {wanted}: the mode of a running cluster is fixed")]
    Network {
        host: String,
        /// The mode that it runs with.
        found: String,
        /// The mode that cluster.yaml requires.
        wanted: String,
    },
    /// A secret is neither on the operator's machine nor on the host.
    #[error("{path} does not exist on {host}, and mesos.secretFile does not exist on this machine")]
    NoSecret {
        host: String,
        /// The path on the host.
        path: String,
    },
    /// Another host may have bootstrapped the cluster.
    #[error(
        "etcd was bootstrapped on {}, but {} not responded",
        founders.join(" or "), have(unseen)
    )]
    Founder {
        /// The hosts that may have bootstrapped it.
        founders: Vec<String>,
        /// Hosts that could not be inspected.
        unseen: Vec<String>,
    },
    /// A host that cluster.yaml does not name bootstraps the cluster.
    #[error("etcd was bootstrapped on {founder}, which is not in cluster.yaml")]
    Unnamed {
        /// The host that bootstraps it.
        founder: String,
    },
    /// The cluster is on hosts that were not inspected, or its data are lost.
    #[error("{}", elsewhere(framework, unseen))]
    Elsewhere {
        /// The framework's id.
        framework: String,
        /// Hosts that could not be inspected.
        unseen: Vec<String>,
    },
    /// The disk with a host's data is away. They may be complete, so nothing takes their place.
    #[error("{ETCD_DATA} on {host} {loss}")]
    DataAway { host: String, loss: Loss },
    /// All hosts with data have lost them.
    #[error("etcd data is lost: {}", lost.iter().map(|(host, loss)| format!("{ETCD_DATA} on {host} {loss}")).collect::<Vec<_>>().join(", "))]
    DataLost {
        /// The hosts, and how their data are missing.
        lost: Vec<(String, Loss)>,
    },
    /// Hosts that were not inspected may have the data of an older cluster.
    #[error("no host that responded has etcd data, and {} not responded", have(unseen))]
    MayHaveData {
        /// Hosts that could not be inspected.
        unseen: Vec<String>,
    },
    /// So many members have lost their data that etcd can no longer elect a leader.
    #[error(
        "etcd has no quorum: {} of {members} members lost their data ({})",
        lost.len(), lost.join(", ")
    )]
    NoQuorum {
        /// The number of voting members.
        members: usize,
        /// The members without data.
        lost: Vec<String>,
    },
    /// Two hosts belong to different clusters.
    #[error("{} belong to different etcd clusters", hosts.join(" and "))]
    TwoClusters {
        /// One host of each.
        hosts: [String; 2],
    },
    /// It cannot be determined whether a cluster exists already.
    #[error("{} of {all} hosts responded and none has etcd data; the others may have it", all - unseen.len())]
    NoMajority {
        /// How many hosts cluster.yaml names.
        all: usize,
        /// Hosts that could not be inspected.
        unseen: Vec<String>,
    },
}

fn elsewhere(framework: &str, unseen: &[String]) -> String {
    let seen = format!("has etcd data, but Mesos has framework {framework} of this cluster: etcd data");
    match unseen {
        [] => format!("no host {seen} is lost"),
        [one] => format!("no host that responded {seen} must be on {one}, which has not responded"),
        unseen => format!("no host that responded {seen} must be on {}, which have not responded", unseen.join(", ")),
    }
}

fn have(hosts: &[String]) -> String {
    format!("{} {}", hosts.join(", "), if hosts.len() == 1 { "has" } else { "have" })
}

impl PlanError {
    /// Whether hosts that have not answered yet may change it.
    pub fn needs_others(&self) -> bool {
        matches!(
            self,
            PlanError::Founder { .. }
                | PlanError::Elsewhere { .. }
                | PlanError::NoMajority { .. }
                | PlanError::MayHaveData { .. }
        )
    }
}
