//! Whose a control-plane host is: the mark that the first `up` leaves on it, and what other installations leave.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The file with the host's [`HostMark`]. It is written before anything else and removed only by a purge.
pub const MARK: &str = "/var/lib/kmctl/host.json";

/// Version of the mark's format. `km host` and `kmctl` refuse other versions.
pub const MARK_FORMAT: u32 = 1;

/// The km scheduler's configuration, which names the cluster. Hosts of clusters that are older than the mark have it.
pub const SCHEDULER_CONFIGURATION: &str = "/etc/kmctl/scheduler.yaml";

/// What control planes leave on a host, of kmctl or of another tool: files, and directories that are not empty. On a
/// host without a mark nothing of this may be overwritten or removed.
pub const TRACES: [&str; 16] = [
    // etcd, also as a distribution's package has it.
    "/var/lib/etcd",
    "/etc/systemd/system/etcd.service",
    "/lib/systemd/system/etcd.service",
    // kubeadm, and others that keep its layout.
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/manifests",
    "/etc/kubernetes/pki",
    "/var/lib/kubelet/config.yaml",
    "/etc/systemd/system/kube-apiserver.service",
    // k3s, RKE2, k0s, MicroK8s.
    "/etc/rancher/k3s",
    "/etc/rancher/rke2",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher/rke2",
    "/etc/k0s",
    "/var/lib/k0s",
    "/var/snap/microk8s",
];

/// What a file system that was just created contains: such a mount point counts as empty.
pub const EMPTY_FILE_SYSTEM: &str = "lost+found";

/// Whose a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostMark {
    /// [`MARK_FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Random id of the cluster, created by its first `up`.
    pub id: String,
    /// Name of the host in the cluster, and of its etcd member.
    pub member: String,
}

impl HostMark {
    /// Reads the content of [`MARK`].
    ///
    /// # Errors
    /// Why it does not say whose the host is.
    pub fn parse(text: &str) -> Result<HostMark, String> {
        let unusable = |why: String| format!("{MARK} does not say whose the host is: {why}");
        let mark: HostMark = serde_json::from_str(text).map_err(|error| unusable(error.to_string()))?;
        match mark.format {
            MARK_FORMAT => Ok(mark),
            format => Err(unusable(format!("its format is {format}, and {MARK_FORMAT} is known here"))),
        }
    }
}

/// The mark that a host has or receives before it is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MarkClaim {
    pub mark: HostMark,
    /// The id that this one replaces on a host without etcd's data: a run that created another id did not get far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

/// What a host says about whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// The host's mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<HostMark>,
    /// The cluster that [`SCHEDULER_CONFIGURATION`] names, if there is no mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmarked: Option<String>,
    /// Those of [`TRACES`] that exist.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub traces: BTreeSet<String>,
}

/// Why a host must not be changed for a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnershipError {
    /// It belongs to another cluster, or the cluster was renamed in cluster.yaml.
    #[error("{host} belongs to cluster {found}, not to {wanted}")]
    OtherCluster {
        host: String,
        /// The cluster that the host names.
        found: String,
        /// The cluster that cluster.yaml names.
        wanted: String,
    },
    /// It is the cluster's, under another name.
    #[error("{host} is {member} of cluster {cluster}")]
    OtherMember {
        /// Its name in cluster.yaml.
        host: String,
        /// Its name when it was installed.
        member: String,
        cluster: String,
    },
    /// Another tool has installed a control plane or an etcd.
    #[error("{host} is in use by another installation: {} exist{}", traces.join(", "), if traces.len() == 1 { "s" } else { "" })]
    Foreign {
        host: String,
        /// What exists of it.
        traces: Vec<String>,
    },
}

impl Ownership {
    /// Whether the host may be changed for this cluster and this member: it has the mark, or it is new.
    ///
    /// # Errors
    /// Whose it is instead.
    pub fn judge(&self, cluster: &str, host: &str) -> Result<(), OwnershipError> {
        let other = |found: &str| OwnershipError::OtherCluster {
            host: host.to_owned(),
            found: found.to_owned(),
            wanted: cluster.to_owned(),
        };
        match (&self.mark, &self.unmarked) {
            (Some(mark), _) if mark.cluster != cluster => Err(other(&mark.cluster)),
            (Some(mark), _) if mark.member != host => Err(OwnershipError::OtherMember {
                host: host.to_owned(),
                member: mark.member.clone(),
                cluster: cluster.to_owned(),
            }),
            (None, Some(found)) if found != cluster => Err(other(found)),
            (Some(_), _) | (None, Some(_)) => Ok(()),
            (None, None) if self.traces.is_empty() => Ok(()),
            (None, None) => {
                Err(OwnershipError::Foreign { host: host.to_owned(), traces: self.traces.iter().cloned().collect() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(cluster: &str, member: &str) -> Ownership {
        let (cluster, member) = (cluster.to_owned(), member.to_owned());
        let mark = HostMark { format: MARK_FORMAT, cluster, id: "1".to_owned(), member };
        Ownership { mark: Some(mark), traces: BTreeSet::from(["/var/lib/etcd".to_owned()]), ..Ownership::default() }
    }

    #[test]
    fn a_host_is_changed_only_for_the_cluster_and_the_member_that_it_belongs_to() {
        assert_eq!(Ownership::default().judge("demo", "cp1"), Ok(()), "a new host");
        assert_eq!(marked("demo", "cp1").judge("demo", "cp1"), Ok(()));
        let text = |ownership: &Ownership| ownership.judge("demo", "cp1").unwrap_err().to_string();
        assert_eq!(text(&marked("other", "cp1")), "cp1 belongs to cluster other, not to demo");
        assert_eq!(text(&marked("demo", "cp3")), "cp1 is cp3 of cluster demo");
    }

    #[test]
    fn a_host_without_a_mark_is_known_by_its_configuration_or_taken_for_anothers() {
        let traces = BTreeSet::from(["/etc/kubernetes/admin.conf".to_owned(), "/var/lib/etcd".to_owned()]);
        let of = |unmarked: Option<&str>| Ownership {
            unmarked: unmarked.map(str::to_owned),
            traces: traces.clone(),
            mark: None,
        };
        assert_eq!(of(Some("demo")).judge("demo", "cp1"), Ok(()));
        let text = |unmarked| of(unmarked).judge("demo", "cp1").unwrap_err().to_string();
        assert_eq!(text(Some("other")), "cp1 belongs to cluster other, not to demo");
        assert_eq!(
            text(None),
            "cp1 is in use by another installation: /etc/kubernetes/admin.conf, /var/lib/etcd exist"
        );
    }
}
