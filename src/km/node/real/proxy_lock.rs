//! One kube-proxy per network namespace: its chain names are compiled in, so two would rewrite each other's rules. The
//! lock is the name of an abstract socket. Such names are per network namespace, leave no file behind, and are released
//! however their holder ends.
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::super::deps::DepError;

const NAME: &str = "kmctl/kube-proxy";

/// Held while this process uses the namespace's chains.
#[derive(Debug)]
pub struct ProxyLock {
    _listener: UnixListener,
}

/// Holds the lock of kube-proxy's service until the run's remains are removed.
#[derive(Clone, Debug, Default)]
pub struct ProxySlot(Arc<Mutex<Option<ProxyLock>>>);

impl ProxySlot {
    /// Takes the lock if this run does not have it yet.
    pub fn fill(&self) -> Result<(), DepError> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(take()?);
        }
        Ok(())
    }

    /// Moves the lock to the caller.
    pub fn take(&self) -> Option<ProxyLock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes the lock, or reports its holder.
pub fn take() -> Result<ProxyLock, DepError> {
    take_named(NAME)
}

fn take_named(name: &str) -> Result<ProxyLock, DepError> {
    let what = "lock kube-proxy of this network namespace";
    let address = SocketAddr::from_abstract_name(name).map_err(DepError::io(what))?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(ProxyLock { _listener: listener }),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            // The holder does not accept connections. The kernel reports the socket's owner as soon as the connection
            // is queued.
            let holder = UnixStream::connect_addr(&address)
                .ok()
                .and_then(|stream| getsockopt(&stream, PeerCredentials).ok())
                .map_or_else(|| "unknown".to_owned(), |peer| peer.pid().to_string());
            Err(DepError::Refused(format!(
                "another node (process {holder}) runs kube-proxy in the network namespace of this agent; separate \
                 the clusters with nodes.constraints"
            )))
        }
        Err(source) => Err(DepError::Io { what: what.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who_has_it_until_the_first_is_gone() {
        let name = format!("kmctl-test/{}", std::process::id());
        let first = take_named(&name).unwrap();
        let refused = take_named(&name).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        take_named(&name).unwrap();
    }
}
