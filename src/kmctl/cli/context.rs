//! What every command gets: settings, progress, and where its output is written.
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context as _;

use super::bars::Bars;
use super::question::Prompt;
use crate::failure::Failure;
use crate::host::ssh::Secrets;
use crate::provision::Session;
use kmctl_core::cluster::{Loaded, load, load_mesos};
use kmctl_core::progress::{Ndjson, Plain, Progress};

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Human-readable
    #[default]
    Text,
    /// JSON
    Json,
}

/// How progress and errors are told on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Human-readable
    #[default]
    Text,
    /// One JSON object per line, as `docs/operations.md` lists them
    Json,
}

/// Flags and environment, merged once.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Path of cluster.yaml.
    pub file: PathBuf,
    /// How data is printed.
    pub output: OutputFormat,
    /// File that data is written to instead of standard output.
    pub out: Option<PathBuf>,
    /// Skip the confirmation.
    pub yes: bool,
    /// Trust hosts that have no entry in known_hosts.
    pub accept_new_host_keys: bool,
    /// Print more progress.
    pub verbose: bool,
    /// Print only data and errors.
    pub quiet: bool,
    /// How progress and errors are printed.
    pub log_format: LogFormat,
}

/// What every command gets.
pub struct Context {
    /// Flags and environment.
    pub settings: Settings,
    /// Where work is reported.
    pub progress: Progress,
    /// What the phases of a command get.
    pub session: Session,
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
        let session = Session {
            progress: progress.clone(),
            assume_yes: settings.yes,
            accept_new_host_keys: settings.accept_new_host_keys,
            secrets: Secrets::new(Prompt(progress.clone())),
        };
        Context { settings, progress, session }
    }

    /// Reads cluster.yaml and reports its advice.
    pub fn cluster(&self) -> Result<Loaded, Failure> {
        Ok(self.advise(load(&self.settings.file)?))
    }

    /// Like [`Context::cluster`], for a command that needs only Mesos.
    pub fn mesos_cluster(&self) -> Result<Loaded, Failure> {
        Ok(self.advise(load_mesos(&self.settings.file)?))
    }

    fn advise(&self, loaded: Loaded) -> Loaded {
        for advice in &loaded.advice {
            self.progress.note(&loaded.path.display().to_string(), advice);
        }
        loaded
    }

    /// Prints a message for the operator on standard error.
    pub fn stderr(&self, text: &str) {
        if !self.settings.quiet {
            self.progress.message(text);
        }
    }

    /// Writes data to `--out` or standard output.
    pub fn stdout(&self, text: &str) -> Result<(), Failure> {
        match &self.settings.out {
            Some(file) => std::fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?,
            None => {
                let written = self.progress.suspend(|| {
                    let mut out = std::io::stdout().lock();
                    out.write_all(text.as_bytes()).and_then(|()| out.flush())
                });
                match written {
                    // A reader that closes the pipe early is no failure.
                    Some(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                        return Err(anyhow::Error::new(error).context("failed to write to standard output").into());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Writes `value` as indented JSON.
    pub fn json(&self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).context("failed to print JSON")?;
        text.push('\n');
        self.stdout(&text)
    }
}
