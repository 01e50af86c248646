//! A site's copy of what upstream publishes.
//!
//! Below the mirror's URL, upstream's host names are the first directories: `https://dl.k8s.io/release/…` is requested
//! at `MIRROR/dl.k8s.io/release/…`. Images are requested from a registry on the same host, with the mirror's path and
//! upstream's host name before the repository: `registry.k8s.io/pause` at
//! `https://HOST/v2/PATH/registry.k8s.io/pause/…`. Registries that hold copies of several others use this layout, and
//! the paths of two hosts cannot collide.
use std::fmt;
use std::str::FromStr;

/// The URL of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    secure: bool,
    /// Host, and port if there is one.
    host: String,
    /// With `/` before each part. Empty at the root.
    path: String,
}

/// The text is not the URL of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the URL of a mirror, such as https://mirror.example/upstream")]
pub struct MirrorError(String);

impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Mirror, MirrorError> {
        let wrong = || MirrorError(text.to_owned());
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong()),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A password in the URL would appear in messages and logs.
        if host.is_empty() || host.contains('@') || text.contains(['?', '#']) || text.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Mirror { secure, host: host.to_owned(), path })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mirror { secure, host, path } = self;
        write!(f, "{}://{host}{path}", if *secure { "https" } else { "http" })
    }
}

impl Mirror {
    /// The mirror's URL of what upstream has at `url`.
    pub(super) fn of_file(&self, url: &str) -> String {
        format!("{self}/{}", url.trim_start_matches("https://"))
    }
}

/// A registry as it is queried: upstream's or a mirror's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registry {
    /// Whether to use TLS.
    pub(super) secure: bool,
    /// Host, and port if there is one.
    pub(super) host: String,
    /// The repository on that host.
    pub(super) repository: String,
}

impl Registry {
    /// Where `repository` of upstream's registry `host` is requested.
    pub(super) fn of(mirror: Option<&Mirror>, host: &str, repository: &str) -> Registry {
        match mirror {
            None => Registry { secure: true, host: host.to_owned(), repository: repository.to_owned() },
            Some(mirror) => {
                let repository = format!("{}/{host}/{repository}", mirror.path).trim_start_matches('/').to_owned();
                Registry { secure: mirror.secure, host: mirror.host.clone(), repository }
            }
        }
    }

    /// The URL of a blob.
    pub(super) fn blob(&self, digest: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}/v2/{}/blobs/{digest}", self.host, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_has_upstreams_hosts_as_first_directories() {
        let at = |mirror: &str| mirror.parse::<Mirror>().unwrap();
        let url = "https://dl.k8s.io/release/v1.37.2/bin/linux/amd64/kubelet";
        let kubelet = "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kubelet";
        assert_eq!(at("https://m.example/up/stream/").of_file(url), format!("https://m.example/up/stream/{kubelet}"));
        assert_eq!(at("http://127.0.0.1:8080").of_file(url), format!("http://127.0.0.1:8080/{kubelet}"));
        let blob = |mirror: Option<&str>| {
            let mirror = mirror.map(at);
            Registry::of(mirror.as_ref(), "registry.k8s.io", "coredns/coredns").blob("sha256:00")
        };
        assert_eq!(blob(None), "https://registry.k8s.io/v2/coredns/coredns/blobs/sha256:00");
        assert_eq!(
            blob(Some("http://m.example:5000/up")),
            "http://m.example:5000/v2/up/registry.k8s.io/coredns/coredns/blobs/sha256:00"
        );
        for wrong in
            ["m.example", "ftp://m.example", "https://", "https://me:secret@m.example", "https://m.example/?a=b"]
        {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }
}
