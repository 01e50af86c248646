//! The connection to Mesos: from the scheduler's configuration file, or from options.
use std::path::{Path, PathBuf};

use super::CommandError;
use kmctl_core::protocol::scheduler::SchedulerConfiguration;
use mesos::Masters;

/// Options that say where Mesos is.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Settings file of km scheduler; its connection is used
    #[arg(long, conflicts_with_all = ["master", "principal", "secret_file", "ca_file"])]
    config: Option<PathBuf>,
    /// A master, host:port or URL; may be repeated
    #[arg(long, required_unless_present = "config")]
    master: Vec<String>,
    /// Principal to authenticate as
    #[arg(long, default_value = "", requires = "secret_file")]
    principal: String,
    /// File with the principal's secret
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// CA of an https master, PEM
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

impl Connection {
    pub(super) fn masters(&self) -> Result<Masters, CommandError> {
        if let Some(path) = &self.config {
            return masters(&settings(path)?);
        }
        let Self { config: _, master, principal, secret_file, ca_file } = self;
        Ok(Masters::open(master, principal, secret_file.as_deref(), ca_file.as_deref())?)
    }
}

/// Reads km scheduler's configuration file.
pub(super) fn settings(path: &Path) -> Result<SchedulerConfiguration, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|source| CommandError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })?;
    serde_yaml::from_str(&text)
        .map_err(|source| CommandError::Settings { path: path.to_owned(), source: source.into() })
}

/// The masters that km scheduler uses.
pub(super) fn masters(settings: &SchedulerConfiguration) -> Result<Masters, CommandError> {
    let mesos = &settings.mesos;
    Ok(Masters::open(&mesos.masters, &mesos.principal, mesos.secret_file.as_deref(), mesos.ca_file.as_deref())?)
}
