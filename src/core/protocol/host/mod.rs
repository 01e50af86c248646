//! The protocol of `km host`. kmctl sends everything that the host should have or lose; `km host` answers with what it
//! found, and reports what it does.
mod etcd;
mod etcd_data;
mod events;
mod identity;
mod items;
mod lock_owner;
mod manifest;
mod observed;
mod requests;

pub use etcd::{BootstrapClaim, ETCD_ENVIRONMENT, EtcdBootstrap, EtcdMember, EtcdStart, LeaveRequest};
pub use etcd_data::{DATA_LABEL, DATA_RECORD, DataRecord, DataState, ETCD_DATA, ETCD_WAL, EtcdData, Loss};
pub use events::{Change, Event};
pub use identity::{
    EMPTY_FILE_SYSTEM, HostMark, MARK, MARK_FORMAT, MarkClaim, Ownership, OwnershipError, SCHEDULER_CONFIGURATION,
    TRACES,
};
pub use items::{
    AuthoritySpec, CertificateSpec, DirectorySpec, ETCD, EncryptionKeySpec, FOUNDER, FileSpec, Founder, HealthSpec,
    Item, KeyPairSpec, Kind, KubeconfigSpec, MemberSpec, ObjectSpec, ObjectsSpec, Planned, ProgramSpec, SecretSpec,
    Section, SnapshotSpec, UnitSpec, Until, VoteSpec, Writes,
};
pub use lock_owner::LockOwner;
pub use manifest::{FORMAT, HostManifest};
pub use observed::{Differences, Observation, Observations, Observed, UnitState};
pub use requests::{Header, Payload, Removal, RemoveRequest};

/// Exit status when another run holds the lock.
pub const EXIT_LOCKED: i32 = 6;

/// Directory of the unpacked bundles, one subdirectory per version.
pub const LIBRARY: &str = "/usr/local/lib/kmctl";

/// The `km` binary that was uploaded by `kmctl`.
pub const KM: &str = "/usr/local/lib/kmctl/bin/km";

/// Kubeconfig with full access on a control-plane host.
pub const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// Directory of this project's data on a control-plane host.
pub const STATE: &str = "/var/lib/kmctl";

/// Directory in which km scheduler stores its framework id. It is kept if the framework could not be removed.
pub const FRAMEWORK: &str = "/var/lib/kmctl/scheduler";

/// Directory of the cluster's systemd units.
pub const SYSTEMD: &str = "/etc/systemd/system";
