//! From an address to a session that is logged in: TCP, greeting, host key, authentication. Blocking; runs on the
//! host's own thread.
use std::io;
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ssh2::{MethodType, Session};

use super::known_hosts::{Known, KnownKey, fingerprint, kind_of};
use super::settings::SshSettings;
use crate::host::HostError;

/// Host key algorithms by type of key, in the order of preference. Certificates are left out: they are not checked.
const ALGORITHMS: [(&str, &str); 5] = [
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    // The same key signs with newer hashes; plain ssh-rsa means SHA-1 and is not offered.
    ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256"),
];

/// libssh2's code for a failed key exchange, which is also what it reports when no host key algorithm is shared.
const KEY_EXCHANGE_FAILURE: [i32; 2] = [-5, -8];

/// Lets another thread end a connection attempt, or a session, at once.
#[derive(Clone, Default)]
pub(super) struct Abort(Arc<Mutex<AbortState>>);

#[derive(Default)]
struct AbortState {
    stream: Option<TcpStream>,
    aborted: bool,
}

impl Abort {
    /// Ends the connection, now or as soon as there is one.
    pub(super) fn abort(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.aborted = true;
        if let Some(stream) = state.stream.take() {
            // Nobody waits for the peer any more, so a failure to say goodbye does not matter.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn watch(&self, stream: &TcpStream) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.aborted {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        state.stream = Some(stream.try_clone()?);
        Ok(())
    }
}

/// A session that is logged in, and its socket for polling.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) socket: TcpStream,
}

/// Connects and logs in within `settings.connect_timeout`.
pub(super) fn connect(settings: &SshSettings, abort: &Abort) -> Result<Connected, HostError> {
    let deadline = Instant::now() + settings.connect_timeout;
    let known = Known::read(&settings.known_hosts, &settings.address, settings.port)
        .map_err(|source| HostError::Broken { what: format!("read {}", settings.known_hosts.display()), source })?;
    let trust = Trust { settings, known: &known };
    let mut first_seen: Option<Vec<u8>> = None;
    for algorithms in trust.attempts() {
        let (session, socket) = match greet(settings, &algorithms, deadline, abort) {
            Ok(greeted) => greeted,
            // The server has no key of these types; the next attempt asks for others.
            Err(Greeting::NoCommonKey) => continue,
            Err(Greeting::Failed(error)) => return Err(error),
        };
        let shown = session.host_key().map(|(blob, _)| blob.to_vec()).unwrap_or_default();
        match trust.judge(&shown) {
            Verdict::Trusted => {
                set_timeout(&session, deadline, settings)?;
                log_in(&session, settings)?;
                return Ok(Connected { session, socket });
            }
            Verdict::Revoked(error) => return Err(error),
            Verdict::Other => {
                first_seen.get_or_insert(shown);
            }
        }
    }
    match first_seen {
        Some(shown) => Err(trust.refusal(&shown)),
        None => Err(HostError::HostKey {
            what: format!("{} offers no host key of a supported type", settings.place()),
            hint: "supported are ed25519, ECDSA, and RSA signed with SHA-2; run `ssh-keygen -A` on the host".to_owned(),
        }),
    }
}

enum Greeting {
    NoCommonKey,
    Failed(HostError),
}

/// TCP and the key exchange, offering only `algorithms` for the host key.
fn greet(
    settings: &SshSettings,
    algorithms: &str,
    deadline: Instant,
    abort: &Abort,
) -> Result<(Session, TcpStream), Greeting> {
    let failed = |source: io::Error| Greeting::Failed(connect_error(settings, source));
    let socket = dial(settings, deadline).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    abort.watch(&socket).map_err(failed)?;
    let broken = |error: ssh2::Error| Greeting::Failed(ssh_error("greet the SSH server", error, settings));
    let mut session = Session::new().map_err(broken)?;
    set_timeout(&session, deadline, settings).map_err(Greeting::Failed)?;
    session.method_pref(MethodType::HostKey, algorithms).map_err(broken)?;
    session.set_tcp_stream(socket.try_clone().map_err(failed)?);
    session.handshake().map_err(|error| match error.code() {
        ssh2::ErrorCode::Session(code) if KEY_EXCHANGE_FAILURE.contains(&code) => Greeting::NoCommonKey,
        _ => broken(error),
    })?;
    Ok((session, socket))
}

