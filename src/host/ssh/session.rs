//! [`Host`] over SSH.
use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::exec::Job;
use super::settings::SshSettings;
use super::worker::{Request, Worker};
use crate::cluster::Sudo;
use crate::host::{Command, Host, HostError, Output, Stream, command_line};
use crate::progress::Progress;

/// When an operator starts to wonder: a host that has not answered by then is named.
const NAMED_AFTER: Duration = Duration::from_secs(3);

/// Limit for one connection that the host opens to somewhere else.
const DIAL: Duration = Duration::from_secs(10);

/// A host reached over SSH. Dropping it ends its connections, except for streams that are still in use.
pub struct SshHost {
    settings: SshSettings,
    /// For commands.
    commands: Mutex<Option<Arc<Worker>>>,
    /// For streams, made when the first is wanted. libssh2 opens one channel at a time and cannot take it back, so a
    /// dial to an address that does not answer would stop every command on the same connection.
    streams: Mutex<Option<Arc<Worker>>>,
}

impl SshHost {
    /// Connects and logs in. A host that takes long is named to `progress` meanwhile.
    pub async fn connect(settings: SshSettings, progress: &Progress) -> Result<SshHost, HostError> {
        let start = Worker::start(settings.clone());
        tokio::pin!(start);
        let worker = tokio::select! {
            biased;
            worker = &mut start => worker?,
            () = tokio::time::sleep(NAMED_AFTER.min(settings.connect_timeout)) => {
                progress.note(&settings.name, &format!(
                    "{} does not answer yet; waiting until {} s have passed",
                    settings.place(),
                    settings.connect_timeout.as_secs(),
                ));
                start.await?
            }
        };
        Ok(SshHost { settings, commands: Mutex::new(Some(Arc::new(worker))), streams: Mutex::new(None) })
    }

    /// How this host is reached.
    pub fn settings(&self) -> &SshSettings {
        &self.settings
    }

    fn line(&self, command: &Command) -> Result<String, HostError> {
        let line = command_line(&command.argv);
        match (command.privileged, self.settings.sudo) {
            (false, _) | (true, Sudo::None) => Ok(line),
            (true, Sudo::Nopasswd) => Ok(format!("sudo -n -- {line}")),
            (true, Sudo::Password) => {
                Err(HostError::Unsupported("sudo with a password is not supported yet".to_owned()))
            }
        }
    }

    async fn start(
        &self,
        command: &Command,
        stdin: Box<dyn Read + Send>,
        sent: Option<mpsc::Sender<u64>>,
        lines: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<oneshot::Receiver<Result<Output, HostError>>, HostError> {
        let (reply, result) = oneshot::channel();
        let job = Job { line: self.line(command)?, stdin, sent, lines, timeout: command.timeout, reply };
        let mut slot = self.commands.lock().await;
        let worker = match slot.take() {
            Some(worker) if worker.lives() => worker,
            _ => Arc::new(Worker::start(self.settings.clone()).await?),
        };
        worker.ask(Request::Run(job));
        *slot = Some(worker);
        Ok(result)
    }

    async fn run_with_lines(
        &self,
        command: &Command,
        stdin: Box<dyn Read + Send>,
        sent: Option<mpsc::Sender<u64>>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError> {
        let (near, mut far) = mpsc::unbounded_channel();
        let result = self.start(command, stdin, sent, Some(near)).await?;
        // The thread drops its end with the command, so this ends.
        while let Some(line) = far.recv().await {
            // A caller that has seen enough still gets the result.
            let _ = lines.send(line).await;
        }
        answer(result).await
    }
}

/// The thread drops the sender only when it ends without having said why.
async fn answer(result: oneshot::Receiver<Result<Output, HostError>>) -> Result<Output, HostError> {
    result.await.unwrap_or_else(|_| Err(lost()))
}

fn lost() -> HostError {
    HostError::Broken {
        what: "keep the connection".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection ended"),
    }
}

#[async_trait]
impl Host for SshHost {
    fn name(&self) -> &str {
        &self.settings.name
    }

    async fn run(&self, command: Command) -> Result<Output, HostError> {
        let stdin = Box::new(Cursor::new(command.stdin.clone()));
        answer(self.start(&command, stdin, None, None).await?).await
    }

    async fn run_lines(&self, command: Command, lines: mpsc::Sender<String>) -> Result<Output, HostError> {
        let stdin = Box::new(Cursor::new(command.stdin.clone()));
        self.run_with_lines(&command, stdin, None, lines).await
    }

    async fn run_with_input(
        &self,
        command: Command,
        source: Box<dyn Read + Send>,
        sent: mpsc::Sender<u64>,
        lines: mpsc::Sender<String>,
    ) -> Result<Output, HostError> {
        self.run_with_lines(&command, source, Some(sent), lines).await
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn Stream>, HostError> {
        let (reply, result) = oneshot::channel();
        let worker = {
            let mut slot = self.streams.lock().await;
            let worker = match slot.take() {
                Some(worker) if worker.lives() => worker,
                _ => Arc::new(Worker::start(self.settings.clone()).await?),
            };
            slot.insert(worker).clone()
        };
        worker.ask(Request::Dial { host: address.ip().to_string(), port: address.port(), reply });
        let stream = match timeout(DIAL, result).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost()))?,
            Err(_) => {
                // The next dial gets a connection of its own; streams of this one go on.
                let mut slot = self.streams.lock().await;
                if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, &worker)) {
                    *slot = None;
                }
                return Err(HostError::Timeout(DIAL));
            }
        };
        let broken = |source| HostError::Broken { what: "use the stream".to_owned(), source };
        Ok(Box::new(tokio::net::UnixStream::from_std(stream).map_err(broken)?))
    }
}
