//! One remote command on a session that does not block: its remaining work, step by step.
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use ssh2::Channel;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroize as _;

use super::sudo::{Gate, Heard};
use crate::host::{HostError, Output};

/// How much is read or written at once: what libssh2 puts into one packet. Of 32 KiB it would send the last 68 bytes in
/// a packet of their own, which costs both sides nearly as much as a large one.
const CHUNK: usize = 32_700;

/// How long a command whose result is no longer awaited may take to close before the connection is given up.
const CLOSING: Duration = Duration::from_secs(5);

/// A command as the worker gets it.
pub(super) struct Job {
    pub(super) line: String,
    /// If the command becomes root through sudo.
    pub(super) gate: Option<Gate>,
    pub(super) stdin: Box<dyn Read + Send>,
    pub(super) sent: Option<mpsc::Sender<u64>>,
    pub(super) lines: Option<mpsc::UnboundedSender<String>>,
    pub(super) timeout: Duration,
    pub(super) reply: oneshot::Sender<Result<Output, HostError>>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes moved. Call again immediately.
    Moved,
    /// Nothing to do before the socket is ready.
    Waiting,
    /// Finished. The channel can be dropped.
    Over,
    /// The channel does not close. The connection must be dropped.
    Stuck,
}

enum Phase {
    Starting,
    Running,
    /// Both outputs ended. The exit status is awaited.
    Ending,
    /// The result is no longer awaited, or it has been delivered.
    Closing {
        since: Instant,
    },
}

/// A running command.
pub(super) struct Exec {
    channel: Channel,
    line: String,
    gate: Option<Gate>,
    stdin: Option<Box<dyn Read + Send>>,
    chunk: Vec<u8>,
    /// The buffer that outputs are read into.
    read: Box<[u8]>,
    written: usize,
    /// libssh2 holds a half-sent packet of `chunk`: nothing else may be written before it is sent completely.
    owed: bool,
    total: u64,
    sent: Option<mpsc::Sender<u64>>,
    lines: Option<mpsc::UnboundedSender<String>>,
    line_start: usize,
    output: Output,
    timeout: Duration,
    heard: Instant,
    phase: Phase,
    reply: Option<oneshot::Sender<Result<Output, HostError>>>,
}

impl Exec {
    pub(super) fn new(channel: Channel, job: Job, now: Instant) -> Self {
        let Job { line, gate, stdin, sent, lines, timeout, reply } = job;
        Exec {
            channel,
            line,
            gate,
            stdin: Some(stdin),
            chunk: Vec::new(),
            read: vec![0; CHUNK].into_boxed_slice(),
            written: 0,
            owed: false,
            total: 0,
            sent,
            lines,
            line_start: 0,
            output: Output::default(),
            timeout,
            heard: now,
            phase: Phase::Starting,
            reply: Some(reply),
        }
    }

