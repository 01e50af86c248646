//! `km mesos hold`: a minimal framework that acts as another team's.
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::CommandError;
use super::connection::Connection;
use super::holder::{Amount, Holder, Wanted};
use mesos::MesosError;
use mesos::scheduler::{Call, Caller, Event, Scheduler, Subscription};
use mesos::types::{CommandInfo, FrameworkCapabilityType, FrameworkInfo, TaskStatus};

/// Seconds for which tasks survive if this process is killed: short, so that nothing remains.
const FAILOVER_TIMEOUT: f64 = 10.0;

/// Pause between attempts to subscribe.
const RETRY: Duration = Duration::from_secs(1);

/// Longest wait for killed tasks before the framework is torn down anyway.
const RELEASE: Duration = Duration::from_secs(10);

/// Options of `km mesos hold`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Name of the framework
    #[arg(long, default_value = "hold")]
    name: String,
    /// Role to take offers for
    #[arg(long, default_value = "hold")]
    role: String,
    /// CPUs to hold on each agent, or `all` that is offered
    #[arg(long)]
    cpus: Amount,
    /// MiB of memory to hold on each agent, or `all` that is offered
    #[arg(long)]
    mem: Amount,
    /// Number of agents to hold, or `all`
    #[arg(long, default_value = "all", value_parser = agents)]
    agents: Agents,
    /// Host port to hold on each agent; it answers with the task ID
    #[arg(long)]
    port: Option<u16>,
    /// User that the executor runs as
    #[arg(long, default_value = "root")]
    user: String,
    /// URI from which agents fetch km: file:///… on the agent, or http://…
    #[arg(long)]
    km_uri: String,
    /// File whose sha256 the fetched program must have [default: this program]
    #[arg(long)]
    km_file: Option<PathBuf>,
}

/// A bound on the number of agents. An alias of Option would make clap treat the argument as optional.
#[derive(Clone, Copy, Debug)]
struct Agents(Option<usize>);

fn agents(text: &str) -> Result<Agents, String> {
    match text {
        "all" => Ok(Agents(None)),
        _ => text.parse().map(|count| Agents(Some(count))).map_err(|_| format!("`{text}` must be a number or `all`")),
    }
}

pub(super) async fn run(arguments: Arguments, stop: CancellationToken) -> Result<(), CommandError> {
    let Arguments { connection, name, role, cpus, mem, agents: Agents(agents), port, user, km_uri, km_file } =
        arguments;
    let sha256 = sha256_of(km_file.unwrap_or_else(|| PathBuf::from("/proc/self/exe")))?;
    let command = CommandInfo::verified("km", &km_uri, &sha256, &["mesos", "idle-executor"]);
    let masters = connection.masters()?;
    let mut framework = FrameworkInfo {
        user,
        name,
        roles: vec![role],
        failover_timeout: Some(FAILOVER_TIMEOUT),
        checkpoint: Some(true),
        principal: masters.principal().map(str::to_owned),
        // REGION_AWARE: without it, Mesos hides agents of other regions than the master's.
        capabilities: [
            FrameworkCapabilityType::MultiRole,
            FrameworkCapabilityType::PartitionAware,
            FrameworkCapabilityType::ReservationRefinement,
            FrameworkCapabilityType::RegionAware,
        ]
        .map(Into::into)
        .to_vec(),
        ..FrameworkInfo::default()
    };
    let scheduler = Scheduler::new(masters);
    let mut holder = Holder::new(Wanted { cpus, mem, agents, port, command });
    // The first subscription is not retried: a wrong secret stays wrong.
    let (mut subscription, mut caller) = scheduler.subscribe(&framework, &[]).await?;
    loop {
        framework.id = Some(caller.framework_id().clone());
        info!(framework = %caller.framework_id(), "subscribed");
        match serve(&mut subscription, &caller, &mut holder, &stop).await {
            Ok(()) => break,
            Err(error) if error.is_transient() => {
                warn!(error = &error as &dyn std::error::Error, "connection to Mesos lost");
            }
            Err(error) => return Err(error.into()),
        }
        (subscription, caller) = loop {
            match scheduler.subscribe(&framework, &[]).await {
                Ok(subscribed) => break subscribed,
                Err(error) if error.is_transient() => {
                    warn!(error = &error as &dyn std::error::Error, "subscribe again");
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        if let Some(call) = holder.reconcile() {
            caller.call(call).await?;
        }
    }
    release(&mut subscription, &caller, &mut holder).await;
    caller.call(Call::Teardown).await?;
    info!("released");
    Ok(())
}

async fn serve(
    subscription: &mut Subscription,
    caller: &Caller,
    holder: &mut Holder,
    stop: &CancellationToken,
) -> Result<(), MesosError> {
    loop {
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            event = subscription.next() => event?,
        };
        let calls = match event {
            Event::Offers { offers } => holder.offers(offers.offers, || uuid::Uuid::new_v4().to_string()),
            Event::Update { update } => {
                print(&update.status, holder);
                holder.update(&update.status)
            }
            _ => Vec::new(),
        };
        for call in calls {
            caller.call(call).await?;
        }
    }
}

/// Kills all tasks and waits at most `RELEASE` for that: the teardown ends what is left.
async fn release(subscription: &mut Subscription, caller: &Caller, holder: &mut Holder) {
    let deadline = Instant::now() + RELEASE;
    for call in holder.release() {
        if let Err(error) = caller.call(call).await {
            warn!(error = &error as &dyn std::error::Error, "stop a task");
        }
    }
    while !holder.is_empty() {
        match tokio::time::timeout_at(deadline, subscription.next()).await {
            Ok(Ok(Event::Update { update })) => {
                print(&update.status, holder);
                holder.update(&update.status);
                if let Some(call) = Call::acknowledge(&update.status) {
                    let _ = caller.call(call).await;
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Prints one line of JSON for each state, for scripts that wait for it.
fn print(status: &TaskStatus, holder: &Holder) {
    let line = serde_json::json!({
        "agent": holder.hostname(&status.task_id),
        "task": status.task_id.as_str(),
        "state": status.state.as_str(),
        "message": status.message,
    });
    // A closed pipe is no reason to release the resources.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn sha256_of(path: PathBuf) -> Result<String, CommandError> {
    let failed = |source| CommandError::File { what: "read", path: path.clone(), source };
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(failed)?;
    Ok(hex::encode(hash.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
