//! `km host`: kmctl sends it everything that the host should have, or is to lose; it answers with what it found, and says
//! what it does.
mod etcd;
mod events;
mod holder;
mod manifest;
mod observed;
mod requests;

pub use etcd::{Beginning, EtcdMember, EtcdStart, FOUNDER, Founding, LeaveRequest, MemberSpec};
pub use events::{Change, Event};
pub use holder::Holder;
pub use manifest::{
    AuthoritySpec, CertificateSpec, FORMAT, HealthSpec, HostManifest, Item, KubeconfigSpec, ObjectSpec, UnitSpec,
};
pub use observed::{Observation, Observations, Observed, UnitState};
pub use requests::{Header, Payload, Removal, RemoveRequest};

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

/// Where the units of the cluster are.
pub const SYSTEMD: &str = "/etc/systemd/system";
