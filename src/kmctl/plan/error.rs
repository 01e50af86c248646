//! Why there is no plan: what was found must not be gone on with.

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Another version or bundle runs there.
    #[error("{host} runs {found}, and cluster.yaml wants {wanted}: a running cluster is not upgraded yet")]
    Upgrade {
        /// The host.
        host: String,
        /// What is there.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// Its pods have another network.
    #[error(
        "{host} runs with network.mode {found}, and cluster.yaml wants {wanted}: a running cluster keeps its network"
    )]
    Network {
        /// The host.
        host: String,
        /// What is there.
        found: String,
        /// What is wanted.
        wanted: String,
    },
    /// A secret is neither here nor there.
    #[error("{path} is not on {host}, and the file that mesos.secretFile names is not here")]
    NoSecret {
        /// The host.
        host: String,
        /// The path on the host.
        path: String,
    },
    /// Another host may have begun the cluster.
    #[error(
        "the hosts have written down that etcd's cluster begins on {}, and {} not answered",
        founders.join(" or "), have(unseen)
    )]
    Founder {
        /// Who may have begun it.
        founders: Vec<String>,
        /// Those that were not seen.
        unseen: Vec<String>,
    },
    /// A host begins that cluster.yaml does not name.
    #[error("the hosts have written down that etcd's cluster begins on {founder}, which cluster.yaml does not name")]
    Unnamed {
        /// Who begins it.
        founder: String,
    },
    /// The cluster lives where nobody has looked.
    #[error(
        "none of the hosts that were seen has etcd's data, and Mesos has the cluster's framework ({framework}): the \
         cluster is on those that have not answered: {}", unseen.join(", ")
    )]
    Elsewhere {
        /// The framework's id.
        framework: String,
        /// Those that were not seen.
        unseen: Vec<String>,
    },
    /// So many members have lost their data that etcd cannot have a leader any more.
    #[error(
        "etcd has lost its quorum: {} of its {members} members {} lost their data ({})",
        lost.len(), if lost.len() == 1 { "has" } else { "have" }, lost.join(", ")
    )]
    NoQuorum {
        /// How many vote.
        members: usize,
        /// Those without data.
        lost: Vec<String>,
    },
    /// Two hosts belong to different clusters.
    #[error("{} have etcds that know nothing of each other: each is a cluster of its own", hosts.join(" and "))]
    TwoClusters {
        /// One host of each.
        hosts: [String; 2],
    },
    /// Nobody can tell whether there is a cluster already.
    #[error("{} of {all} hosts were seen and none of them has etcd's data: the others may have them", all - unseen.len())]
    NoMajority {
        /// How many hosts cluster.yaml names.
        all: usize,
        /// Those that were not seen.
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
