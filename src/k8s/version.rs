//! What differs between versions of Kubernetes: the only place that knows.
use std::fmt;
use std::str::FromStr;

/// A version of Kubernetes, e.g. `v1.37.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// `1`.
    pub major: u32,
    /// `20`.
    pub minor: u32,
    /// `2`.
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

/// The text is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version of Kubernetes such as v1.37.2")]
pub struct VersionError(String);

impl Version {
    /// API version of KubeSchedulerConfiguration.
    pub fn scheduler_configuration(self) -> &'static str {
        match self.minor {
            ..=21 => "kubescheduler.config.k8s.io/v1beta1",
            22 => "kubescheduler.config.k8s.io/v1beta2",
            23 | 24 => "kubescheduler.config.k8s.io/v1beta3",
            _ => "kubescheduler.config.k8s.io/v1",
        }
    }

    /// API version of EndpointSlices.
    pub fn endpoint_slices(self) -> &'static str {
        if self.minor < 21 { "v1beta1" } else { "v1" }
    }

    /// Whether the kubelet has to be told that its runtime is not the built-in one, and that it uses CNI; newer ones
    /// refuse these flags.
    pub fn has_built_in_runtime(self) -> bool {
        self.minor < 24
    }

    /// Whether kube-controller-manager and kube-scheduler have an insecure port that must be switched off or confined.
    pub fn has_insecure_port(self) -> bool {
        self.minor < 23
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
        for wrong in ["1.20.2", "v1.20", "v1.x.2", ""] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_scheduler_configuration_follows_the_version() {
        let of = |text: &str| text.parse::<Version>().unwrap().scheduler_configuration();
        assert_eq!(of("v1.37.2"), "kubescheduler.config.k8s.io/v1beta1");
        assert_eq!(of("v1.36.2"), "kubescheduler.config.k8s.io/v1");
    }
}
