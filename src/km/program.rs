//! `km` as one binary: its arguments, its log, and how its long-lived parts stop.
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(name = "km", version, about = "What runs in the cluster: scheduler, node agent, endpoints, host agent")]
struct Arguments {
    #[command(subcommand)]
    command: Role,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once, at the start")]
enum Role {
    /// Run the Mesos framework scheduler
    Scheduler(SchedulerArguments),
    /// Run the endpoints controller, which publishes node addresses and granted host ports
    Endpoints(EndpointsArguments),
    /// Run the node agent, a Mesos executor (started by a Mesos agent)
    Node,
    /// Run pods without an API server (started by kmctl runonce)
    Runonce(RunonceArguments),
    /// Run simulated nodes against a real API server
    HollowNode(HollowNodeArguments),
    /// Run a process that ends with the node agent (started by km node)
    #[command(hide = true)]
    NodeChild(NodeChildArguments),
    /// Run the port-mapping CNI plugin, configured as CNI specifies
    Cni,
    /// Inspect or change this host (started by kmctl over SSH)
    Host(crate::host::Arguments),
    /// Inspect and manage Mesos
    Mesos(crate::mesos::Arguments),
}

#[derive(Args)]
struct SchedulerArguments {
    /// Configuration file
    #[arg(long, default_value = "/etc/kmctl/scheduler.yaml")]
    config: PathBuf,
}

#[derive(Args)]
struct EndpointsArguments {
    /// Configuration file of km scheduler
    #[arg(long, default_value = "/etc/kmctl/scheduler.yaml")]
    config: PathBuf,
    /// Kubeconfig for the API server
    #[arg(long, default_value = "/etc/kubernetes/km-endpoints.conf")]
    kubeconfig: PathBuf,
}

#[derive(Args)]
struct RunonceArguments {
    /// Remove this file, which is this binary, on start
    #[arg(long, hide = true)]
    unlink: Option<PathBuf>,
}

#[derive(Args)]
struct HollowNodeArguments {
    /// Number of nodes
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Name prefix
    #[arg(long, default_value = "hollow-")]
    prefix: String,
    /// Kubeconfig that may write Nodes, their Leases and pods' status
    #[arg(long)]
    kubeconfig: PathBuf,
}

#[derive(Args)]
struct NodeChildArguments {
    /// Process id of the node agent
    #[arg(long)]
    parent: i32,
    /// Binary and arguments
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

/// Runs `km` with the process's arguments.
pub fn main() -> ExitCode {
    // A container runtime starts plugins by file name and without arguments.
    let as_plugin = std::env::args_os().next().is_some_and(|name| Path::new(&name).ends_with("km-cni"));
    if as_plugin {
        return cni();
    }
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Role::Host(arguments) => return crate::host::run(arguments),
        Role::Mesos(arguments) => serve(|stop| async { Ok(crate::mesos::run(arguments, stop).await?) }),
        Role::Node => node(),
        Role::Runonce(arguments) => runonce(&arguments),
        Role::HollowNode(arguments) => serve(|stop| hollow_node(arguments, stop)),
        Role::NodeChild(arguments) => Err(node_child(&arguments)),
        Role::Scheduler(arguments) => serve(|stop| scheduler(arguments, stop)),
        Role::Endpoints(arguments) => serve(|stop| endpoints(arguments, stop)),
        Role::Cni => return cni(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Runs a long-lived role: logs to stderr, stops on SIGTERM or SIGINT.
fn serve<F: Future<Output = anyhow::Result<()>>>(role: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
        .from_env_lossy();
    // A log that no process reads any more must not end the role before cleanup is complete: the report of such an
    // error would be written to the same stream, and panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    log.with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Runtime::new().context("failed to start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
        let signalled = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signalled.cancel();
        });
        role(stop).await
    })
}

async fn scheduler(arguments: SchedulerArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let SchedulerArguments { config } = arguments;
    crate::scheduler::run::run(&config, stop).await.context("km-scheduler failed")
}

async fn endpoints(arguments: EndpointsArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let EndpointsArguments { config, kubeconfig } = arguments;
    let options = crate::endpoints::run::Options { config, kubeconfig };
    crate::endpoints::run::run(options, stop).await.context("km-endpoints failed")
}

fn node() -> anyhow::Result<()> {
    // Before the runtime has threads: each thread would keep the namespace it was created in.
    crate::node::command::enter_mount_namespace().context("failed to prepare the node")?;
    serve(|stop| async {
        let environment = mesos::executor::ExecutorEnvironment::from_env().context("node agent failed")?;
        crate::node::session::serve(environment, stop).await.context("node agent failed")
    })
}

fn runonce(arguments: &RunonceArguments) -> anyhow::Result<()> {
    if let Some(program) = &arguments.unlink {
        std::fs::remove_file(program).with_context(|| format!("failed to remove {}", program.display()))?;
    }
    // Before the runtime has threads, as for a node.
    crate::node::command::enter_mount_namespace().context("failed to prepare the run")?;
    serve(|stop| async {
        crate::node::once::local::run(tokio::io::stdin(), stop).await.context("failed to run the pods")
    })
}

async fn hollow_node(arguments: HollowNodeArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let HollowNodeArguments { count, prefix, kubeconfig } = arguments;
    let options = crate::node::hollow::Options { count, prefix, kubeconfig };
    crate::node::hollow::run(options, stop).await.context("failed to run hollow nodes")
}

fn node_child(arguments: &NodeChildArguments) -> anyhow::Error {
    crate::node::command::become_child(arguments.parent, &arguments.argv).into()
}

/// A CNI plugin reports its failures on standard output, as JSON.
fn cni() -> ExitCode {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let environment = crate::cni::request::Environment {
        command: variable("CNI_COMMAND"),
        container: variable("CNI_CONTAINERID"),
        arguments: variable("CNI_ARGS"),
    };
    match crate::cni::run::run(&environment, std::io::stdin().lock()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err((error, version)) => {
            println!("{}", error.to_document(&version));
            ExitCode::FAILURE
        }
    }
}
