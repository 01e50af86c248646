//! From an address to a session that is logged in: TCP or jump hosts, greeting, host key, authentication. Blocking:
//! runs on the host's own thread.
use std::collections::BTreeMap;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{Shutdown, shutdown};
use ssh2::{MethodType, Session};

use super::denied::{Denied, ssh_error, timely, unreachable};
use super::host_key::{Trust, Verdict};
use super::known_hosts::{self, Known, fingerprint, kind_of};
use super::login::log_in;
use super::request::Request;
use super::secrets::Secret;
use super::settings::SshSettings;
use super::worker::Worker;
use crate::host::HostError;

/// In order of preference. libssh2 would prefer ChaCha20, of which it has its own portable implementation. AES-GCM is
/// OpenSSL's, which uses the processor's instructions for it. A server that supports neither gets one that it supports.
const CIPHERS: &str = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,\
                       aes256-ctr";

/// libssh2's codes for a failed key exchange, which it also reports when no host key algorithm is shared.
const KEY_EXCHANGE_FAILURE: [i32; 2] = [-5, -8];

/// How soon an attempt that waits for a jump host notices that it was cancelled.
const TURN: Duration = Duration::from_millis(100);

/// Lets another thread end a connection attempt or a session immediately.
#[derive(Clone, Default)]
pub(super) struct Abort(Arc<Mutex<AbortState>>);

#[derive(Default)]
struct AbortState {
    socket: Option<OwnedFd>,
    aborted: bool,
}

impl Abort {
    /// Ends the connection, now or as soon as there is one.
    pub(super) fn abort(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.aborted = true;
        if let Some(socket) = state.socket.take() {
            // The peer's answer is no longer awaited, so a failed shutdown does not matter.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
        }
    }

    fn watch(&self, socket: &OwnedFd) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.aborted {
            return Err(interrupted());
        }
        state.socket = Some(socket.try_clone()?);
        Ok(())
    }

    fn is_aborted(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).aborted
    }
}

fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "interrupted")
}

/// A session that is logged in, and its socket for polling.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) socket: OwnedFd,
}

/// What an attempt is given in addition to the settings.
#[derive(Clone, Default)]
pub(super) struct Given {
    pub(super) passphrases: BTreeMap<PathBuf, Secret>,
    /// Messages for the operator, even if the attempt fails: keys of hosts that are trusted from now on.
    pub(super) news: Arc<Mutex<Vec<String>>>,
}

impl Given {
    fn say(&self, text: String) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// The messages since the last call.
    pub(super) fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Connects, through the jump hosts if there are any, and logs in within `settings.connect_timeout`.
pub(super) fn connect(settings: &SshSettings, given: &Given, abort: &Abort) -> Result<Connected, Denied> {
    let known = Known::read(&settings.known_hosts, &settings.address, settings.port)
        .map_err(|source| HostError::Broken { what: format!("read {}", settings.known_hosts.display()), source })?;
    let route = Route::find(settings, given, abort)?;
    // The jump hosts have their own limits. This host's limit starts here.
    let deadline = Instant::now() + settings.connect_timeout;
    let trust = Trust { settings, known: &known };
    let mut first_seen: Option<Vec<u8>> = None;
    for algorithms in trust.attempts() {
        let (session, socket) = match greet(&route, settings, &algorithms, deadline, abort) {
            Ok(greeted) => greeted,
            // The server has no key of these types. The next attempt requests others.
            Err(Greeting::NoCommonKey) => continue,
            Err(Greeting::Failed(error)) => return Err(error.into()),
        };
        let shown = session.host_key().map(|(blob, _)| blob.to_vec()).unwrap_or_default();
        match trust.judge(&shown, SystemTime::now()) {
            Verdict::Trusted => {}
            Verdict::New => given.say(accept(settings, &shown)?),
            Verdict::Refused(error) => return Err(error.into()),
            Verdict::Other => {
                first_seen.get_or_insert(shown);
                continue;
            }
        }
        set_timeout(&session, deadline, settings)?;
        log_in(&session, settings, &given.passphrases)?;
        return Ok(Connected { session, socket });
    }
    Err(Denied::Host(first_seen.map_or_else(|| trust.keyless(), |shown| trust.refusal(&shown))))
}

/// Writes the key of a new host to known_hosts.
fn accept(settings: &SshSettings, key: &[u8]) -> Result<String, HostError> {
    let (file, place) = (settings.known_hosts.display(), settings.place());
    known_hosts::add(&settings.known_hosts, &settings.address, settings.port, key)
        .map_err(|source| HostError::Broken { what: format!("write the host key of {place} to {file}"), source })?;
    Ok(format!("added the host key of {place}, {} ({}), to {file}", fingerprint(key), kind_of(key)))
}

/// How the host is reached.
enum Route {
    Direct,
    /// Through a jump host. Its thread lives as long as the streams through it.
    Through(Worker, Box<SshSettings>),
}

impl Route {
    fn find(settings: &SshSettings, given: &Given, abort: &Abort) -> Result<Route, Denied> {
        let Some(hop) = settings.hop() else { return Ok(Route::Direct) };
        let _door = Door::enter(hop.place(), abort).map_err(|source| unreachable(&hop, source))?;
        let (connected, result) = channel();
        let worker = Worker::spawn(hop.clone(), given.clone(), move |result| {
            // The receiver may have been dropped.
            let _ = connected.send(result);
        });
        let mut worker = worker.map_err(|error| through(&hop, error))?;
        match wait(&result, None, abort) {
            Ok(Ok(())) => {
                worker.settle();
                Ok(Route::Through(worker, Box::new(hop)))
            }
            Ok(Err(Denied::Host(error))) => Err(Denied::Host(through(&hop, error))),
            Ok(Err(passphrase)) => Err(passphrase),
            Err(source) => Err(Denied::Host(through(&hop, HostError::Broken { what: "log in".to_owned(), source }))),
        }
    }