fn dial(settings: &SshSettings, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (settings.address.as_str(), settings.port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_error(settings: &SshSettings, source: io::Error) -> HostError {
    if source.kind() == io::ErrorKind::TimedOut {
        return HostError::Timeout(settings.connect_timeout);
    }
    HostError::Connect { address: settings.place(), source }
}

fn set_timeout(session: &Session, deadline: Instant, settings: &SshSettings) -> Result<(), HostError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(HostError::Timeout(settings.connect_timeout));
    }
    // Zero would mean no limit at all.
    session.set_timeout(u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1));
    Ok(())
}

fn ssh_error(what: &str, error: ssh2::Error, settings: &SshSettings) -> HostError {
    let source = io::Error::from(error);
    if source.kind() == io::ErrorKind::TimedOut {
        return HostError::Timeout(settings.connect_timeout);
    }
    HostError::Broken { what: what.to_owned(), source }
}

/// Which keys the host may show.
struct Trust<'a> {
    settings: &'a SshSettings,
    known: &'a Known,
}

enum Verdict {
    Trusted,
    Revoked(HostError),
    Other,
}

impl Trust<'_> {
    /// What to ask the server for, attempt by attempt. A pinned fingerprint does not tell its type, so each type gets
    /// its turn; for keys from known_hosts their types come first, then any, to be able to show what the host has.
    fn attempts(&self) -> Vec<String> {
        let all = ALGORITHMS.map(|(_, algorithm)| algorithm).join(",");
        if self.settings.host_key.is_some() {
            return ALGORITHMS.iter().map(|(_, algorithm)| (*algorithm).to_owned()).collect();
        }
        let known: Vec<_> = ALGORITHMS
            .iter()
            .filter(|(kind, _)| self.known.keys.iter().any(|key| key.kind == *kind))
            .map(|(_, algorithm)| *algorithm)
            .collect();
        if known.is_empty() { vec![all] } else { vec![known.join(","), all] }
    }

    fn judge(&self, shown: &[u8]) -> Verdict {
        if let Some(revoked) = self.known.revoked.iter().find(|key| key.blob == shown) {
            return Verdict::Revoked(self.revoked(revoked));
        }
        let trusted = match &self.settings.host_key {
            Some(pinned) => *pinned == fingerprint(shown),
            None => self.known.keys.iter().any(|key| key.blob == shown),
        };
        if trusted { Verdict::Trusted } else { Verdict::Other }
    }

    fn revoked(&self, key: &KnownKey) -> HostError {
        let file = self.settings.known_hosts.display();
        HostError::HostKey {
            what: format!(
                "the host key of {} ({}, {}) is revoked by {file}:{}",
                self.settings.place(),
                fingerprint(&key.blob),
                key.kind,
                key.line
            ),
            hint: "do not log in; find out why the key was revoked, or give the host a new one".to_owned(),
        }
    }

    /// Why `shown` is not accepted, with both fingerprints and the cure.
    fn refusal(&self, shown: &[u8]) -> HostError {
        let (place, file) = (self.settings.place(), self.settings.known_hosts.display());
        let seen = format!("{} ({})", fingerprint(shown), kind_of(shown));
        let name = if self.settings.port == 22 {
            self.settings.address.clone()
        } else {
            format!("[{}]:{}", self.settings.address, self.settings.port)
        };
        if let Some(pinned) = &self.settings.host_key {
            return HostError::HostKey {
                what: format!("the host key of {place} is {seen}, but cluster.yaml pins {pinned}"),
                hint: format!(
                    "someone may be in between; if the host was reinstalled, compare with `ssh-keygen -lf \
                     /etc/ssh/ssh_host_ed25519_key.pub` on its console, then set hostKey of {} in cluster.yaml",
                    self.settings.name
                ),
            };
        }
        if !self.known.keys.is_empty() {
            let known: Vec<_> = self
                .known
                .keys
                .iter()
                .map(|key| format!("{} ({}, line {})", fingerprint(&key.blob), key.kind, key.line))
                .collect();
            return HostError::HostKey {
                what: format!("the host key of {place} is {seen}, but {file} has {}", known.join(", ")),
                hint: format!(
                    "someone may be in between; if the host was reinstalled, remove the old key with `ssh-keygen -R \
                     '{name}' -f {file}`, then add the new one"
                ),
            };
        }
        if let Some(line) = self.known.authority {
            return HostError::HostKey {
                what: format!(
                    "the host key of {place}, {seen}, is not in {file}; its @cert-authority line {line} is not supported yet"
                ),
                hint: format!(
                    "add the host's own key: `ssh-keyscan -p {} {} >> {file}`, after comparing fingerprints",
                    self.settings.port, self.settings.address
                ),
            };
        }
        HostError::HostKey {
            what: format!("the host key of {place}, {seen}, is not in {file}"),
            hint: format!(
                "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host's console, then run \
                 `ssh-keyscan -p {} {} >> {file}`, or set hostKey of {} in cluster.yaml",
                self.settings.port, self.settings.address, self.settings.name
            ),
        }
    }
}

