//! Everything that differs between versions of Kubernetes, in one place.
use std::fmt;
use std::str::FromStr;

/// A version of Kubernetes, e.g. `v1.37.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// E.g. `1` in `v1.37.2`.
    pub major: u32,
    /// E.g. `37` in `v1.37.2`.
    pub minor: u32,
    /// E.g. `2` in `v1.37.2`.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(text.to_owned());
        let mut parts = text.strip_prefix('v').ok_or_else(wrong)?.splitn(3, '.').map(str::parse);
        let mut next = || parts.next().and_then(Result::ok).ok_or_else(wrong);
        Ok(Version { major: next()?, minor: next()?, patch: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, patch } = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

/// The string is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a Kubernetes version such as v1.37.2")]
pub struct VersionError(String);

/// A minor version that kmctl runs, and everything in which it differs from the others.
///
/// What all of them have in common is defined where it is used. A minor version without a row is refused, because its
/// flags, its configuration and its pairs have not been checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Minor {
    /// E.g. `37` in `v1.37.2`.
    pub minor: u32,
    /// The newest tested patch version.
    pub tested: Version,
    /// Versions of the other components in its bundles.
    pub pairs: Pairs,
    /// What a kubelet declares in `status.declaredFeatures`, sorted by name.
    ///
    /// kube-scheduler compares the list with what a pod needs, so a candidate's Node must have it before its kubelet
    /// has reported. It is what `discoverNodeDeclaredFeatures` (pkg/kubelet/kubelet_node_declared_features.go) finds
    /// with the default feature gates, which our configuration does not change: the registry in
    /// k8s.io/component-helpers (nodedeclaredfeatures/features/registry.go) without features whose gate is alpha.
    /// UserNamespacesHostNetworkSupport is alpha in both minors.
    pub declared_features: &'static [&'static str],
}

/// Component versions paired with a minor version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// etcd, etcdctl and etcdutl.
    pub etcd: &'static str,
    /// containerd, its shim and ctr: the release line with long-term support (containerd/containerd:RELEASES.md).
    pub containerd: &'static str,
    pub runc: &'static str,
    /// The stock CNI plugins.
    pub cni_plugins: &'static str,
    /// Tag of the sandbox image, as in kubeadm of the same minor version
    /// (kubernetes/kubernetes:cmd/kubeadm/app/constants/constants.go).
    pub pause: &'static str,
    /// Tag of CoreDNS' image, from the same source.
    pub coredns: &'static str,
}

/// Features that kubelets of both minor versions declare.
const DECLARED: &[&str] = &[
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// Every minor version that kmctl runs, newest first.
pub const MINORS: [Minor; 2] = [
    Minor {
        minor: 37,
        tested: Version { major: 1, minor: 37, patch: 2 },
        pairs: Pairs {
            etcd: "3.6.16",
            containerd: "2.3.7",
            runc: "1.5.3",
            cni_plugins: "1.10.0",
            pause: "3.10.2",
            coredns: "v1.14.6",
        },
        declared_features: DECLARED,
    },
    Minor {
        minor: 36,
        tested: Version { major: 1, minor: 36, patch: 3 },
        pairs: Pairs {
            etcd: "3.6.16",
            containerd: "2.3.7",
            runc: "1.5.3",
            cni_plugins: "1.10.0",
            pause: "3.10.2",
            coredns: "v1.14.2",
        },
        declared_features: DECLARED,
    },
];

/// kmctl has no row for this minor version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Kubernetes {0} is not supported: kmctl supports {known}", known = supported())]
pub struct UnsupportedVersion(pub Version);

/// The minor versions that kmctl runs, for a sentence: `1.37 and 1.36`.
pub fn supported() -> String {
    MINORS.map(|known| format!("1.{}", known.minor)).join(" and ")
}

impl Version {
    /// The newest tested version: the default if no version is specified.
    pub const NEWEST: Version = MINORS[0].tested;

    /// The row of this version's minor.
    pub fn row(self) -> Result<&'static Minor, UnsupportedVersion> {
        let fits = |known: &&Minor| (known.tested.major, known.minor) == (self.major, self.minor);
        MINORS.iter().find(fits).ok_or(UnsupportedVersion(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("v1.9.0") < version("v1.37.2"));
        assert_eq!(version("v1.37.2").to_string(), "v1.37.2");
        for wrong in ["1.37.2", "v1.37", "v1.x.2", ""] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_minor_without_a_row_is_refused_with_the_list_of_those_that_have_one() {
        let row = |text: &str| text.parse::<Version>().unwrap().row();
        assert_eq!(row("v1.36.0").unwrap().minor, 36, "any patch of a known minor");
        for unknown in ["v1.19.0", "v1.35.4", "v1.38.0", "v2.37.2"] {
            let told = row(unknown).unwrap_err().to_string();
            assert_eq!(told, format!("Kubernetes {unknown} is not supported: kmctl supports 1.37 and 1.36"));
        }
    }

    #[test]
    fn rows_are_of_their_own_minor_and_the_newest_comes_first() {
        assert!(MINORS.iter().all(|row| row.tested.minor == row.minor));
        assert!(MINORS.is_sorted_by(|newer, older| newer.tested > older.tested));
        assert!(MINORS.iter().all(|row| row.declared_features.is_sorted()), "as the API server wants them");
    }
}
