//! What callers want of a connection.
use std::os::unix::net::UnixStream;

use super::exec::Job;
use crate::host::HostError;

/// One thing that is wanted.
pub(super) enum Request {
    /// Run a command.
    Run(Job),
    /// Connect to an address that the host reaches.
    Dial { host: String, port: u16, reply: DialReply },
}

/// Takes the stream, or why there is none. Dropped without a call it means that the connection has ended.
pub(super) type DialReply = Box<dyn FnOnce(Result<UnixStream, HostError>) + Send>;
