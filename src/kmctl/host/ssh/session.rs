//! [`Host`] over SSH.
use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::connect::Given;
use super::denied::Denied;
use super::exec::Job;
use super::request::Request;
use super::secrets::Question;
use super::settings::SshSettings;
use super::sudo::{self, Gate};
use super::worker::Worker;
use crate::host::{Command, Host, HostError, Output, Stream, command_line};
use kmctl_core::cluster::Sudo;
use kmctl_core::progress::Progress;
use kmctl_core::text::duration;

/// A host that has not answered by then is reported, before the operator starts to wonder.
const NAMED_AFTER: Duration = Duration::from_secs(3);

/// Limit for one connection that the host opens to somewhere else.
const DIAL: Duration = Duration::from_secs(10);

/// A host reached over SSH. Dropping it ends its connections, except for streams that are still in use.
pub struct SshHost {
    settings: SshSettings,
    /// The connection for commands.
    commands: Mutex<Option<Arc<Worker>>>,
    /// The connection for streams, created when the first is needed. libssh2 opens one channel at a time and cannot
    /// cancel that, so a dial to an address that does not answer would block every command on the same connection.
    streams: Mutex<Option<Arc<Worker>>>,
}

impl SshHost {
    /// Connects and logs in. A host that takes long is reported to `progress` meanwhile.
    pub async fn connect(settings: SshSettings, progress: &Progress) -> Result<SshHost, HostError> {
        let worker = logged_in(&settings, Some(progress)).await?;
        Ok(SshHost { settings, commands: Mutex::new(Some(Arc::new(worker))), streams: Mutex::new(None) })
    }

    /// How this host is reached.
    pub fn settings(&self) -> &SshSettings {
        &self.settings
    }

    /// The line for the login's shell, and the gate between the command and its input.
    async fn line(&self, command: &Command) -> Result<(String, Option<Gate>), HostError> {
        if !command.privileged {
            return Ok((command_line(&command.argv), None));
        }
        let password = match self.settings.sudo {
            Sudo::Password => self.settings.secrets.answer(&Question::Sudo(self.settings.user.clone()), None).await?,
            Sudo::None | Sudo::Nopasswd => None,
        };
        Ok((sudo::line(&command.argv, self.settings.sudo), Gate::new(&self.settings, password)))
    }

    async fn start(
        &self,
        command: &Command,
        stdin: Box<dyn Read + Send>,
        sent: Option<mpsc::Sender<u64>>,
        lines: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<oneshot::Receiver<Result<Output, HostError>>, HostError> {
        let (reply, result) = oneshot::channel();
        let (line, gate) = self.line(command).await?;
        let job = Job { line, gate, stdin, sent, lines, timeout: command.timeout, reply };
        let mut slot = self.commands.lock().await;
        let worker = match slot.take() {
            Some(worker) if worker.lives() => worker,
            _ => Arc::new(logged_in(&self.settings, None).await?),
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
        // The thread drops its end with the command, so this loop ends.
        while let Some(line) = far.recv().await {
            // A caller that has stopped receiving lines still gets the result.
            let _ = lines.send(line).await;
        }
        answer(result).await
    }
}

/// Connects and logs in, prompting for passphrases if needed. The connection is closed meanwhile: the operator may take
/// longer than the server waits.
async fn logged_in(settings: &SshSettings, progress: Option<&Progress>) -> Result<Worker, HostError> {
    let mut given = Given { passphrases: settings.secrets.passphrases(), ..Given::default() };
    loop {
        let attempt = named_in_time(settings, given.clone(), progress).await;
        for text in given.take_news() {
            if let Some(progress) = progress {
                progress.note(&settings.name, &text);
            }
        }
        let (file, wrong) = match attempt {
            Ok(worker) => return Ok(worker),
            Err(Denied::Host(error)) => return Err(error),
            Err(Denied::Passphrase { file, wrong }) => (file, wrong),
        };
        let question = Question::Passphrase(file.clone());
        match settings.secrets.answer(&question, wrong.as_ref()).await? {
            Some(passphrase) => drop(given.passphrases.insert(file, passphrase)),
            None => {
                return Err(HostError::Authentication {
                    what: format!("wrong passphrase for {}", file.display()),
                    hint: format!("test it with `ssh-keygen -y -f {}`, or `ssh-add` the key", file.display()),
                });
            }
        }
    }
}

async fn named_in_time(settings: &SshSettings, given: Given, progress: Option<&Progress>) -> Result<Worker, Denied> {
    let start = Worker::start(settings.clone(), given);
    let Some(progress) = progress else { return start.await };
    tokio::pin!(start);
    tokio::select! {
        biased;
        started = &mut start => started,
        () = tokio::time::sleep(NAMED_AFTER.min(settings.connect_timeout)) => {
            let hops: Vec<_> = settings.jump.iter().map(SshSettings::place).collect();
            let through = if hops.is_empty() { String::new() } else { format!(" through {}", hops.join(", ")) };
            progress.note(&settings.name, &format!(
                "no response yet from {}{through}; giving up after {}",
                settings.place(),
                duration(settings.connect_timeout),
            ));
            start.await
        }
    }
}

/// The thread drops the sender only when it ends without giving a reason.
async fn answer(result: oneshot::Receiver<Result<Output, HostError>>) -> Result<Output, HostError> {
    result.await.unwrap_or_else(|_| Err(lost()))
}

fn lost() -> HostError {
    HostError::Broken {
        what: "keep the connection".to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection lost"),
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
                _ => Arc::new(logged_in(&self.settings, None).await?),
            };
            slot.insert(worker).clone()
        };
        worker.ask(Request::Dial {
            host: address.ip().to_string(),
            port: address.port(),
            reply: Box::new(move |result| {
                // The receiver may have been dropped.
                let _ = reply.send(result);
            }),
        });
        let stream = match timeout(DIAL, result).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost()))?,
            Err(_) => {
                // The next dial gets a new connection. Streams of this one continue.
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
