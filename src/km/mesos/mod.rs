//! `km mesos`: inspects Mesos, tears down a framework, and runs a small foreign framework for experiments.
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
    /// Mesos refused or is unreachable.
    #[error(transparent)]
    Mesos(#[from] MesosError),
    /// This process was not started as an executor.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The agent's address cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A file could not be read or removed.
    #[error("failed to {what} {path}")]
    File {
        /// The failed operation, e.g. `read`.
        what: &'static str,
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is invalid.
    #[error("failed to parse {path}")]
    Settings {
        path: std::path::PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The arguments are invalid in this combination.
    #[error("{0}")]
    Usage(String),
    /// Writing to standard output failed.
    #[error("failed to write the output")]
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
