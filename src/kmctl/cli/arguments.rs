//! Flags and subcommands, and the way from them to an exit code.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::context::{Context, LogFormat, OutputFormat, Settings};
use super::{
    bundle, check, completions, down, init, kubeconfig, logs, plan, question, render, runonce, scale, schema, status,
    up, version, why,
};
use crate::failure::{Code, Failure};

#[derive(Parser)]
#[command(name = "kmctl", version, about = "Run Kubernetes on an Apache Mesos cluster")]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// Path to the cluster configuration [default: ./cluster.yaml, then $KMCTL_CONFIG]
    #[arg(short = 'f', long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", global = true)]
    output: OutputFormat,
    /// Write the output to a file instead of standard output
    #[arg(long, value_name = "FILE", global = true)]
    out: Option<PathBuf>,
    /// Skip confirmation prompts
    #[arg(short, long, global = true)]
    yes: bool,
    /// Trust unknown SSH host keys and add them to known_hosts
    #[arg(long, global = true)]
    accept_new_host_keys: bool,
    /// Show debug output
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Print only data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Format of progress and errors on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand)]
enum Command {
    /// Create and verify bundles of Kubernetes binaries and images
    Bundle(bundle::Args),
    /// Stop and uninstall the cluster, keeping its data unless --purge is given
    Down(down::Args),
    /// Create a commented cluster.yaml from flags or prompts
    Init(init::Args),
    /// Check that hosts and Mesos meet the requirements
    Check(check::Args),
    /// Preview the changes `kmctl up` would make
    Plan(plan::Args),
    /// Write the files `kmctl up` would install to a directory (requires --out)
    Render(render::Args),
    /// Create or update the cluster to match cluster.yaml
    Up(up::Args),
    /// Show the status of hosts, nodes, pods and Mesos tasks
    Status(status::Args),
    /// Run pods to completion on Mesos or one machine, without an API server
    Runonce(runonce::Args),
    /// Show or set the minimum and maximum number of nodes
    Scale(scale::Args),
    /// Explain why a pod, node or Mesos agent is not doing what you expect
    Why(why::Args),
    /// Print the logs of a component, node or Mesos task
    Logs(logs::Args),
    /// Print the JSON Schema of cluster.yaml, for editors
    Schema(schema::Args),
    /// Print or save the admin kubeconfig
    Kubeconfig(kubeconfig::Args),
    /// Generate a shell completion script
    Completions(completions::Args),
    /// Print version information
    Version(version::Args),
}

impl Command {
    async fn run(self, context: &Context) -> Result<u8, Failure> {
        let code = match self {
            // Its code is the pods'.
            Command::Runonce(args) => return runonce::run(args, context).await,
            Command::Bundle(args) => bundle::run(args, context).await,
            Command::Down(args) => down::run(args, context).await,
            Command::Render(args) => render::run(args, context),
            Command::Check(args) => check::run(args, context).await,
            Command::Plan(args) => plan::run(args, context).await,
            Command::Up(args) => up::run(args, context).await,
            Command::Status(args) => status::run(args, context).await,
            Command::Scale(args) => scale::run(args, context).await,
            Command::Why(args) => why::run(args, context).await,
            Command::Logs(args) => logs::run(args, context).await,
            Command::Kubeconfig(args) => kubeconfig::run(args, context).await,
            Command::Schema(args) => schema::run(args, context),
            Command::Init(args) => init::run(args, context).await,
            Command::Completions(args) => completions::run(args, context),
            Command::Version(args) => version::run(args, context),
        };
        code.map(|code| code as u8)
    }

    /// Whether it ends by itself, and in order, when it is interrupted.
    fn ends_itself(&self) -> bool {
        matches!(self, Command::Runonce(_))
    }
}

impl Global {
    /// Flags before the file in the current folder, that before the environment.
    fn settings(self) -> Settings {
        let Global { file, output, out, yes, accept_new_host_keys, verbose, quiet, log_format } = self;
        let local = PathBuf::from("cluster.yaml");
        let file = file.unwrap_or_else(|| {
            let elsewhere = std::env::var_os("KMCTL_CONFIG").filter(|path| !path.is_empty());
            match elsewhere {
                Some(path) if !local.exists() => PathBuf::from(path),
                _ => local,
            }
        });
        Settings { file, output, out, yes, accept_new_host_keys, verbose, quiet, log_format }
    }
}

/// The whole command line, for completions and tests.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs `kmctl` with the process's arguments.
pub fn main() -> ExitCode {
    let Arguments { global, command } =
        match Arguments::try_parse_from(logs::follow_flag(std::env::args_os().collect(), logs::is_file)) {
            Ok(arguments) => arguments,
            Err(error) => {
                // Help and version are no errors. A closed output is not ours to report.
                let _ = error.print();
                // In `runonce`, 2 would be a pod's.
                let usage = if std::env::args().any(|word| word == "runonce") { Code::Runonce } else { Code::Usage };
                return ExitCode::from(if error.use_stderr() { usage as u8 } else { Code::Ok as u8 });
            }
        };
    let context = Context::new(global.settings());
    start_log(context.settings.verbose, context.settings.log_format);
    let code = match run(command, &context) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell(&context.progress);
            failure.code() as u8
        }
    };
    ExitCode::from(code)
}

/// How long the end of an interrupted run waits, at most, for threads that are busy.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn run(command: Command, context: &Context) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        if command.ends_itself() {
            return command.run(context).await;
        }
        tokio::select! {
            biased;
            // Dropping the command closes its connections; what runs on a host sees the end of its input.
            _ = tokio::signal::ctrl_c() => Err(Failure::message(Code::Interrupted, "interrupted")),
            result = command.run(context) => result,
        }
    });
    question::give_terminal_back();
    let interrupted = matches!(&result, Err(failure) if failure.code() == Code::Interrupted);
    if interrupted {
        // What the command had begun in other tasks is dropped there: each step says that it is not finished, before the
        // reason is told.
        runtime.shutdown_timeout(LAST_WORDS);
    } else {
        // A thread that still reads a file or resolves a name must not hold the process.
        runtime.shutdown_background();
    }
    result
}

fn start_log(verbose: bool, format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let default = if verbose { "kmctl=debug" } else { "off" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        // Beside the events, in tracing's own form: it has no field `event`.
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_in_order() {
        command().debug_assert();
    }

    #[test]
    fn every_command_in_the_documentation_is_understood() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
        let mut seen = 0;
        for file in folder.chain([root.join("README.md")]).filter(|path| path.extension().is_some_and(|e| e == "md")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in text.lines().filter_map(|line| line.trim_start().strip_prefix("$ kmctl")) {
                let line = line.split(" #").next().unwrap_or_default();
                let words = std::iter::once("kmctl").chain(line.split_whitespace());
                let words = logs::follow_flag(words.map(Into::into).collect(), |_| false);
                if let Err(error) = Arguments::try_parse_from(words) {
                    panic!("{}: kmctl{line}: {error}", file.display());
                }
                seen += 1;
            }
        }
        assert!(seen > 20, "only {seen} commands were found");
    }
}
