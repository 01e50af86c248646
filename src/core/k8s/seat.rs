//! One candidate on a host. Whoever is killed leaves the Lease in its name, and a successor of another name would have to
//! respect it for its whole duration. Processes of one host therefore campaign under one name, and so must never be two
//! at a time: an abstract socket is the proof, which the kernel takes back from a process however it ends.
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const POLL: Duration = Duration::from_millis(200);

/// The host's place among a program's candidates for a cluster, held while it lives.
#[derive(Debug)]
pub struct Seat {
    /// Name of the host's process, whichever it is.
    pub identity: String,
    _socket: UnixListener,
}

impl Seat {
    /// Waits until no other process of this host has it; none when `stop` comes first.
    pub async fn take(program: &str, cluster: &str, stop: &CancellationToken) -> io::Result<Option<Seat>> {
        let address = SocketAddr::from_abstract_name(format!("kmctl/{program}/{cluster}"))?;
        let mut said = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Some(Seat { identity: host()?, _socket: socket })),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::info!(program, "another one of this cluster runs on this host, waiting for its end");
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

/// The machine's id as well as its name, since names may be the same on two hosts.
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
        let first = Seat::take("it", &cluster, &stop).await.unwrap().unwrap();
        let waiting = Seat::take("it", &cluster, &stop);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(POLL * 2, &mut waiting).await.is_err(), "two at a time");
        let identity = first.identity.clone();
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert_eq!(second.identity, identity);
        // The seat of another cluster or program is free, and who is told to stop waits no longer.
        assert!(Seat::take("it", &format!("{cluster}-other"), &stop).await.unwrap().is_some());
        assert!(Seat::take("other", &cluster, &stop).await.unwrap().is_some());
        stop.cancel();
        assert!(Seat::take("it", &cluster, &stop).await.unwrap().is_none());
    }
}
