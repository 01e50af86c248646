//! What every command gets: settings, progress, and the ways to the cluster.
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::failure::Failure;
use crate::cluster::{HostSpec, Loaded, SshSpec, load, load_mesos, quantity};
use crate::host::ssh::SshSettings;
use crate::host::{HostError, SshHost};
use crate::progress::{Bars, Plain, Progress};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Flags and environment, merged once.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// cluster.yaml.
    pub file: PathBuf,
    /// How data is printed.
    pub output: OutputFormat,
    /// File for data instead of standard output.
    pub out: Option<PathBuf>,
    /// Do without asking.
    pub yes: bool,
    /// Tell more.
    pub verbose: bool,
    /// Tell nothing but data and errors.
    pub quiet: bool,
}

/// What every command gets.
pub struct Context {
    /// Flags and environment.
    pub settings: Settings,
    /// Where work is reported.
    pub progress: Progress,
}

impl Context {
    /// Chooses how to draw progress.
    pub fn new(settings: Settings) -> Self {
        let talk = std::io::stderr().is_terminal() && !settings.verbose && std::env::var_os("CI").is_none();
        let progress = if settings.quiet {
            Progress::silent()
        } else if talk {
            Progress::new(Bars::default())
        } else {
            Progress::new(Plain::new(std::io::stderr()))
        };
        Context { settings, progress }
    }

    /// Reads cluster.yaml, and passes on what it advises.
    pub fn cluster(&self) -> Result<Loaded, Failure> {
        Ok(self.advise(load(&self.settings.file)?))
    }

    /// The same for a command that needs Mesos alone.
    pub fn mesos_cluster(&self) -> Result<Loaded, Failure> {
        Ok(self.advise(load_mesos(&self.settings.file)?))
    }

    fn advise(&self, loaded: Loaded) -> Loaded {
        for advice in &loaded.advice {
            self.progress.note(&loaded.path.display().to_string(), advice);
        }
        loaded
    }

    /// Connects to one control-plane host.
    pub async fn connect(&self, loaded: &Loaded, host: &HostSpec) -> Result<SshHost, HostError> {
        SshHost::connect(ssh_settings(&loaded.cluster.spec.ssh, host), &self.progress).await
    }

    /// Connects to the first control-plane host that answers.
    pub async fn connect_any(&self, loaded: &Loaded) -> Result<SshHost, Failure> {
        let hosts = &loaded.cluster.spec.control_plane.hosts;
        let mut last = None;
        for host in hosts {
            match self.connect(loaded, host).await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    if hosts.len() > 1 {
                        self.progress.note(&host.name, &format!("cannot be used: {error}"));
                    }
                    last = Some((host, error));
                }
            }
        }
        match last {
            Some((host, error)) => {
                Err(anyhow::Error::new(error).context(format!("reach {} over SSH", host.name)).into())
            }
            None => Err(anyhow::anyhow!("no control-plane host is listed").into()),
        }
    }

    /// Says something to the operator, on standard error.
    pub fn talk(&self, text: &str) {
        if !self.settings.quiet {
            self.progress.suspend(|| eprint!("{text}"));
        }
    }

    /// Writes data to `--out` or standard output.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        match &self.settings.out {
            Some(file) => std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?,
            None => {
                let written = self.progress.suspend(|| {
                    let mut out = std::io::stdout().lock();
                    out.write_all(text.as_bytes()).and_then(|()| out.flush())
                });
                match written {
                    // A reader that has seen enough is no failure.
                    Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                        return Err(anyhow::Error::new(error).context("write to standard output").into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes `value` as indented JSON.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).context("print JSON")?;
        text.push('\n');
        self.data(&text)
    }
}

/// How `host` is reached: its own settings, else the cluster's.
pub fn ssh_settings(ssh: &SshSpec, host: &HostSpec) -> SshSettings {
    let own = host.ssh.clone().unwrap_or_default();
    let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    // Checked when the file was read.
    let seconds = |text: String| quantity::duration(&text).unwrap_or(Duration::from_secs(10));
    SshSettings {
        name: host.name.clone(),
        address: host.address.clone(),
        port: own.port.unwrap_or(ssh.port),
        user: own.user.unwrap_or_else(|| ssh.user.clone()),
        identity_file: path(own.identity_file.unwrap_or_else(|| ssh.identity_file.clone())),
        known_hosts: own.known_hosts.unwrap_or_else(|| ssh.known_hosts.clone()).into(),
        host_key: (!host.host_key.is_empty()).then(|| host.host_key.clone()),
        sudo: own.sudo.unwrap_or(ssh.sudo),
        connect_timeout: seconds(own.connect_timeout.unwrap_or_else(|| ssh.connect_timeout.clone())),
    }
}
