//! Why there is no connection.
use kmctl_core::text::duration;
use std::io;
use std::path::PathBuf;

use super::secrets::Secret;
use super::settings::SshSettings;
use crate::host::HostError;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Denied {
    Host(HostError),
    /// A key's passphrase is required. `wrong` is the one that was tried, if any.
    Passphrase {
        file: PathBuf,
        wrong: Option<Secret>,
    },
}

impl From<HostError> for Denied {
    fn from(error: HostError) -> Self {
        Denied::Host(error)
    }
}

/// A failure of libssh2 while it did `what`.
pub(super) fn ssh_error(what: &str, error: ssh2::Error, settings: &SshSettings) -> HostError {
    let source = io::Error::from(error);
    if source.kind() == io::ErrorKind::TimedOut {
        return unreachable(settings, source);
    }
    HostError::Broken { what: what.to_owned(), source }
}

pub(super) fn unreachable(settings: &SshSettings, source: io::Error) -> HostError {
    HostError::Unreachable {
        what: format!("failed to connect to {}", settings.place()),
        hint: format!("check that sshd runs on {1}: `{0} true`", settings.ssh_command(), settings.name),
        source: timely(settings, source),
    }
}

/// Replaces the system's text for a timeout by "no response within 10s".
pub(super) fn timely(settings: &SshSettings, source: io::Error) -> io::Error {
    if source.kind() != io::ErrorKind::TimedOut {
        return source;
    }
    io::Error::new(io::ErrorKind::TimedOut, format!("no response within {}", duration(settings.connect_timeout)))
}
