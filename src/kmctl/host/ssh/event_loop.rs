//! The loop that serves everything on a session: commands, streams, keepalives.
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use ssh2::{BlockDirections, Channel, Session};

use super::channel_forward::Pump;
use super::exec::{Exec, Step, ready};
use super::request::Request;
use super::settings::KEEPALIVE;
use crate::host::HostError;
use kmctl_core::text::duration;

/// A server that has been silent for this long, keepalives included, is considered lost.
const SILENCE: Duration = Duration::from_secs(20);

/// How long the thread sleeps at most while something is running. A dropped caller is noticed within this time.
const TURN: Duration = Duration::from_millis(250);

/// libssh2's code for a channel that the server refuses to open.
const CHANNEL_FAILURE: ssh2::ErrorCode = ssh2::ErrorCode::Session(-21);

/// Everything that runs on one connection.
pub(super) struct Loop {
    session: Session,
    inbox: Receiver<Request>,
    woken: UnixStream,
    waiting: VecDeque<Request>,
    running: Vec<Exec>,
    pumps: Vec<Pump>,
    heard: Instant,
    asked: Instant,
    outbound: bool,
    /// Something has arrived that only the next channel will read.
    unread: bool,
    /// The last caller was dropped. Only streams remain.
    unneeded: bool,
}

/// Why the loop ended.
enum End {
    /// The connection is no longer needed.
    Unneeded,
    Broken(io::Error),
}

impl Loop {
    pub(super) fn new(session: Session, inbox: Receiver<Request>, woken: UnixStream) -> Self {
        let now = Instant::now();
        Loop {
            session,
            inbox,
            woken,
            waiting: VecDeque::new(),
            running: Vec::new(),
            pumps: Vec::new(),
            heard: now,
            asked: now,
            outbound: false,
            unread: false,
            unneeded: false,
        }
    }

    pub(super) fn run(mut self, socket: &OwnedFd, ended: &AtomicBool) {
        let end = loop {
            match self.turn(socket) {
                Ok(true) => {}
                Ok(false) => break End::Unneeded,
                Err(error) => break End::Broken(error),
            }
        };
        // Before the replies, so that a caller that has its reply sends no further request to this thread.
        ended.store(true, Ordering::Release);
        match end {
            End::Unneeded => {
                // Courtesy only: the socket is closed next.
                let _ = self.session.disconnect(None, "done", None);
            }
            End::Broken(error) => {
                for exec in &mut self.running {
                    exec.fail("keep the connection", &error);
                }
                while let Ok(request) = self.inbox.try_recv() {
                    self.waiting.push_back(request);
                }
                for request in self.waiting.drain(..) {
                    refuse(request, "keep the connection", io::Error::new(error.kind(), error.to_string()));
                }
            }
        }
    }

