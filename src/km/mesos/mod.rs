//! `km mesos`: looking at Mesos, ending a framework, and a small foreign framework for experiments.
mod connection;
mod hold;
mod holder;
mod idle_executor;
mod state;
mod teardown;

use clap::Subcommand;
use tokio_util::sync::CancellationToken;

use mesos::MesosError;
use mesos::executor::EnvironmentError;
use mesos::transport::TransportError;

/// Arguments of `km mesos`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print frameworks, agents and tasks
    State(state::Arguments),
    /// End this cluster's framework and all its tasks
    Teardown(teardown::Arguments),
    /// Take resources under a framework of its own until SIGTERM, as another team's framework would
    Hold(hold::Arguments),
    /// Run as an executor whose tasks do nothing (started by a Mesos agent for `hold`)
    IdleExecutor,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Mesos refused or is not there.
    #[error(transparent)]
    Mesos(#[from] MesosError),
    /// This process is no executor.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The agent's address cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A file.
    #[error("{what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which.
        path: std::path::PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The settings file.
    #[error("understand {path}")]
    Settings {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Standard output.
    #[error("write the output")]
    Output(#[source] std::io::Error),
}

/// Runs a subcommand until it is done or `stop` is cancelled.
pub async fn run(arguments: Arguments, stop: CancellationToken) -> Result<(), CommandError> {
    match arguments.command {
        Command::State(arguments) => state::run(arguments).await,
        Command::Teardown(arguments) => teardown::run(arguments).await,
        Command::Hold(arguments) => hold::run(arguments, stop).await,
        Command::IdleExecutor => idle_executor::run(stop).await,
    }
}
