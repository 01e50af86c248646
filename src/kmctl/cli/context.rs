//! What every command gets: settings, progress, and the ways to the cluster.
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::failure::Failure;
use super::question::Prompt;
use crate::cli::bars::Bars;
use crate::host::ssh::{Secrets, SshSettings};
use crate::host::{HostError, SshHost};
use kmctl_core::cluster::{HostSpec, Loaded, SshSpec, Sudo, jump_host, load, load_mesos, quantity};
use kmctl_core::progress::{Ndjson, Plain, Progress};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How progress and errors are told on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A line of JSON for each event; `docs/operations.md` lists them.
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
    /// Trust hosts that known_hosts says nothing of.
    pub accept_new_host_keys: bool,
    /// Tell more.
    pub verbose: bool,
    /// Tell nothing but data and errors.
    pub quiet: bool,
    /// How progress and errors are told.
    pub log_format: LogFormat,
}

/// What every command gets.
pub struct Context {
    /// Flags and environment.
    pub settings: Settings,
    /// Where work is reported.
    pub progress: Progress,
    /// Passphrases and passwords, asked for once in a run.
    secrets: Secrets,
}

impl Context {
    /// Chooses how to draw progress.
    pub fn new(settings: Settings) -> Self {
        let talk = std::io::stderr().is_terminal() && !settings.verbose && std::env::var_os("CI").is_none();
        let progress = if settings.log_format == LogFormat::Json {
            Progress::new(Ndjson::new(std::io::stderr(), settings.quiet))
        } else if settings.quiet {
            Progress::silent()
        } else if talk {
            Progress::new(Bars::default())
        } else {
            Progress::new(Plain::new(std::io::stderr()))
        };
        let secrets = Secrets::new(Prompt(progress.clone()));
        Context { settings, progress, secrets }
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
        SshHost::connect(self.ssh_settings(loaded, host), &self.progress).await
    }

    /// How `host` is reached: its own settings, else the cluster's.
    pub fn ssh_settings(&self, loaded: &Loaded, host: &HostSpec) -> SshSettings {
        let settings = ssh_settings(&loaded.cluster.spec.ssh, host, &self.secrets);
        let accept_new = self.settings.accept_new_host_keys;
        let jump = settings.jump.into_iter().map(|hop| SshSettings { accept_new, ..hop }).collect();
        SshSettings { accept_new, jump, ..settings }
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
            self.progress.message(text);
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

fn ssh_settings(ssh: &SshSpec, host: &HostSpec, secrets: &Secrets) -> SshSettings {
    let own = host.ssh.clone().unwrap_or_default();
    let path = |text: String| (!text.is_empty()).then(|| PathBuf::from(text));
    // Checked when the file was read.
    let seconds = |text: String| quantity::duration(&text).unwrap_or(Duration::from_secs(10));
    let mut settings = SshSettings {
        name: host.name.clone(),
        address: host.address.clone(),
        port: own.port.unwrap_or(ssh.port),
        user: own.user.unwrap_or_else(|| ssh.user.clone()),
        identity_file: path(own.identity_file.unwrap_or_else(|| ssh.identity_file.clone())),
        known_hosts: own.known_hosts.unwrap_or_else(|| ssh.known_hosts.clone()).into(),
        host_key: (!host.host_key.is_empty()).then(|| host.host_key.clone()),
        accept_new: false,
        is_jump: false,
        jump: Vec::new(),
        sudo: own.sudo.unwrap_or(ssh.sudo),
        connect_timeout: seconds(own.connect_timeout.unwrap_or_else(|| ssh.connect_timeout.clone())),
        secrets: secrets.clone(),
    };
    let hops = own.jump.unwrap_or_else(|| ssh.jump.clone());
    // Checked when the file was read, too.
    let hops = hops.iter().filter_map(|hop| jump_host(hop));
    settings.jump = hops
        .map(|(user, address, port)| SshSettings {
            name: format!("jump host {address}"),
            address: address.to_owned(),
            port,
            user: user.map_or_else(|| settings.user.clone(), str::to_owned),
            host_key: None,
            is_jump: true,
            sudo: Sudo::None,
            ..settings.clone()
        })
        .collect();
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_way_or_the_clusters() {
        let ssh = SshSpec { user: "ops".to_owned(), jump: vec!["b1".to_owned()], ..SshSpec::default() };
        let mut host: HostSpec =
            serde_json::from_str(r#"{ "address": "10.0.0.1", "name": "cp1", "hostKey": "SHA256:x" }"#).unwrap();
        let secrets = Secrets::none();
        let settings = ssh_settings(&ssh, &host, &secrets);
        assert_eq!((settings.user.as_str(), settings.port, settings.is_jump), ("ops", 22, false));
        let [hop] = &settings.jump[..] else { unreachable!("one jump host") };
        assert_eq!((hop.user.as_str(), hop.place().as_str(), &hop.host_key), ("ops", "b1:22", &None));
        assert!(hop.is_jump && hop.secrets == secrets);
        let own = r#"{ "user": "root", "jump": ["me@b2:2222", "[fd00::1]:22"] }"#;
        host.ssh = Some(serde_json::from_str(own).unwrap());
        let settings = ssh_settings(&ssh, &host, &secrets);
        let hops: Vec<_> = settings.jump.iter().map(|hop| format!("{}@{}", hop.user, hop.place())).collect();
        assert_eq!(hops, ["me@b2:2222", "root@[fd00::1]:22"]);
    }
}
