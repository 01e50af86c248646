//! `km scheduler`: feeds events to the core, and executes its decisions. All policy is in `decide`.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::artifacts::{Artifacts, ArtifactsError};
use super::decide::{Answer, Bounds, Effect, Event, NodeTemplate, RequestId, Scheduler, Settings};
use super::effects::Executor;
use super::extender::{Extender, ExtenderError, Question};
use super::framework::{self, Identity};
use super::metrics::Metrics;
use super::standby::{self, Leadership};
use super::{csr, watches};
use kmctl_core::cluster::quantity::{ParseError, duration};
use kmctl_core::k8s::client::{ClientError, connect};
use kmctl_core::k8s::host_lock::HostLock;
use kmctl_core::k8s::lease::{Candidacy, campaign};
use kmctl_core::k8s::names::NAMESPACE;
use kmctl_core::model::requests;
use kmctl_core::model::resources::Amount;
use kmctl_core::model::time::Time;
use kmctl_core::protocol::Summary;
use kmctl_core::protocol::scheduler::SchedulerConfiguration;
use mesos::{Masters, MesosError};

/// Name of the Lease in [`NAMESPACE`].
pub const LEASE: &str = "km-scheduler";

/// Events that may be queued. A faster source waits.
const QUEUE: usize = 4096;

