//! Which versions of the other components are paired with each minor of Kubernetes: the only table of them.
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Version;

/// Versions of everything that a bundle holds beside Kubernetes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Components {
    /// etcd, etcdctl and etcdutl, e.g. `3.6.16`.
    pub etcd: String,
    /// containerd, its shim and ctr, e.g. `2.3.7`.
    pub containerd: String,
    /// runc, e.g. `1.5.3`.
    pub runc: String,
    /// The stock CNI plugins, e.g. `1.10.0`.
    pub cni_plugins: String,
    /// Tag of the sandbox image, e.g. `3.10.2`.
    pub pause: String,
    /// Tag of CoreDNS' image, e.g. `v1.14.6`.
    pub coredns: String,
}

/// A row of the table.
struct Row {
    minor: u32,
    etcd: &'static str,
    containerd: &'static str,
    runc: &'static str,
    cni_plugins: &'static str,
    pause: &'static str,
    coredns: &'static str,
}

/// Pause and CoreDNS are those that kubeadm of the same minor uses
/// (kubernetes/kubernetes:cmd/kubeadm/app/constants/constants.go). containerd 2.3 is the line with long-term support that
/// both minors are tested with (containerd/containerd:RELEASES.md).
const TABLE: [Row; 2] = [
    Row {
        minor: 36,
        etcd: "3.6.16",
        containerd: "2.3.7",
        runc: "1.5.3",
        cni_plugins: "1.10.0",
        pause: "3.10.2",
        coredns: "v1.14.2",
    },
    Row {
        minor: 37,
        etcd: "3.6.16",
        containerd: "2.3.7",
        runc: "1.5.3",
        cni_plugins: "1.10.0",
        pause: "3.10.2",
        coredns: "v1.14.6",
    },
];

/// No component versions are known for this version of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMinor(pub Version);

impl fmt::Display for UnknownMinor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubernetes {} is not supported: this kmctl supports {}", self.0, known_minors().join(" and "))
    }
}

impl std::error::Error for UnknownMinor {}

/// The minors in the table, e.g. `v1.37`.
pub fn known_minors() -> Vec<String> {
    TABLE.iter().map(|row| format!("v1.{}", row.minor)).collect()
}

impl Components {
    /// What is paired with `version`.
    ///
    /// # Errors
    /// Its minor is not in the table.
    pub fn of(version: Version) -> Result<Components, UnknownMinor> {
        let row = TABLE.iter().find(|row| version.major == 1 && version.minor == row.minor);
        let Row { minor: _, etcd, containerd, runc, cni_plugins, pause, coredns } = row.ok_or(UnknownMinor(version))?;
        let [etcd, containerd, runc, cni_plugins, pause, coredns] =
            [etcd, containerd, runc, cni_plugins, pause, coredns].map(|version| (*version).to_owned());
        Ok(Components { etcd, containerd, runc, cni_plugins, pause, coredns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_minor_has_its_pairs_and_others_are_refused_with_the_list() {
        let of = |text: &str| Components::of(text.parse().unwrap());
        assert_eq!(of("v1.37.2").unwrap().coredns, "v1.14.6");
        assert_eq!(of("v1.36.3").unwrap().coredns, "v1.14.2");
        for unknown in ["v1.35.0", "v1.38.0", "v2.37.0"] {
            let error = of(unknown).unwrap_err().to_string();
            let expected = format!("Kubernetes {unknown} is not supported: this kmctl supports v1.36 and v1.37");
            assert_eq!(error, expected);
        }
    }
}
