//! What `kmctl` can do with a machine, independent of how it is reached.
use kmctl_core::text::duration;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// One remote command: an argv list (quoted by the transport), its standard input, and its time limit.
#[derive(Clone, Debug)]
pub struct Command {
    /// Program and arguments. Never a secret: secrets are passed through `stdin`.
    pub argv: Vec<String>,
    /// Bytes for standard input, which is then closed.
    pub stdin: Vec<u8>,
    /// Whether to run as root, through sudo if the host's settings say so.
    pub privileged: bool,
    /// How long the command may be silent and unfinished before it counts as failed.
    pub timeout: Duration,
}

/// The result of a finished command.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Exit status, or 128 + signal number if a signal ended it.
    pub status: i32,
    /// The whole standard output.
    pub stdout: Vec<u8>,
    /// The whole standard error.
    pub stderr: Vec<u8>,
}

/// A byte stream to an address that the host can reach (SSH's `direct-tcpip`).
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A machine that can be inspected and changed.
#[async_trait]
pub trait Host: Send + Sync {
    /// The host's name in cluster.yaml, for messages.
    fn name(&self) -> &str;

    /// Runs a command to completion. A non-zero exit status is an [`Output`], not an error.
    async fn run(&self, command: Command) -> Result<Output, HostError>;

    /// Like [`Host::run`], but sends each complete line of standard output to `lines` as it arrives.
    async fn run_lines(&self, command: Command, lines: mpsc::Sender<String>) -> Result<Output, HostError>;

    /// Runs a command whose standard input is read from `source`. Reports the bytes sent so far to `sent` and sends
    /// each complete line of standard output to `lines` as it arrives, so that one stream both carries files and
    /// reports progress.
    async fn run_with_input(
        &self,
        command: Command,
        source: Box<dyn std::io::Read + Send>,
        sent: mpsc::Sender<u64>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError>;

    /// Opens a connection from the host to `address`.
    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Stream>, HostError>;
}

/// Why a host could not be used. The caller's own error names the host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No connection could be established.
    #[error("failed to connect to {address}")]
    Connect {
        /// Address and port.
        address: String,
        #[source]
        source: std::io::Error,
    },
    /// The host's key is not the expected one.
    #[error("{what}")]
    HostKey {
        /// What is wrong with it.
        what: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// No offered identity was accepted.
    #[error("{what}")]
    Authentication {
        /// What was tried.
        what: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// The host cannot be reached, or no SSH server answers there.
    #[error("{what}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// What the operator can do about it.
        hint: String,
        #[source]
        source: std::io::Error,
    },
    /// A jump host could not be used, or could not reach the host.
    #[error("failed to connect through jump host {place}")]
    Jump {
        /// The jump host, `user@address:port`.
        place: String,
        #[source]
        source: Box<HostError>,
    },
    /// The login may not become root.
    #[error("{what}")]
    Sudo {
        /// What sudo printed.
        what: String,
        /// What the operator can do about it.
        hint: String,
    },
    /// The host requires something that is not supported yet.
    #[error("{0}")]
    Unsupported(String),
    /// The connection broke, or the command could not be started.
    #[error("failed to {what}")]
    Broken {
        /// The operation that failed.
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// There was no answer in time.
    #[error("no response within {}", duration(*.0))]
    Timeout(Duration),
}

impl HostError {
    /// What the operator can do, if known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            HostError::HostKey { hint, .. }
            | HostError::Authentication { hint, .. }
            | HostError::Unreachable { hint, .. }
            | HostError::Sudo { hint, .. } => Some(hint),
            HostError::Jump { source, .. } => source.hint(),
            _ => None,
        }
    }
}

impl Command {
    /// The longest silence of a command that should answer immediately.
    pub const SHORT: Duration = Duration::from_secs(30);

    /// A command that should answer immediately, run as the login itself, without input.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Command {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            privileged: false,
            timeout: Self::SHORT,
        }
    }

    /// Runs the command as root.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// Sets the command's standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Allows the command to be silent for `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Output {
    /// Whether the command exited with status 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last non-empty line of standard error, for messages.
    pub fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message").to_owned()
    }
}
