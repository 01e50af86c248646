//! Why a bundle could not be downloaded.
use std::path::PathBuf;

use super::lock::LockError;
use kmctl_core::bundle::BundleError;

/// Why a bundle could not be downloaded. URLs are those that were requested: a mirror's if there is one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no such file.
    #[error("{url} does not exist (HTTP {status}): {component} {version} has no such release for this architecture")]
    Missing {
        /// The requested URL.
        url: String,
        /// 404 or an equivalent status.
        status: u16,
        /// The component that the file belongs to.
        component: String,
        /// The component's version.
        version: String,
    },
    /// The server refuses the request.
    #[error("{url} was refused with HTTP {status}")]
    Refused {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server sent something else.
    #[error("{url} is not the expected file: the server returned {what}")]
    NotTheFile {
        /// The requested URL.
        url: String,
        /// A web page, or a short text.
        what: String,
    },
    /// The file is shorter than it should be.
    #[error("{url} is truncated: {got} of {expected} bytes")]
    Short {
        /// The requested URL.
        url: String,
        /// Received bytes.
        got: u64,
        /// Expected bytes.
        expected: u64,
    },
    /// The bytes are not what was published.
    #[error("{url} has sha256 {got}, expected {expected} according to {origin}")]
    Mismatch {
        /// The requested URL.
        url: String,
        /// sha256 of the received bytes.
        got: String,
        /// The expected sha256.
        expected: String,
        /// The source of the expected sha256.
        origin: String,
    },
    /// Upstream publishes a different checksum than before.
    #[error(
        "the published checksum of {url} changed since it was locked: {origin} says {published}, {} says {locked}",
        lock.display()
    )]
    Changed {
        /// Upstream's URL.
        url: String,
        /// What is published now.
        published: String,
        /// The URL of the published checksum.
        origin: String,
        /// What was published when the lock was written.
        locked: String,
        /// The path of the lock.
        lock: PathBuf,
    },
    /// There is no checksum for the file.
    #[error("no checksum is published for {url}: {checksum} does not exist")]
    Unpinned {
        /// Upstream's URL.
        url: String,
        /// Where it should be published.
        checksum: String,
        /// The lock in which it could be pinned.
        lock: PathBuf,
    },
    /// What is published is not a checksum of this file.
    #[error("{checksum} has no sha256 of {name}")]
    NoChecksum {
        /// The URL of the published checksum.
        checksum: String,
        /// The file's name.
        name: String,
    },
    /// The server cannot be reached, or the connection ended again and again.
    #[error("failed to download {url}: {why}")]
    Broken {
        /// The requested URL.
        url: String,
        /// The last reason.
        why: String,
    },
    /// The registry does not have the image, or refuses the request.
    #[error("failed to pull {image} from {registry}: {why}")]
    Image {
        /// Upstream's name.
        image: String,
        /// The registry that was queried.
        registry: String,
        why: String,
    },
    /// An archive lacks an entry.
    #[error("{url} does not contain {entry}")]
    NoEntry {
        /// Upstream's URL.
        url: String,
        /// The entry's path in the archive.
        entry: String,
    },
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A local file cannot be used.
    #[error("failed to {what} {}", path.display())]
    File {
        /// `write`, `read`, …
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The bundle could not be written.
    #[error("failed to write {}", out.display())]
    Bundle {
        /// The bundle's path.
        out: PathBuf,
        #[source]
        source: BundleError,
    },
    /// HTTP cannot be used at all.
    #[error("failed to set up TLS")]
    Client(#[source] reqwest::Error),
}

impl FetchError {
    /// Whether the operator's own lock is wrong.
    pub fn is_lock(&self) -> bool {
        matches!(self, FetchError::Lock(_))
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            FetchError::Missing { component, version, .. } if component == "kubernetes" => format!(
                "check that {version} is released and mirrored: https://github.com/kubernetes/kubernetes/releases"
            ),
            FetchError::Missing { component, version, .. } => {
                format!("check that the mirror has {component} {version}")
            }
            FetchError::Refused { .. } | FetchError::NotTheFile { .. } => {
                "check the proxy (HTTPS_PROXY, NO_PROXY) and the mirror (--mirror, KMCTL_MIRROR)".to_owned()
            }
            FetchError::Short { .. } | FetchError::Mismatch { .. } | FetchError::NoChecksum { .. } => {
                "run the command again; if the error persists, use another mirror".to_owned()
            }
            FetchError::Changed { lock, .. } => format!(
                "the release or the download was replaced; compare with another source, then remove {}",
                lock.display()
            ),
            FetchError::Unpinned { url, lock, .. } => format!(
                "use a lock that was created with access to upstream, or pin the sha256 of {url} in {} \
                 (docs/operations.md)",
                lock.display()
            ),
            FetchError::Broken { .. } => {
                "run the command again; it resumes where it stopped (behind a firewall, set HTTPS_PROXY or --mirror)"
                    .to_owned()
            }
            FetchError::Image { .. } => {
                "check that the registry is reachable and has the image; a mirror needs it below the upstream \
                 host name"
                    .to_owned()
            }
            FetchError::NoEntry { .. } => "use another version; upstream changed its archives".to_owned(),
            FetchError::Lock(LockError::Other { path, .. }) => {
                format!("set another lock with --lock, or remove {}", path.display())
            }
            FetchError::Lock(LockError::NotALock { path, .. }) => {
                format!("restore {}, or remove it to lock again", path.display())
            }
            FetchError::File { path, source, .. } if is_full(source) => room(path),
            FetchError::Bundle { out, source: BundleError::File { source, .. } } if is_full(source) => room(out),
            FetchError::Lock(LockError::Read { .. })
            | FetchError::File { .. }
            | FetchError::Bundle { .. }
            | FetchError::Client(_) => return None,
        })
    }
}

fn room(path: &std::path::Path) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    format!("free about 1 GB in {}, then run the command again; it resumes where it stopped", folder.display())
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
