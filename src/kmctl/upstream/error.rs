//! Why a bundle could not be downloaded.
use std::path::PathBuf;

use super::lock::LockError;
use kmctl_core::bundle::BundleError;

/// Why a bundle could not be downloaded. Addresses are those that were asked: a mirror's where there is one.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no such file.
    #[error("{url} does not exist (HTTP {status}): {component} {version} has no such release for this architecture")]
    Missing {
        /// Where.
        url: String,
        /// 404, or what stands for it.
        status: u16,
        /// Of what.
        component: String,
        /// Which.
        version: String,
    },
    /// The server does not give it.
    #[error("{url} was refused with HTTP {status}")]
    Refused {
        /// Where.
        url: String,
        /// Why.
        status: u16,
    },
    /// Something else came.
    #[error("{url} is not the file: the server answered with {what}")]
    NotTheFile {
        /// Where.
        url: String,
        /// A web page, or a short text.
        what: String,
    },
    /// Less came than there should be.
    #[error("{url} has only {got} of {expected} bytes")]
    Short {
        /// Where.
        url: String,
        /// So many.
        got: u64,
        /// So many in all.
        expected: u64,
    },
    /// The bytes are not what was published.
    #[error("{url} has sha256 {got}, expected {expected} according to {origin}")]
    Mismatch {
        /// Where.
        url: String,
        /// What came.
        got: String,
        /// What was to come.
        expected: String,
        /// Who says so.
        origin: String,
    },
    /// Upstream publishes another checksum than before.
    #[error(
        "the published checksum of {url} changed since it was locked: {origin} says {published}, {} says {locked}",
        lock.display()
    )]
    Changed {
        /// Upstream's address.
        url: String,
        /// What is published now.
        published: String,
        /// Where.
        origin: String,
        /// What was published when the lock was written.
        locked: String,
        /// The lock.
        lock: PathBuf,
    },
    /// Nothing says what the bytes should be.
    #[error("no checksum is published for {url}: {checksum} does not exist")]
    Unpinned {
        /// Upstream's address.
        url: String,
        /// Where it should be.
        checksum: String,
        /// Where it could be pinned.
        lock: PathBuf,
    },
    /// What is published is no checksum of this file.
    #[error("{checksum} holds no sha256 of {name}")]
    NoChecksum {
        /// Where.
        checksum: String,
        /// The file's name.
        name: String,
    },
    /// The server cannot be reached, or the connection ended again and again.
    #[error("failed to download {url}: {why}")]
    Broken {
        /// Where.
        url: String,
        /// The last reason.
        why: String,
    },
    /// The registry does not have the image, or does not give it.
    #[error("failed to pull {image} from {registry}: {why}")]
    Image {
        /// Upstream's name.
        image: String,
        /// The registry that was asked.
        registry: String,
        /// Why.
        why: String,
    },
    /// An archive lacks something.
    #[error("{url} holds no {entry}")]
    NoEntry {
        /// Upstream's address.
        url: String,
        /// Path in it.
        entry: String,
    },
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file here.
    #[error("failed to {what} {}", path.display())]
    File {
        /// `write`, `read`, …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The bundle itself.
    #[error("failed to write {}", out.display())]
    Bundle {
        /// Where it was going to be.
        out: PathBuf,
        /// The cause.
        #[source]
        source: BundleError,
    },
    /// HTTP cannot be used at all.
    #[error("failed to set up TLS")]
    Client(#[source] reqwest::Error),
}

impl FetchError {
    /// Whether the operator's own lock is what is wrong.
    pub fn is_lock(&self) -> bool {
        matches!(self, FetchError::Lock(_))
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            FetchError::Missing { component, version, .. } if component == "kubernetes" => format!(
                "{version} may not be released, or the mirror may lack it; released versions: \
                 https://github.com/kubernetes/kubernetes/releases"
            ),
            FetchError::Missing { component, version, .. } => {
                format!("{component} {version} is what this kmctl pairs; the mirror may lack it")
            }
            FetchError::Refused { .. } | FetchError::NotTheFile { .. } => {
                "check the proxy (HTTPS_PROXY, NO_PROXY) and the mirror (--mirror, KMCTL_MIRROR)".to_owned()
            }
            FetchError::Short { .. } | FetchError::Mismatch { .. } | FetchError::NoChecksum { .. } => {
                "run this again; if it stays, the server's copy is damaged or was replaced: try another mirror"
                    .to_owned()
            }
            FetchError::Changed { lock, .. } => format!(
                "upstream replaced a release, or somebody replaced it on its way: compare with another source, then remove \
                 {}",
                lock.display()
            ),
            FetchError::Unpinned { url, lock, .. } => format!(
                "use a lock that was made with access to upstream, or pin the sha256 of {url} in {} (docs/operations.md)",
                lock.display()
            ),
            FetchError::Broken { .. } => "run this again: it continues where it stopped; behind a firewall set \
                                          HTTPS_PROXY, or --mirror to a copy"
                .to_owned(),
            FetchError::Image { .. } => {
                "check that the registry is reachable and has the image; a mirror needs it below upstream's host name"
                    .to_owned()
            }
            FetchError::NoEntry { .. } => {
                "upstream changed its archives: this kmctl cannot use that version".to_owned()
            }
            FetchError::Lock(LockError::Other { path, .. }) => {
                format!("name another lock with --lock, or remove {}", path.display())
            }
            FetchError::Lock(LockError::NotALock { path, .. }) => {
                format!("restore {}, or remove it to lock anew", path.display())
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
    format!("free about 1 GB in {}, then run this again: it continues where it stopped", folder.display())
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
