//! How much a run does concurrently.
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Limits of one run, shared by all its tasks. A permit is held for as long as the work takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections being established. A login costs this machine a key exchange of some milliseconds and a thread. More
    /// logins at once would make the first wait for the last and make a jump host refuse (sshd's `MaxStartups` is 10 by
    /// default, but counts only unfinished logins).
    pub connections: Arc<Semaphore>,
    /// Streams that carry files of the bundle. All share the operator's uplink: more streams do not make it faster,
    /// they only delay the first complete host. A single stream rarely fills it.
    pub uploads: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: Arc::new(Semaphore::new(32)), uploads: Arc::new(Semaphore::new(4)) }
    }
}