/// Why `km scheduler` cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The configuration file, or a file that it names, cannot be read.
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The configuration file cannot be parsed.
    #[error("failed to parse settings {path}")]
    Settings {
        path: PathBuf,
        #[source]
        source: Box<serde_yaml::Error>,
    },
    /// A value in the configuration file cannot be parsed.
    #[error("invalid setting {key}")]
    Value {
        key: &'static str,
        #[source]
        source: ParseError,
    },
    /// No role is configured.
    #[error("mesos.roles is empty")]
    NoRole,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("failed to set up the connection to Mesos")]
    Mesos(#[source] MesosError),
    #[error("failed to serve kube-scheduler")]
    Extender(#[source] ExtenderError),
    #[error("failed to serve artifacts")]
    Artifacts(#[source] ArtifactsError),
    /// It could not be determined whether another km scheduler runs on this host.
    #[error("failed to check for another km-scheduler on this host")]
    HostLock(#[source] std::io::Error),
    /// Another process leads.
    #[error("lease {LEASE} lost")]
    LeaseLost,
    /// A part ended that must keep running.
    #[error("km-scheduler stopped: {0}")]
    Ended(&'static str),
}

/// Runs until `stop`, or until the Lease is lost. The process then ends, and the next one starts from what exists.
pub async fn run(config: &Path, stop: CancellationToken) -> Result<(), SchedulerError> {
    let configuration = read_settings(config)?;
    let artifacts = {
        let settings = configuration.artifacts.clone();
        let opened = tokio::task::spawn_blocking(move || Artifacts::open(&settings)).await;
        opened.map_err(|_| SchedulerError::Ended("hashing"))?.map_err(SchedulerError::Artifacts)?
    };
    let settings = core_settings(&configuration, &artifacts)?;
    let mesos = &configuration.mesos;
    let masters =
        Masters::open(&mesos.masters, &mesos.principal, mesos.secret_file.as_deref(), mesos.ca_file.as_deref())
            .map_err(SchedulerError::Mesos)?;
    let client = connect(&configuration.kubeconfig).await?;
    // A process that is restarted after a crash continues at once, under the identity of the previous one.
    let seat = HostLock::take(LEASE, &configuration.cluster, &stop).await.map_err(SchedulerError::HostLock)?;
    let Some(seat) = seat else { return Ok(()) };
    let pod_defaults = quantities("nodes.podDefaults", &configuration.nodes.pod_defaults)?;

    let mut parts = JoinSet::new();
    let (hold, held) = watch::channel(None);
    let serve = artifacts.serve(&configuration.artifacts, held).await;
    parts.spawn(serve.map_err(SchedulerError::Artifacts)?);
    let (leading, mut leads) = watch::channel(false);
    let (other, others) = watch::channel(None);
    let extender_settings = &configuration.extender;
    let candidacy = Candidacy {
        namespace: NAMESPACE.to_owned(),
        name: LEASE.to_owned(),
        identity: standby::identity(&seat.identity, extender_settings.peers.as_ref()),
        other: Some(other),
    };
    // kube-scheduler queries its own host, whichever host leads.
    let (standing, stands) = watch::channel(Leadership::Follows(None));
    let (summaries, summary) = watch::channel(Summary::default());
    let metrics = Arc::new(Metrics::new());
    let extender = Extender::bind(extender_settings, pod_defaults, stands, summary, metrics.clone()).await;
    parts.spawn(extender.map_err(SchedulerError::Extender)?.serve());
    parts.spawn(framework::keep_copy(Api::new(client.clone()), configuration.state_dir.clone()));
    let leases = kube::Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let campaigning = tokio::spawn(campaign(leases, candidacy, leading, stop.clone()));
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        led = leads.wait_for(|leads| *leads) => {
            led.map_err(|_| SchedulerError::Ended("election"))?;
        }
        Some(_) = parts.join_next() => return Err(SchedulerError::Ended("server")),
        () = follow(others, &standing) => return Err(SchedulerError::Ended("election")),
    }
    let outcome = if stop.is_cancelled() {
        Ok(())
    } else {
        let desk = ExtenderHandles { standing, summaries, metrics, pod_defaults, hold };
        lead(&configuration, settings, masters, client, leads, parts, desk, stop).await
    };
    // Releases the Lease, so that no other candidate has to wait for it to expire.
    if outcome.is_ok() {
        let _ = campaigning.await;
    }
    outcome
}

/// Channels to the extender: which process answers its requests, and the core's summary.
struct ExtenderHandles {
    standing: watch::Sender<Leadership>,
    summaries: watch::Sender<Summary>,
    metrics: Arc<Metrics>,
    pod_defaults: Amount,
    /// Why nothing is done, if so.
    hold: watch::Sender<Option<String>>,
}

/// Publishes the current leader to the extender. Ends with the election.
async fn follow(mut others: watch::Receiver<Option<String>>, standing: &watch::Sender<Leadership>) {
    loop {
        let leader = others.borrow_and_update().as_deref().and_then(standby::address);
        standing.send_replace(Leadership::Follows(leader));
        if others.changed().await.is_err() {
            return;
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn lead(
    configuration: &SchedulerConfiguration,
    settings: Settings,
    masters: Masters,
    client: Client,
    mut leads: watch::Receiver<bool>,
    mut parts: JoinSet<()>,
    desk: ExtenderHandles,
    stop: CancellationToken,
) -> Result<(), SchedulerError> {
    let ExtenderHandles { standing, summaries, metrics, pod_defaults, hold } = desk;
    let held = hold.subscribe();
    let api = Api::new(client.clone());
    let (sender, mut events) = mpsc::channel(QUEUE);
    let (questioner, mut questions) = mpsc::channel(QUEUE);
    let bounds = Bounds { min: configuration.nodes.min, max: configuration.nodes.max, purge: false, purged: false };
    let mut core = Scheduler::new(settings, rand::random());
    summaries.send_replace(core.summary());
    standing.send_replace(Leadership::Leads(questioner));
    parts.spawn(watches::watch_all(client.clone(), pod_defaults, bounds, sender.clone()));
    parts.spawn(csr::run(client, api.clone()));
    let (caller_out, callers) = watch::channel(None);
    let (call_out, calls) = mpsc::channel(QUEUE);
    let mesos = &configuration.mesos;
    let identity = Identity {
        name: mesos.framework_name.clone(),
        user: mesos.user.clone(),
        principal: mesos.principal.clone(),
        roles: mesos.roles.clone(),
        state_dir: configuration.state_dir.clone(),
    };
    parts.spawn(framework::run(masters.clone(), identity, api.clone(), sender.clone(), caller_out, hold));
    parts.spawn(framework::make_calls(calls, callers, sender.clone()));
    let executor = Executor::new(api, masters, mesos.roles.clone(), call_out, sender, metrics.clone());
    let mut waiting: HashMap<RequestId, oneshot::Sender<Answer>> = HashMap::new();
    let start = Instant::now();
    loop {
        let now = Time(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        let due = start + Duration::from_millis(core.deadline().0.max(now.0));
        // Polled in this order: stop, requests, events. Requests are answered from memory, and clients wait for them.
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = leads.wait_for(|leads| !*leads) => {
                // Nothing is answered any more, not even while the process ends.
                standing.send_replace(Leadership::Follows(None));
                return Err(SchedulerError::LeaseLost);
            }
            Some(_) = parts.join_next() => return Err(SchedulerError::Ended("server, watch or Mesos connection")),
            Some(question) = questions.recv() => {
                let Question { event, request, answer } = question;
                waiting.insert(request, answer);
                event
            }
            Some(event) = events.recv() => event,
            () = tokio::time::sleep_until(due) => Event::Tick,
        };
        let now = Time(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        for effect in core.on(event, now) {
            metrics.effect(&effect);
            match effect {
                Effect::Mesos(call) => executor.call(call).await,
                Effect::ListAgents => executor.list_agents(),
                Effect::Api(request) => executor.request(request),
                Effect::Answer(request, answer) => {
                    if let Some(sender) = waiting.remove(&request) {
                        // The client may have disconnected.
                        let _ = sender.send(answer);
                    }
                }
                Effect::Report(text) => tracing::info!("{text}"),
            }
        }
        summaries.send_replace(Summary { held: held.borrow().clone(), ..core.summary() });
    }
}

fn read_settings(path: &Path) -> Result<SchedulerConfiguration, SchedulerError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| SchedulerError::Read { path: path.to_owned(), source })?;
    serde_yaml::from_str(&text)
        .map_err(|source| SchedulerError::Settings { path: path.to_owned(), source: Box::new(source) })
}

fn quantities(
    key: &'static str,
    given: &kmctl_core::cluster::Quantities,
) -> Result<kmctl_core::model::resources::Amount, SchedulerError> {
    requests::amount(&given.cpu, &given.memory).map_err(|source| SchedulerError::Value { key, source })
}

fn core_settings(configuration: &SchedulerConfiguration, artifacts: &Artifacts) -> Result<Settings, SchedulerError> {
    let SchedulerConfiguration { cluster, mesos, api_servers, ca_file, kubernetes, nodes, network, .. } = configuration;
    let ca_certificate =
        std::fs::read_to_string(ca_file).map_err(|source| SchedulerError::Read { path: ca_file.clone(), source })?;
    let idle_timeout =
        duration(&nodes.idle_timeout).map_err(|source| SchedulerError::Value { key: "nodes.idleTimeout", source })?;
    let root_dir = if nodes.root_dir.is_empty() { format!("/var/lib/kmctl/{cluster}") } else { nodes.root_dir.clone() };
    Ok(Settings {
        cluster: cluster.clone(),
        role: mesos.roles.first().ok_or(SchedulerError::NoRole)?.clone(),
        user: mesos.user.clone(),
        overhead: quantities("nodes.overhead", &nodes.overhead)?,
        idle_timeout,
        constraints: nodes.constraints.clone(),
        network_mode: network.mode,
        km: artifacts.km.clone(),
        node: NodeTemplate {
            api_servers: api_servers.clone(),
            ca_certificate,
            kubernetes_version: kubernetes.version.clone(),
            root_dir: root_dir.into(),
            pod_cidr: network.pod_cidr.clone(),
            proxy_mode: network.proxy_mode,
            service_cidr: kubernetes.service_cidr.clone(),
            cluster_domain: kubernetes.cluster_domain.clone(),
            artifacts: artifacts.for_nodes.clone(),
        },
    })
}