    /// One turn. `false` if the connection is no longer needed.
    fn turn(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        let unneeded = loop {
            match self.inbox.try_recv() {
                Ok(request) => self.waiting.push_back(request),
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        self.unneeded = unneeded;
        // Streams outlive the host that opened them. Commands have no caller left to report to.
        if unneeded && self.pumps.is_empty() {
            return Ok(false);
        }
        let now = Instant::now();
        // Before libssh2 reads: it does not report what it consumes itself, such as the answer to a keepalive.
        if arrives(socket, PollTimeout::ZERO) {
            self.heard = now;
        }
        self.outbound = false;
        let mut moved = self.open(now)?;
        moved |= self.serve(now)?;
        if !moved {
            self.sleep(socket)?;
        }
        Ok(true)
    }

    /// Opens the channel of the first waiting request. libssh2 opens one at a time, and must finish the one that it
    /// started.
    fn open(&mut self, now: Instant) -> io::Result<bool> {
        let Some(request) = self.waiting.front() else { return Ok(false) };
        if self.running.is_empty() && self.pumps.is_empty() {
            // Nothing was expected until now, so silence until now means nothing.
            self.heard = now.max(self.heard);
        }
        let opened = match request {
            Request::Run(_) => self.session.channel_session(),
            Request::Dial { host, port, .. } => self.session.channel_direct_tcpip(host, *port, None),
        };
        let denied = opened.as_ref().err().is_some_and(|error| error.code() == CHANNEL_FAILURE);
        let channel = match ready(opened.map_err(io::Error::from)) {
            Ok(Some(channel)) => Ok(channel),
            Ok(None) => {
                self.note_direction();
                return Ok(false);
            }
            // The server refuses this channel. Any other error ends the connection.
            Err(error) if denied => Err(error),
            Err(error) => return Err(error),
        };
        if let Some(request) = self.waiting.pop_front() {
            match channel {
                Ok(channel) => self.begin(request, channel, now),
                Err(error) => {
                    let what = match &request {
                        Request::Run(_) => "open a session".to_owned(),
                        Request::Dial { host, port, .. } => format!("connect from the host to {host}:{port}"),
                    };
                    refuse(request, &what, error);
                }
            }
        }
        Ok(true)
    }

    fn begin(&mut self, request: Request, channel: Channel, now: Instant) {
        match request {
            Request::Run(job) => self.running.push(Exec::new(channel, job, now)),
            Request::Dial { reply, .. } => {
                let pair = UnixStream::pair().and_then(|(near, far)| {
                    near.set_nonblocking(true)?;
                    far.set_nonblocking(true)?;
                    Ok((near, far))
                });
                match pair {
                    Ok((near, far)) => {
                        self.pumps.push(Pump::new(channel, far));
                        // A dropped caller drops its end, which the pump notices.
                        reply(Ok(near));
                    }
                    Err(source) => {
                        reply(Err(HostError::Broken { what: "create a socket pair".to_owned(), source }));
                    }
                }
            }
        }
    }

    fn serve(&mut self, now: Instant) -> io::Result<bool> {
        let mut moved = false;
        let mut index = 0;
        while index < self.running.len() {
            let step = self.running[index].step(now);
            self.note_direction();
            match step {
                Step::Moved => moved = true,
                Step::Waiting => {}
                Step::Over => {
                    self.running.swap_remove(index);
                    moved = true;
                    continue;
                }
                Step::Stuck => return Err(io::Error::new(io::ErrorKind::TimedOut, "a channel does not close")),
            }
            index += 1;
        }
        let mut index = 0;
        while index < self.pumps.len() {
            let step = self.pumps[index].step(now);
            self.note_direction();
            match step {
                Step::Moved => moved = true,
                Step::Waiting => {}
                Step::Over => {
                    self.pumps.swap_remove(index);
                    moved = true;
                    continue;
                }
                Step::Stuck => return Err(io::Error::new(io::ErrorKind::TimedOut, "a stream does not close")),
            }
            index += 1;
        }
        Ok(moved)
    }

    /// libssh2 reports only for its last call whether it waits for room to send.
    fn note_direction(&mut self) {
        self.outbound |= matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
    }

    fn sleep(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let busy = !self.waiting.is_empty() || !self.running.is_empty();
        let wants_socket = busy || self.pumps.iter().any(Pump::wants_socket);
        let mut flags = PollFlags::empty();
        // The server's disconnect is useful to know even while nothing is running. But with no reader, anything else
        // that has arrived would wake the thread again and again.
        flags.set(PollFlags::POLLIN, wants_socket || !self.unread);
        flags.set(PollFlags::POLLOUT, self.outbound);
        let mut watched = vec![PollFd::new(socket.as_fd(), flags)];
        let mut pumps = Vec::new();
        for (index, pump) in self.pumps.iter().enumerate() {
            if let Some((fd, flags)) = pump.interest() {
                watched.push(PollFd::new(fd, flags));
                pumps.push(index);
            }
        }
        // Its other end was dropped with the callers, which poll would report forever.
        if !self.unneeded {
            watched.push(PollFd::new(self.woken.as_fd(), PollFlags::POLLIN));
        }
        let limit = if busy { TURN } else { KEEPALIVE };
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, limit) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let seen: Vec<PollFlags> = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        drop(watched);
        let mut ignored = [0; 64];
        while matches!(self.woken.read(&mut ignored), Ok(count) if count > 0) {}
        if seen[0].intersects(PollFlags::POLLERR | PollFlags::POLLNVAL)
            || !wants_socket && seen[0].contains(PollFlags::POLLHUP)
        {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection lost"));
        }
        self.unread = false;
        if !wants_socket && flags.contains(PollFlags::POLLIN) && seen[0].contains(PollFlags::POLLIN) {
            match recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the server closed the connection"));
                }
                _ => self.unread = true,
            }
        } else if !wants_socket {
            self.unread = !flags.contains(PollFlags::POLLIN);
        }
        for (index, flags) in pumps.into_iter().zip(&seen[1..]) {
            if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
                self.pumps[index].hung_up();
            }
        }
        self.stay_alive(socket, seen[0], wants_socket)
    }

    fn stay_alive(&mut self, socket: &OwnedFd, seen: PollFlags, wants_socket: bool) -> io::Result<()> {
        let now = Instant::now();
        if seen.contains(PollFlags::POLLIN) || !wants_socket {
            self.heard = now;
        }
        let silent = now.duration_since(self.heard);
        if silent > SILENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no data received for {}", duration(Duration::from_secs(silent.as_secs()))),
            ));
        }
        // Not while a packet waits for room: libssh2 would start the keepalive from a buffer that no longer exists when
        // it finishes the packet.
        if wants_socket && silent >= KEEPALIVE && now.duration_since(self.asked) >= KEEPALIVE && !self.outbound {
            self.asked = now;
            self.session.keepalive_send().map_err(io::Error::from)?;
            // The answer is awaited here, where nothing can consume it unseen: on a busy machine the server is often
            // faster than this thread's next check.
            if arrives(socket, PollTimeout::try_from(TURN).unwrap_or(PollTimeout::ZERO)) {
                self.heard = Instant::now();
            }
        }
        Ok(())
    }
}

/// Whether something arrives, or the connection ends, within this time.
fn arrives(socket: &OwnedFd, within: PollTimeout) -> bool {
    let mut watched = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut watched, within), Ok(count) if count > 0)
}

fn refuse(request: Request, what: &str, source: io::Error) {
    let error = HostError::Broken { what: what.to_owned(), source };
    // The receiver may have been dropped meanwhile.
    match request {
        Request::Run(job) => {
            let _ = job.reply.send(Err(error));
        }
        Request::Dial { reply, .. } => {
            reply(Err(error));
        }
    }
}
