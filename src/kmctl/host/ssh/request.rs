//! What callers request of a connection.
use std::os::unix::net::UnixStream;

use super::exec::Job;
use crate::host::HostError;

/// One request.
pub(super) enum Request {
    /// Run a command.
    Run(Job),
    /// Connect to an address that the host can reach.
    Dial { host: String, port: u16, reply: DialReply },
}

/// Receives the stream, or why there is none. If it is dropped without a call, the connection has ended.
pub(super) type DialReply = Box<dyn FnOnce(Result<UnixStream, HostError>) + Send>;