    fn dial(&self, settings: &SshSettings, deadline: Instant, abort: &Abort) -> Result<OwnedFd, HostError> {
        let (worker, hop) = match self {
            Route::Direct => {
                let socket = dial(settings, deadline).and_then(|socket| {
                    socket.set_nodelay(true)?;
                    Ok(socket)
                });
                return socket.map(OwnedFd::from).map_err(|source| unreachable(settings, source));
            }
            Route::Through(worker, hop) => (worker, hop),
        };
        let (reply, result) = channel();
        worker.ask(Request::Dial {
            host: settings.address.clone(),
            port: settings.port,
            reply: Box::new(move |result| {
                // The receiver may have been dropped.
                let _ = reply.send(result);
            }),
        });
        match wait(&result, Some(deadline), abort) {
            Ok(Ok(stream)) => Ok(stream.into()),
            Ok(Err(HostError::Broken { source, .. })) | Err(source) => Err(through(hop, unreachable(settings, source))),
            Ok(Err(error)) => Err(through(hop, error)),
        }
    }
}

/// How many connections to one jump host log in concurrently. sshd starts to drop some at random at ten (`MaxStartups
/// 10:30:100`), and other operators may be connecting, too.
const AT_ONCE: usize = 5;

/// How many are logging in, by place.
static LOGGING_IN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Wakes the threads that wait for a [`Door`].
static OPENED: Condvar = Condvar::new();

/// A permit to log in to a jump host now.
struct Door(String);

impl Door {
    fn enter(place: String, abort: &Abort) -> io::Result<Door> {
        let mut all = LOGGING_IN.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if abort.is_aborted() {
                return Err(interrupted());
            }
            let count = all.entry(place.clone()).or_default();
            if *count < AT_ONCE {
                *count += 1;
                return Ok(Door(place));
            }
            all = OPENED.wait_timeout(all, TURN).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut all = LOGGING_IN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.0) {
            *count -= 1;
        }
        OPENED.notify_all();
    }
}

fn through(hop: &SshSettings, source: HostError) -> HostError {
    HostError::Jump { place: format!("{}@{}", hop.user, hop.place()), source: Box::new(source) }
}

/// Waits for a jump host's thread until the deadline or until cancelled.
fn wait<T>(answer: &Receiver<T>, deadline: Option<Instant>, abort: &Abort) -> io::Result<T> {
    loop {
        if abort.is_aborted() {
            return Err(interrupted());
        }
        match answer.recv_timeout(TURN) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::TimedOut.into()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection lost"));
            }
        }
    }
}

enum Greeting {
    NoCommonKey,
    Failed(HostError),
}

/// The connection and the key exchange, offering only `algorithms` for the host key.
fn greet(
    route: &Route,
    settings: &SshSettings,
    algorithms: &str,
    deadline: Instant,
    abort: &Abort,
) -> Result<(Session, OwnedFd), Greeting> {
    let socket = route.dial(settings, deadline, abort).map_err(Greeting::Failed)?;
    let failed = |source: io::Error| Greeting::Failed(unreachable(settings, source));
    abort.watch(&socket).map_err(failed)?;
    let broken = |error: ssh2::Error| Greeting::Failed(ssh_error("start the SSH session", error, settings));
    let mut session = Session::new().map_err(broken)?;
    set_timeout(&session, deadline, settings).map_err(Greeting::Failed)?;
    session.method_pref(MethodType::HostKey, algorithms).map_err(broken)?;
    for direction in [MethodType::CryptCs, MethodType::CryptSc] {
        session.method_pref(direction, CIPHERS).map_err(broken)?;
    }
    session.set_tcp_stream(socket.try_clone().map_err(failed)?);
    session.handshake().map_err(|error| match error.code() {
        ssh2::ErrorCode::Session(code) if KEY_EXCHANGE_FAILURE.contains(&code) => Greeting::NoCommonKey,
        _ if abort.is_aborted() => failed(interrupted()),
        _ if !session.banner().is_some_and(|banner| banner.starts_with("SSH-")) => {
            Greeting::Failed(no_ssh(settings, &error.into()))
        }
        _ => broken(error),
    })?;
    Ok((session, socket))
}

fn dial(settings: &SshSettings, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name does not resolve");
    for address in (settings.address.as_str(), settings.port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                // The next request must not wait until the server has acknowledged the previous one.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `source` is libssh2's error, whose text describes libssh2 rather than the server.
fn no_ssh(settings: &SshSettings, source: &io::Error) -> HostError {
    let (what, source) = match source.kind() {
        io::ErrorKind::TimedOut => ("it sends nothing", timely(settings, io::ErrorKind::TimedOut.into())),
        kind => ("it is not an SSH server", io::Error::new(kind, "connection closed before the SSH banner")),
    };
    HostError::Unreachable {
        what: format!("{} accepts connections, but {what}", settings.place()),
        hint: format!(
            "check which server listens there: `{} true`; if sshd uses another port, set ssh.port of {} in \
             cluster.yaml",
            settings.ssh_command().replacen("ssh ", "ssh -v ", 1),
            settings.name
        ),
        source,
    }
}

fn set_timeout(session: &Session, deadline: Instant, settings: &SshSettings) -> Result<(), HostError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(unreachable(settings, io::ErrorKind::TimedOut.into()));
    }
    // Zero would mean no limit at all.
    session.set_timeout(u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1));
    Ok(())
}
