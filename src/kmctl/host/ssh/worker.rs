//! The thread that owns a session, as its callers see it.
//!
//! A blocking session would let one slow channel stop all others. So the session does not block: on every turn each
//! channel does what it can, and when nothing moves the thread sleeps in `poll` on the socket, on the callers' ends of
//! the pumps, and on a socket that wakes it for new requests.
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};

use tokio::sync::oneshot;

use super::connect::{Abort, Connected, Given, connect};
use super::denied::Denied;
use super::event_loop::Loop;
use super::request::Request;
use super::settings::SshSettings;
use crate::host::HostError;

/// The callers' side of the thread. Dropping it ends the connection.
pub(super) struct Worker {
    requests: Option<Sender<Request>>,
    wake: UnixStream,
    abort: Abort,
    connected: bool,
    ended: Arc<AtomicBool>,
}

impl Worker {
    /// Starts a thread that connects and then calls `connected`.
    pub(super) fn spawn(
        settings: SshSettings,
        given: Given,
        connected: impl FnOnce(Result<(), Denied>) + Send + 'static,
    ) -> Result<Worker, HostError> {
        let broken = |source| HostError::Broken { what: "start a thread for the connection".to_owned(), source };
        let (wake, woken) = UnixStream::pair().map_err(broken)?;
        wake.set_nonblocking(true).map_err(broken)?;
        woken.set_nonblocking(true).map_err(broken)?;
        let (requests, inbox) = channel();
        let worker =
            Worker { requests: Some(requests), wake, abort: Abort::default(), connected: false, ended: Arc::default() };
        let (abort, ended) = (worker.abort.clone(), worker.ended.clone());
        std::thread::Builder::new()
            .name(format!("ssh {}", settings.name))
            .spawn(move || match connect(&settings, &given, &abort) {
                Ok(Connected { session, socket }) => {
                    session.set_blocking(false);
                    // The interval is ours: libssh2 only needs to know that a reply is wanted.
                    session.set_keepalive(true, 1);
                    connected(Ok(()));
                    Loop::new(session, inbox, woken).run(&socket, &ended);
                    abort.abort();
                }
                Err(denied) => connected(Err(denied)),
            })
            .map_err(broken)?;
        Ok(worker)
    }

    /// Like [`Worker::spawn`], but returns when the session is logged in.
    pub(super) async fn start(settings: SshSettings, given: Given) -> Result<Worker, Denied> {
        let (connected, result) = oneshot::channel();
        // Created before anything is awaited, so that dropping this future aborts the attempt.
        let mut worker = Worker::spawn(settings, given, move |result| {
            // The receiver may have been dropped.
            let _ = connected.send(result);
        })?;
        result.await.unwrap_or_else(|_| {
            let source = io::Error::other("the thread ended");
            Err(Denied::Host(HostError::Broken { what: "start a thread for the connection".to_owned(), source }))
        })?;
        worker.settle();
        Ok(worker)
    }

    /// Marks the thread as connected, so that it is asked to end instead of being cut off.
    pub(super) fn settle(&mut self) {
        self.connected = true;
    }

    /// Whether the connection has not been seen to end.
    pub(super) fn lives(&self) -> bool {
        !self.ended.load(Ordering::Acquire)
    }

    /// Passes a request to the thread. If the connection has ended, the request's reply is dropped, which the caller
    /// sees.
    pub(super) fn ask(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
        // A full pair means that the thread is about to wake anyway.
        let _ = (&self.wake).write(&[1]);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Once the sender is dropped, the thread disconnects from the server.
        self.requests = None;
        if self.connected {
            let _ = (&self.wake).write(&[1]);
        } else {
            // It is still connecting, and only the end of its socket wakes it.
            self.abort.abort();
        }
    }
}
