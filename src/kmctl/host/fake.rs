//! A [`Host`] for tests: answers from a script, and records the commands that it was given.
use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::quote::command_line;
use super::transport::{Command, Host, HostError, Output, Stream};

type Answer = Box<dyn Fn(&Recorded) -> Option<Result<Output, HostError>> + Send + Sync>;

/// One command that a fake was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The command as one line.
    pub line: String,
    /// Everything on its standard input.
    pub stdin: Vec<u8>,
    /// Whether it was to run as root.
    pub privileged: bool,
}

/// A machine that exists only in a test.
pub struct FakeHost {
    name: String,
    answers: Vec<Answer>,
    calls: Mutex<Vec<Recorded>>,
    streams: Mutex<VecDeque<(SocketAddr, Box<dyn Stream>)>>,
}

impl FakeHost {
    /// A machine that knows no command yet.
    pub fn new(name: &str) -> Self {
        FakeHost { name: name.to_owned(), answers: Vec::new(), calls: Mutex::default(), streams: Mutex::default() }
    }

    /// Every command whose line contains `part` exits with `status` and prints `stdout`.
    #[must_use]
    pub fn answers(self, part: &str, status: i32, stdout: &str) -> Self {
        let (part, stdout) = (part.to_owned(), stdout.to_owned());
        self.answers_with(move |call| {
            call.line
                .contains(&part)
                .then(|| Ok(Output { status, stdout: stdout.clone().into_bytes(), stderr: Vec::new() }))
        })
    }

    /// Tries `answer` first. `None` leaves the command to the answers added before.
    #[must_use]
    pub fn answers_with(
        mut self,
        answer: impl Fn(&Recorded) -> Option<Result<Output, HostError>> + Send + Sync + 'static,
    ) -> Self {
        self.answers.insert(0, Box::new(answer));
        self
    }

    /// The next dial to `address` gets this stream.
    pub fn will_dial(&self, address: SocketAddr, stream: Box<dyn Stream>) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push_back((address, stream));
    }

    /// The commands that were run so far.
    pub fn calls(&self) -> Vec<Recorded> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, command: &Command, stdin: Vec<u8>) -> Result<Output, HostError> {
        let call = Recorded { line: command_line(&command.argv), stdin, privileged: command.privileged };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        self.answers.iter().find_map(|answer| answer(&call)).unwrap_or_else(|| {
            let stderr = format!("{}: command not found", call.line).into_bytes();
            Ok(Output { status: 127, stdout: Vec::new(), stderr })
        })
    }
}

/// An output whose lines have been passed on, as a transport does while a command runs.
pub async fn told(output: Output, lines: &mpsc::Sender<String>) -> Output {
    for line in output.text().lines() {
        // A receiver that has stopped listening misses nothing.
        let _ = lines.send(line.to_owned()).await;
    }
    output
}

#[async_trait]
impl Host for FakeHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, command: Command) -> Result<Output, HostError> {
        self.answer(&command, command.stdin.clone())
    }

    async fn run_lines(&self, command: Command, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        let output = self.answer(&command, command.stdin.clone())?;
        Ok(told(output, &lines).await)
    }

    async fn run_with_input(
        &self,
        command: Command,
        mut source: Box<dyn Read + Send>,
        sent: mpsc::Sender<u64>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError> {
        let mut stdin = Vec::new();
        source
            .read_to_end(&mut stdin)
            .map_err(|source| HostError::Broken { what: "read the input".to_owned(), source })?;
        let _ = sent.try_send(stdin.len() as u64);
        let output = self.answer(&command, stdin)?;
        Ok(told(output, &lines).await)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Stream>, HostError> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let index = streams.iter().position(|(known, _)| *known == address);
        match index.and_then(|index| streams.remove(index)) {
            Some((_, stream)) => Ok(stream),
            None => Err(HostError::Connect {
                address: address.to_string(),
                source: std::io::ErrorKind::ConnectionRefused.into(),
            }),
        }
    }
}
