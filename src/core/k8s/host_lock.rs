//! Ensures a single candidate per host. A killed process leaves the Lease in its name, and a successor with another
//! identity would have to respect it for its whole duration. Processes of one host therefore campaign under the same
//! identity, so at most one of them may run at a time. An abstract socket guarantees that: the kernel releases it
//! however the process ends.
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_millis(200);

/// The host's seat among the candidates of one component for a cluster, held until dropped.
#[derive(Debug)]
pub struct HostLock {
    /// Identity shared by all processes of the host.
    pub identity: String,
    _socket: UnixListener,
}

impl HostLock {
    /// Waits until no other process of this host holds the seat; `None` if `stop` is cancelled first.
    pub async fn take(program: &str, cluster: &str, stop: &CancellationToken) -> io::Result<Option<HostLock>> {
        let address = SocketAddr::from_abstract_name(format!("kmctl/{program}/{cluster}"))?;
        let mut said = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Some(HostLock { identity: host()?, _socket: socket })),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(
                            program,
                            "another process of this cluster is running on this host; waiting for it to exit"
                        );
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

/// Includes the machine id, because two hosts may have the same name.
fn host() -> io::Result<String> {
    let name = nix::unistd::gethostname()?;
    let id = std::fs::read_to_string("/etc/machine-id")?;
    Ok(format!("{}_{}", name.to_string_lossy(), id.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_has_the_same_name_and_waits_for_the_end() {
        let stop = CancellationToken::new();
        let cluster = format!("seat-{}", std::process::id());
        let first = HostLock::take("it", &cluster, &stop).await.unwrap().unwrap();
        let waiting = HostLock::take("it", &cluster, &stop);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(POLL * 2, &mut waiting).await.is_err(), "two at a time");
        let identity = first.identity.clone();
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!(second.identity, identity);
        // The seat of another cluster or component is free, and a cancelled process stops waiting.
        assert!(HostLock::take("it", &format!("{cluster}-other"), &stop).await.unwrap().is_some());
        assert!(HostLock::take("other", &cluster, &stop).await.unwrap().is_some());
        stop.cancel();
        assert!(HostLock::take("it", &cluster, &stop).await.unwrap().is_none());
    }
}
