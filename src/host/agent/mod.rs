//! `km host`: the side that runs on a control-plane host. `kmctl` sends it a [`HostManifest`], everything that the
//! host should have; it compares, writes atomically, restarts what changed, checks health and reports events.
//!
//! - `inspect` reads a manifest from standard input and prints [`Observations`]; it changes nothing.
//! - `apply` reads one stream: a [`Header`], then the bytes of the files that were missing; it prints [`Event`]s.
//! - `remove` takes away what `apply` installed, keeping or purging the data.
//!
//! Keys and certificates are made here, from their specs, so that no key travels. Every write is a temporary file,
//! synced and renamed, and every decision is made from what lies on the disk, so a run that was killed anywhere is
//! finished by the next one.
mod apply;
mod command;
mod events;
mod files;
mod founder;
mod http;
mod lock;
mod manifest;
mod material;
mod member;
mod objects;
mod observe;
mod remove;
mod units;

pub use apply::{Header, Payload};
#[cfg(test)]
pub(crate) use command::{Action, perform, status_of};
pub use command::{Arguments, run};
pub use events::{Change, Event};
#[cfg(test)]
pub(crate) use files::{Killed, Root};
pub use founder::{FOUNDER, Founding};
pub use lock::Holder;
pub use manifest::{
    AuthoritySpec, CertificateSpec, FORMAT, HealthSpec, HostManifest, Item, KubeconfigSpec, ObjectSpec, UnitSpec,
};
pub use member::{Beginning, EtcdMember, EtcdStart, LeaveRequest, MemberSpec};
pub use observe::{Observation, Observations, Observed};
pub use remove::{Removal, RemoveRequest};
pub use units::UnitState;

/// Exit status when another run holds the lock.
pub const EXIT_LOCKED: i32 = 6;

/// Where the unpacked bundles lie, one folder per version.
pub const LIBRARY: &str = "/usr/local/lib/kmctl";

/// The `km` that came with `kmctl`.
pub const KM: &str = "/usr/local/lib/kmctl/bin/km";

/// Kubeconfig on a control-plane host that may do everything.
pub const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Data of this project on a control-plane host.
pub const STATE: &str = "/var/lib/kmctl";

/// Where km scheduler keeps its framework's id. The folder outlives a framework that could not be ended.
pub const FRAMEWORK: &str = "/var/lib/kmctl/scheduler";

use std::path::PathBuf;

/// Why a manifest could not be compared or applied.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or folder could not be read or changed.
    #[error("{what} {path}")]
    File {
        /// What was going on, e.g. `write`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate could not be made.
    #[error("make {path}")]
    Material {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: crate::pki::PkiError,
    },
    /// What lies on the host contradicts the manifest in a way that must not be repaired by overwriting.
    #[error("{0}")]
    Refused(String),
    /// Another run is under way.
    #[error("another run is changing this host: {0}")]
    Locked(Holder),
    /// What came over standard input is not what it should be.
    #[error("{what}")]
    Input {
        /// What was being read.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// systemd refused.
    #[error("{what}: {output}")]
    Unit {
        /// What was asked of it.
        what: String,
        /// What it said.
        output: String,
    },
    /// Something did not become healthy in time.
    #[error("{what} did not become healthy within {seconds} s: {last}")]
    Unhealthy {
        /// The check's name.
        what: String,
        /// How long it was awaited.
        seconds: u64,
        /// The last answer.
        last: String,
    },
    /// The API server refused an object.
    #[error("apply {object}: {answer}")]
    Object {
        /// Kind and name.
        object: String,
        /// The answer.
        answer: String,
    },
    /// Nobody reads the events any more.
    #[error("the operator's connection is gone")]
    Deserted,
}

impl AgentError {
    pub(crate) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> AgentError {
        let path = path.to_owned();
        move |source| AgentError::File { what, path, source }
    }
}