/// Tries the identities in order, and says which ones were tried.
fn log_in(session: &Session, settings: &SshSettings) -> Result<(), HostError> {
    let mut tried = Vec::new();
    match &settings.identity_file {
        Some(file) => {
            if try_file(session, settings, file, &mut tried)? {
                return Ok(());
            }
            // An encrypted key cannot be read here, but an agent may hold it.
            let public = std::fs::read_to_string(with_pub(file)).unwrap_or_default();
            if !public.is_empty() && try_agent(session, settings, Some(&public), &mut tried)? {
                return Ok(());
            }
        }
        None => {
            if try_agent(session, settings, None, &mut tried)? {
                return Ok(());
            }
            for file in usual_files() {
                if file.exists() && try_file(session, settings, &file, &mut tried)? {
                    return Ok(());
                }
            }
        }
    }
    if tried.is_empty() {
        tried.push("no agent, no key file".to_owned());
    }
    Err(HostError::Authentication {
        what: format!("{} accepted no key for user {} (tried: {})", settings.place(), settings.user, tried.join("; ")),
        hint: format!(
            "try `ssh -p {} {}@{} true`; set ssh.user and ssh.identityFile in cluster.yaml, or `ssh-add` the key",
            settings.port, settings.user, settings.address
        ),
    })
}

fn try_file(
    session: &Session,
    settings: &SshSettings,
    file: &Path,
    tried: &mut Vec<String>,
) -> Result<bool, HostError> {
    if let Err(error) = std::fs::File::open(file) {
        tried.push(format!("{}: {error}", file.display()));
        return Ok(false);
    }
    match session.userauth_pubkey_file(&settings.user, None, file, None) {
        Ok(()) => return Ok(true),
        Err(error) => {
            let unreadable = matches!(error.code(), ssh2::ErrorCode::Session(-16));
            let refused = matches!(error.code(), ssh2::ErrorCode::Session(-18 | -19));
            if unreadable {
                tried.push(format!("{}: not readable, or it needs a passphrase", file.display()));
            } else if refused {
                tried.push(format!("{}: refused", file.display()));
            } else {
                return Err(ssh_error("log in", error, settings));
            }
        }
    }
    Ok(false)
}

fn try_agent(
    session: &Session,
    settings: &SshSettings,
    only: Option<&str>,
    tried: &mut Vec<String>,
) -> Result<bool, HostError> {
    if std::env::var_os("SSH_AUTH_SOCK").is_none() {
        return Ok(false);
    }
    let mut agent = session.agent().map_err(|error| ssh_error("ask the SSH agent", error, settings))?;
    if agent.connect().and_then(|()| agent.list_identities()).is_err() {
        tried.push("agent: does not answer".to_owned());
        return Ok(false);
    }
    let only = only.and_then(|public| public.split_ascii_whitespace().nth(1)).map(str::to_owned);
    for identity in agent.identities().unwrap_or_default() {
        if let Some(only) = &only {
            use base64::Engine as _;
            if base64::engine::general_purpose::STANDARD.encode(identity.blob()) != *only {
                continue;
            }
        }
        match agent.userauth(&settings.user, &identity) {
            Ok(()) => return Ok(true),
            Err(_) => tried.push(format!("agent's {}: refused", fingerprint(identity.blob()))),
        }
    }
    Ok(false)
}

fn with_pub(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn usual_files() -> Vec<PathBuf> {
    let Some(home) = std::env::home_dir() else { return Vec::new() };
    ["id_ed25519", "id_ecdsa", "id_rsa"].iter().map(|name| home.join(".ssh").join(name)).collect()
}

/// How often the server is asked for a sign of life while something is under way.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(5);
