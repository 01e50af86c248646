//! How much a run does at the same time.
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Limits of one run, shared by all its tasks. A permit is held for as long as the work takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections being made. A login costs this machine a key exchange of some milliseconds and a thread; more than
    /// this at once would make the first ones wait for the last, and a jump host refuse (sshd's `MaxStartups` is 10 by
    /// default, but counts only logins that are not finished).
    pub connections: Arc<Semaphore>,
    /// Streams that carry files of the bundle. All of them share the operator's uplink: more streams do not make it
    /// faster, they only delay the first host that is complete. One alone rarely fills it.
    pub uploads: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: Arc::new(Semaphore::new(32)), uploads: Arc::new(Semaphore::new(4)) }
    }
}