    /// Does what can be done without waiting.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.reply.as_ref().is_some_and(oneshot::Sender::is_closed) {
            self.reply = None;
            self.phase = Phase::Closing { since: now };
        }
        match self.advance(now) {
            Ok(Step::Moved) => {
                self.heard = now;
                Step::Moved
            }
            Ok(Step::Waiting) if self.reply.is_some() && now.duration_since(self.heard) > self.timeout => {
                self.answer(Err(HostError::Timeout(self.timeout)));
                self.phase = Phase::Closing { since: now };
                Step::Moved
            }
            Ok(step) => step,
            Err(source) => {
                let what = match self.phase {
                    Phase::Starting => "start the command",
                    _ => "exchange data with the command",
                };
                self.answer(Err(HostError::Broken { what: what.to_owned(), source }));
                Step::Over
            }
        }
    }

    /// Reports that the connection was lost.
    pub(super) fn fail(&mut self, what: &str, source: &io::Error) {
        let source = io::Error::new(source.kind(), source.to_string());
        self.answer(Err(HostError::Broken { what: what.to_owned(), source }));
    }

    fn answer(&mut self, result: Result<Output, HostError>) {
        if let Some(reply) = self.reply.take() {
            // The receiver may have been dropped meanwhile.
            let _ = reply.send(result);
        }
    }

    fn advance(&mut self, now: Instant) -> io::Result<Step> {
        match self.phase {
            Phase::Starting => match ready(self.channel.exec(&self.line).map_err(io::Error::from))? {
                Some(()) => {
                    self.phase = Phase::Running;
                    Ok(Step::Moved)
                }
                None => Ok(Step::Waiting),
            },
            Phase::Running => {
                let written = self.feed()?;
                let out = read_some(&mut self.channel.stream(0), &mut self.read, &mut self.output.stdout)?;
                let err = read_some(&mut self.channel.stderr(), &mut self.read, &mut self.output.stderr)?;
                if err {
                    self.pass_gate(now);
                }
                self.hand_on_lines();
                if out || err || written {
                    return Ok(Step::Moved);
                }
                if self.channel.eof() && !self.owed {
                    self.phase = Phase::Ending;
                    return Ok(Step::Moved);
                }
                Ok(Step::Waiting)
            }
            Phase::Ending => match ready(self.channel.wait_close().map_err(io::Error::from))? {
                Some(()) => {
                    self.output.status = status_of(&self.channel)?;
                    self.finish_last_line();
                    let output = std::mem::take(&mut self.output);
                    let result = match self.gate.take() {
                        Some(gate) => Err(gate.refusal(output.status, &output.last_words())),
                        None => Ok(output),
                    };
                    self.answer(result);
                    self.phase = Phase::Closing { since: now };
                    Ok(Step::Moved)
                }
                None => Ok(Step::Waiting),
            },
            Phase::Closing { since } => {
                if now.duration_since(since) > CLOSING {
                    return Ok(Step::Stuck);
                }
                if self.owed {
                    // A half-sent packet must be completed before the close can be sent.
                    match ready(self.channel.write(&self.chunk[self.written..]))? {
                        Some(_) => self.owed = false,
                        None => return Ok(Step::Waiting),
                    }
                }
                match ready(self.channel.close().map_err(io::Error::from))? {
                    Some(()) => Ok(Step::Over),
                    None => Ok(Step::Waiting),
                }
            }
        }
    }

    /// Handles new output of sudo.
    fn pass_gate(&mut self, now: Instant) {
        let Some(gate) = &mut self.gate else { return };
        match gate.hear(&mut self.output.stderr) {
            Heard::Nothing => {}
            Heard::Asked(password) => {
                // Nothing else is being sent: input waits for the gate.
                self.chunk = format!("{}\n", password.as_str()).into_bytes();
                self.written = 0;
            }
            Heard::Wrong => {
                // No second try: an account may be locked after a few.
                let error = gate.wrong();
                self.answer(Err(error));
                self.phase = Phase::Closing { since: now };
            }
            Heard::Started => self.gate = None,
        }
    }

    /// Sends standard input, as much as the host accepts now. Returns whether anything was sent.
    fn feed(&mut self) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let held = self.gate.as_ref().is_some_and(Gate::holds_input);
            if self.channel.eof() && !self.owed {
                // The command has closed its outputs, so it will not read the rest of its input.
                self.stdin = None;
                self.chunk.clear();
                self.written = 0;
                return Ok(moved);
            }
            if self.written < self.chunk.len() {
                match ready(self.channel.write(&self.chunk[self.written..]))? {
                    Some(0) | None => {
                        self.owed = half_sent(&self.channel);
                        return Ok(moved);
                    }
                    Some(count) => {
                        self.owed = false;
                        self.written += count;
                        moved = true;
                        if held {
                            // The password is not part of the input.
                            continue;
                        }
                        self.total += count as u64;
                        if let Some(sent) = &self.sent {
                            // Progress only: a full queue means that the reader is still drawing an older figure.
                            let _ = sent.try_send(self.total);
                        }
                        continue;
                    }
                }
            }
            if held {
                self.chunk.zeroize();
                self.written = 0;
                return Ok(moved);
            }
            let Some(stdin) = &mut self.stdin else { return Ok(moved) };
            self.written = 0;
            if !fill(stdin, &mut self.chunk)? {
                match ready(self.channel.send_eof().map_err(io::Error::from))? {
                    Some(()) => {
                        self.stdin = None;
                        moved = true;
                    }
                    None => return Ok(moved),
                }
            }
        }
    }

    fn hand_on_lines(&mut self) {
        let Some(lines) = &self.lines else { return };
        while let Some(end) = self.output.stdout[self.line_start..].iter().position(|byte| *byte == b'\n') {
            let line = &self.output.stdout[self.line_start..self.line_start + end];
            let _ = lines.send(String::from_utf8_lossy(line).into_owned());
            self.line_start += end + 1;
        }
    }

    fn finish_last_line(&mut self) {
        if let Some(lines) = &self.lines
            && self.line_start < self.output.stdout.len()
        {
            let _ = lines.send(String::from_utf8_lossy(&self.output.stdout[self.line_start..]).into_owned());
        }
    }
}

/// Whether a write that would have to wait has left a packet half sent. libssh2 subtracts a packet's size from the
/// window once it is sent completely, so with a closed window no packet was started.
pub(super) fn half_sent(channel: &Channel) -> bool {
    channel.write_window().remaining > 0
}

/// `None` if the session would have to wait.
pub(super) fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fills the chunk, even if the source returns it in pieces. Returns whether there was anything before its end.
fn fill(source: &mut impl Read, chunk: &mut Vec<u8>) -> io::Result<bool> {
    chunk.clear();
    source.take(CHUNK as u64).read_to_end(chunk)?;
    Ok(!chunk.is_empty())
}

/// Reads what is available. Returns whether there was anything.
fn read_some(stream: &mut ssh2::Stream, buffer: &mut [u8], into: &mut Vec<u8>) -> io::Result<bool> {
    let count = ready(stream.read(buffer))?.unwrap_or(0);
    into.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

fn status_of(channel: &Channel) -> io::Result<i32> {
    let signal = channel.exit_signal()?;
    let number = match signal.exit_signal.as_deref() {
        None => return Ok(channel.exit_status()?),
        Some("HUP") => 1,
        Some("INT") => 2,
        Some("QUIT") => 3,
        Some("ILL") => 4,
        Some("ABRT") => 6,
        Some("FPE") => 8,
        Some("KILL") => 9,
        Some("SEGV") => 11,
        Some("PIPE") => 13,
        Some("ALRM") => 14,
        Some("TERM") => 15,
        Some(_) => 0,
    };
    Ok(128 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_full_although_the_source_gives_pieces() {
        let piece = || io::repeat(7).take(20_000);
        let mut source = piece().chain(piece()).chain(piece());
        let mut chunk = Vec::new();
        let mut sizes = Vec::new();
        while fill(&mut source, &mut chunk).unwrap() {
            sizes.push(chunk.len());
        }
        assert_eq!(sizes, [32_700, 27_300]);
    }
}
