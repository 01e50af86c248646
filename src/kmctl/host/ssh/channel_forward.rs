//! A `direct-tcpip` channel, copied to and from one end of a socket pair whose other end is the caller's stream.
//!
//! The socket pair provides back-pressure in both directions at no cost: what the caller does not read fills the pair,
//! then the channel is no longer read, its window closes, and the far side stops.
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use ssh2::Channel;

use super::exec::{Step, half_sent, ready};

const CHUNK: usize = 64 * 1024;

/// How long an abandoned channel may take to close before the connection is given up.
const CLOSING: Duration = Duration::from_secs(5);

/// The buffered bytes of one direction.
#[derive(Default)]
struct Transit {
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
}

impl Transit {
    fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Fills the empty buffer. Returns whether anything was read.
    fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        self.buffer.resize(CHUNK, 0);
        self.start = 0;
        let count = ready(from.read(&mut self.buffer));
        self.buffer.truncate(count.as_ref().map_or(0, |count| count.unwrap_or(0)));
        match count? {
            Some(0) => {
                self.ended = true;
                Ok(true)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

/// An open connection.
pub(super) struct Pump {
    channel: Channel,
    local: UnixStream,
    outward: Transit,
    inward: Transit,
    /// End of input has been sent to the far side.
    told_far: bool,
    /// End of input has been sent to the caller.
    told_near: bool,
    /// A packet of `outward` is half sent.
    owed: bool,
    /// The caller has dropped its end. What it wrote before must still be sent.
    hung_up: bool,
    /// Since when the channel is being closed.
    abandoned: Option<Instant>,
}

impl Pump {
    pub(super) fn new(channel: Channel, local: UnixStream) -> Self {
        Pump {
            channel,
            local,
            outward: Transit::default(),
            inward: Transit::default(),
            told_far: false,
            told_near: false,
            owed: false,
            hung_up: false,
            abandoned: None,
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        match self.advance(now) {
            Ok(step) => step,
            // The caller sees the end of its stream when this end is dropped.
            Err(_) => Step::Over,
        }
    }

    fn advance(&mut self, now: Instant) -> io::Result<Step> {
        if let Some(since) = self.abandoned {
            return self.close(now, since);
        }
        let moved = self.outward()? | self.inward()?;
        let all_sent = self.outward.ended && self.outward.is_empty();
        if self.told_far && self.told_near || self.hung_up && all_sent {
            self.abandoned = Some(now);
            return Ok(Step::Moved);
        }
        Ok(if moved { Step::Moved } else { Step::Waiting })
    }

    fn outward(&mut self) -> io::Result<bool> {
        let mut moved = false;
        loop {
            if !self.outward.is_empty() {
                match ready(self.channel.write(self.outward.rest()))? {
                    Some(0) | None => {
                        self.owed = half_sent(&self.channel);
                        return Ok(moved);
                    }
                    Some(count) => {
                        self.owed = false;
                        self.outward.start += count;
                        moved = true;
                    }
                }
            } else if self.outward.ended {
                if !self.told_far && ready(self.channel.send_eof().map_err(io::Error::from))?.is_some() {
                    self.told_far = true;
                    moved = true;
                }
                return Ok(moved);
            } else if !self.outward.fill(&mut self.local)? {
                return Ok(moved);
            }
        }
    }

    fn inward(&mut self) -> io::Result<bool> {
        let mut moved = false;
        // Bounded, so that one fast stream does not starve the others of the same connection.
        for _ in 0..8 {
            if !self.inward.is_empty() {
                match ready(self.local.write(self.inward.rest())) {
                    Ok(Some(count)) => {
                        self.inward.start += count;
                        moved = true;
                    }
                    Ok(None) => return Ok(moved),
                    Err(_) => {
                        // The caller no longer reads.
                        self.inward = Transit::default();
                        self.hung_up = true;
                        moved = true;
                    }
                }
            } else if self.inward.ended || self.channel.eof() {
                if !self.told_near {
                    self.told_near = true;
                    moved = true;
                    // It is fine if the caller has already closed it.
                    let _ = self.local.shutdown(Shutdown::Write);
                }
                return Ok(moved);
            } else if !self.inward.fill(&mut self.channel)? {
                return Ok(moved);
            }
        }
        Ok(moved)
    }

    fn close(&mut self, now: Instant, since: Instant) -> io::Result<Step> {
        if now.duration_since(since) > CLOSING {
            return Ok(Step::Stuck);
        }
        if self.owed {
            match ready(self.channel.write(self.outward.rest()))? {
                Some(_) => self.owed = false,
                None => return Ok(Step::Waiting),
            }
        }
        Ok(match ready(self.channel.close().map_err(io::Error::from))? {
            Some(()) => Step::Over,
            None => Step::Waiting,
        })
    }

    /// Whether this pump waits for bytes from the far side, or for room there.
    pub(super) fn wants_socket(&self) -> bool {
        self.abandoned.is_some()
            || !self.outward.is_empty()
            || (self.outward.ended && !self.told_far)
            || (self.inward.is_empty() && !self.told_near)
    }

    /// What to poll at the caller's end. `None` if polling it would be useless.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.abandoned.is_some() {
            return None;
        }
        let mut flags = PollFlags::empty();
        // Poll reports a hang-up even if it is not requested, so a pair that only waits for the far side is left out.
        if self.hung_up && !self.outward.is_empty() {
            return None;
        }
        if self.outward.is_empty() && !self.outward.ended {
            flags |= PollFlags::POLLIN;
        }
        if !self.inward.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        Some((self.local.as_fd(), flags))
    }

    /// The caller has closed both directions. What it wrote before is still sent, and what is received is dropped.
    pub(super) fn hung_up(&mut self) {
        self.hung_up = true;
    }
}
