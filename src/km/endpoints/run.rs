//! `km endpoints`: watches, queries [`super::decide`] and writes. All policy is there, none here.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::decide::{Effect, Endpoints, Event};
use super::watch::{slice_resource, watch_all};
use super::write::Writer;
use kmctl_core::backoff::Backoff;
use kmctl_core::cluster::NetworkMode;
use kmctl_core::k8s::host_lock::HostLock;
use kmctl_core::k8s::lease::{Candidacy, campaign};
use kmctl_core::k8s::names::NAMESPACE;
use kmctl_core::protocol::scheduler::SchedulerConfiguration;

/// Name of the Lease in [`NAMESPACE`].
pub const LEASE: &str = "km-endpoints";

/// Concurrent writes. One HTTP/2 connection carries them all.
const CONCURRENT_WRITES: usize = 16;

/// Interval at which everything is compared again. Watches report every change; this guards against unforeseen cases.
const RESYNC: Duration = Duration::from_secs(300);

/// Pause before a failed write is decided again.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(100), Duration::from_secs(30));

/// Events that may be queued. A faster watch waits.
const QUEUE: usize = 1024;

/// Paths of the configuration files.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file, shared with km scheduler: cluster name and network.
    pub config: PathBuf,
    /// Credentials of km endpoints.
    pub kubeconfig: PathBuf,
}

/// Why `km endpoints` cannot run.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    #[error("failed to read settings {path}")]
    Settings {
        path: PathBuf,
        #[source]
        source: SettingsError,
    },
    #[error("invalid credentials {path}")]
    Credentials {
        path: PathBuf,
        #[source]
        source: kube::config::KubeconfigError,
    },
    #[error("failed to set up the connection to the API server")]
    Client(#[source] kube::Error),
    /// It could not be determined whether another process of this host writes.
    #[error("failed to lock this host's candidacy")]
    HostLock(#[source] std::io::Error),
    /// A part ended that must keep running.
    #[error("km-endpoints stopped: {part}")]
    Ended {
        /// `write`, `watch` or `election`.
        part: &'static str,
    },
}

/// What is wrong with the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("failed to open it")]
    Open(#[source] std::io::Error),
    /// It cannot be parsed.
    #[error("failed to parse it")]
    Parse(#[source] serde_yaml::Error),
}

/// Runs until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), EndpointsError> {
    let Options { config, kubeconfig } = options;
    let settings = settings(&config).map_err(|source| EndpointsError::Settings { path: config, source })?;
    match settings.network.mode {
        NetworkMode::HostPorts => {
            let client = connect(&kubeconfig).await?;
            let seat = HostLock::take(LEASE, &settings.cluster, &stop).await.map_err(EndpointsError::HostLock)?;
            match &seat {
                Some(seat) => serve(client, &seat.identity, stop).await,
                None => Ok(()),
            }
        }
        NetworkMode::Cni => {
            // The unit keeps running, so that a change of the mode needs no change of units.
            tracing::info!("network.mode is cni: endpoints are managed by the stock controllers");
            stop.cancelled().await;
            Ok(())
        }
    }
}

fn settings(path: &Path) -> Result<SchedulerConfiguration, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(SettingsError::Open)?;
    serde_yaml::from_str(&text).map_err(SettingsError::Parse)
}

async fn connect(path: &Path) -> Result<Client, EndpointsError> {
    let wrong = |source| EndpointsError::Credentials { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)?;
    Client::try_from(config).map_err(EndpointsError::Client)
}

/// Writes endpoints through `client` until `stop`. No other candidate uses the name `identity` at the same time.
pub async fn serve(client: Client, identity: &str, stop: CancellationToken) -> Result<(), EndpointsError> {
    let slices = slice_resource();
    let (leading, mut leads) = watch::channel(false);
    let (sender, mut events) = mpsc::channel(QUEUE);
    let candidacy = Candidacy {
        namespace: NAMESPACE.to_owned(),
        name: LEASE.to_owned(),
        identity: identity.to_owned(),
        other: None,
    };
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let campaigning = campaign(leases, candidacy, leading, stop.clone());
    let mut parts = JoinSet::new();
    parts.spawn(watch_all(client.clone(), slices.clone(), sender));
    let mut campaign = tokio::spawn(campaigning);
    let writer = Writer::new(client, slices);
    let permits = Arc::new(Semaphore::new(CONCURRENT_WRITES));
    // Running effects. Each yields one event.
    let mut reports: JoinSet<Event> = JoinSet::new();
    let mut resync = tokio::time::interval_at(tokio::time::Instant::now() + RESYNC, RESYNC);
    resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut endpoints = Endpoints::default();
    loop {
        // Polled in this order: stop, leadership, outcomes of writes, watches. Decisions then use the newest state.
        let event = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(()) = leads.changed() => Event::Leading(*leads.borrow_and_update()),
            Some(report) = reports.join_next() => match report {
                Ok(event) => event,
                Err(_) => return Err(EndpointsError::Ended { part: "write" }),
            },
            event = events.recv() => match event {
                Some(event) => event,
                None => return Err(EndpointsError::Ended { part: "watch" }),
            },
            _ = &mut campaign => return Err(EndpointsError::Ended { part: "election" }),
            _ = resync.tick() => Event::Resync,
        };
        for effect in endpoints.on(event) {
            reports.spawn(carry_out(effect, writer.clone(), permits.clone()));
        }
    }
    // Writes in progress are dropped, whether they reached the server or not: the next leader compares first. The
    // campaign releases the Lease.
    reports.shutdown().await;
    let _ = campaign.await;
    Ok(())
}

async fn carry_out(effect: Effect, writer: Writer, permits: Arc<Semaphore>) -> Event {
    match effect {
        Effect::Write(object, action) => {
            let _permit = permits.acquire().await;
            let outcome = writer.write(&object, &action).await;
            Event::Written(object, outcome)
        }
        Effect::RetryLater(service, attempt) => {
            tokio::time::sleep(RETRY.wait(attempt)).await;
            Event::Retry(service)
        }
    }
}
