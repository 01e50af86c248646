//! Why there is no plan: the found state must not be changed.

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
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
    /// The cluster is on hosts that were not inspected.
    #[error(
        "no host that responded has etcd data, but Mesos has framework {framework} of this cluster: etcd data \
         must be on {}, which {} not responded", unseen.join(", "),
        if unseen.len() == 1 { "has" } else { "have" }
    )]
    Elsewhere {
        /// The framework's id.
        framework: String,
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

fn have(hosts: &[String]) -> String {
    format!("{} {}", hosts.join(", "), if hosts.len() == 1 { "has" } else { "have" })
}

impl PlanError {
    /// Whether hosts that have not answered yet may change it.
    pub fn needs_others(&self) -> bool {
        matches!(self, PlanError::Founder { .. } | PlanError::Elsewhere { .. } | PlanError::NoMajority { .. })
    }
}
