//! The connection to Mesos: subscribes, saves the framework's id before anything is launched, and makes calls in order.
use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::api::Api;
use super::decide::Event;
use kmctl_core::backoff::Backoff;
use mesos::operator::Operator;
use mesos::scheduler::{Call, Caller, Event as FromMesos, Scheduler as Mesos};
use mesos::types::{AgentInfo, FrameworkCapabilityType, FrameworkId, FrameworkInfo};
use mesos::{Masters, MesosError};

/// A week: longer than any outage of the control plane that is being worked on.
const FAILOVER_TIMEOUT_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

/// Pause between attempts to subscribe. Attempts end with the process: it has no work without Mesos, and a master may
/// become available again.
const PAUSE: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(10));

/// A refusal that only an operator can resolve is retried nevertheless, but less often.
const LONG_PAUSE: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_secs(60));

/// The framework's identity in Mesos.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: String,
    /// User that executors run as.
    pub user: String,
    /// Principal. Empty without authentication.
    pub principal: String,
    pub roles: Vec<String>,
    /// Directory for the framework's id.
    pub state_dir: PathBuf,
}

/// Why the framework's id could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum IdError {
    #[error("failed to store the framework id in {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to store the framework id in the API")]
    Api(#[source] kube::Error),
}

/// The FrameworkInfo sent to Mesos (P13: task limits are an agent's capability, not a framework's).
pub fn framework_info(identity: &Identity, id: Option<FrameworkId>) -> FrameworkInfo {
    use FrameworkCapabilityType::{MultiRole, PartitionAware, RegionAware, ReservationRefinement, TaskKillingState};
    let capabilities = [MultiRole, PartitionAware, ReservationRefinement, RegionAware, TaskKillingState];
    FrameworkInfo {
        user: identity.user.clone(),
        name: identity.name.clone(),
        id,
        failover_timeout: Some(FAILOVER_TIMEOUT_SECONDS),
        checkpoint: Some(true),
        roles: identity.roles.clone(),
        principal: (!identity.principal.is_empty()).then(|| identity.principal.clone()),
        capabilities: capabilities.into_iter().map(Into::into).collect(),
        ..FrameworkInfo::default()
    }
}

/// Subscribes until cancelled. Publishes the current caller through `callers`: none while there is no subscription.
pub async fn run(
    masters: Masters,
    identity: Identity,
    api: Api,
    events: mpsc::Sender<Event>,
    callers: watch::Sender<Option<Caller>>,
    held: watch::Sender<Option<String>>,
) {
    let file = identity.state_dir.join("framework-id");
    let mesos = Mesos::new(masters);
    let mut known = known_ids(&file, &api, &held).await;
    let mut id = known.pop_front();
    let (mut failures, mut said) = (0, String::new());
    loop {
        let pause = match session(&mesos, &identity, &file, &mut id, &api, &events, &callers).await {
            Ok(()) => return,
            Err(error) => {
                if matches!(error, SessionError::Mesos(MesosError::FrameworkRemoved)) {
                    // A host that has not led for long may know an older id than the API, and vice versa.
                    id = known.pop_front();
                    match &id {
                        Some(id) => tracing::warn!(framework = %id, "Mesos removed the framework; trying another"),
                        None => {
                            tracing::warn!("Mesos removed the framework with all its tasks; registering a new one")
                        }
                    }
                }
                if callers.borrow().is_some() {
                    // This subscription was established.
                    (failures, said) = (0, String::new());
                }
                let text = chain(&error);
                if text != said {
                    tracing::warn!("{text}");
                    said = text;
                }
                failures += 1;
                match error {
                    SessionError::Mesos(error)
                        if !error.is_transient() && !matches!(error, MesosError::FrameworkRemoved) =>
                    {
                        LONG_PAUSE.wait(failures - 1)
                    }
                    _ => PAUSE.wait(failures - 1),
                }
            }
        };
        callers.send_replace(None);
        if events.send(Event::Disconnected).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Why a subscription ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("failed to subscribe to Mesos")]
    Mesos(#[source] MesosError),
    #[error("failed to register the framework")]
    Id(#[source] IdError),
}

fn chain(error: &SessionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn session(
    mesos: &Mesos,
    identity: &Identity,
    file: &Path,
    id: &mut Option<FrameworkId>,
    api: &Api,
    events: &mpsc::Sender<Event>,
    callers: &watch::Sender<Option<Caller>>,
) -> Result<(), SessionError> {
    let info = framework_info(identity, id.clone());
    // Suppressed from the start: offers are requested when a pod needs one.
    let (mut subscription, caller) = mesos.subscribe(&info, &identity.roles).await.map_err(SessionError::Mesos)?;
    let given = subscription.subscribed().framework_id.clone();
    // The API first: an id that only the host knows means that the API has lost it.
    api.save_framework_id(&given.value).await.map_err(|source| SessionError::Id(IdError::Api(source)))?;
    if id.as_ref() != Some(&given) {
        save(file, &given.value).map_err(|source| SessionError::Id(IdError::File { path: file.to_owned(), source }))?;
    }
    *id = Some(given.clone());
    tracing::info!(framework = %given, "subscribed to Mesos");
    callers.send_replace(Some(caller));
    if events.send(Event::Subscribed).await.is_err() {
        return Ok(());
    }
    loop {
        let event = subscription.next().await.map_err(SessionError::Mesos)?;
        let Some(event) = translate(event) else { continue };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

fn translate(event: FromMesos) -> Option<Event> {
    match event {
        FromMesos::Offers { offers } => Some(Event::Offers(offers.offers)),
        FromMesos::Rescind { rescind } => Some(Event::Rescinded(rescind.offer_id.value)),
        FromMesos::Update { update } => Some(Event::Update(Box::new(update.status))),
        FromMesos::Failure { failure } => match (failure.agent_id, failure.executor_id) {
            (Some(agent), Some(executor)) => {
                Some(Event::ExecutorEnded { agent: agent.value, executor: executor.value })
            }
            (Some(agent), None) => Some(Event::AgentLost(agent.value)),
            _ => None,
        },
        FromMesos::Subscribed { .. }
        | FromMesos::Message { .. }
        | FromMesos::Error { .. }
        | FromMesos::Heartbeat
        | FromMesos::Unknown => None,
    }
}

/// Pause between two questions whether the API knows the framework.
const HELD_PAUSE: Duration = Duration::from_secs(5);

/// The ids that may be ours. The API's first, which every host knows, then the file's, which is older if another host has
/// led meanwhile.
///
/// Waits until the API answers. If it has no id and the host has one, its store is empty or older than the framework: every
/// task in Mesos would look as if its pod had been deleted, and would be killed. Then nothing is done until an operator has
/// brought the store back, or has given it up with `kmctl up --begin-anew`, which stores the id again.
async fn known_ids(file: &Path, api: &Api, held: &watch::Sender<Option<String>>) -> VecDeque<FrameworkId> {
    let mut failures = 0;
    loop {
        let saved = read_id(file);
        match (api.framework_id().await, saved) {
            (Err(error), _) => {
                tracing::warn!(%error, "failed to read the framework id from the API; trying again");
                tokio::time::sleep(PAUSE.wait(failures)).await;
                failures += 1;
            }
            (Ok(None), Some(saved)) => {
                let text = held_text(&saved);
                if held.borrow().is_none() {
                    tracing::error!("{text}");
                    if let Err(error) = api.report_held(&text).await {
                        tracing::warn!(%error, "failed to write an event");
                    }
                }
                held.send_replace(Some(text));
                tokio::time::sleep(HELD_PAUSE).await;
            }
            (Ok(told), saved) => {
                held.send_replace(None);
                return candidates(told, saved);
            }
        }
    }
}

fn held_text(framework: &str) -> String {
    format!(
        "the API has no record of framework {framework}, which this host knows: its store is empty or older, and no task is \
         touched; restore the store, or give it up with `kmctl up --begin-anew NAME`"
    )
}

fn candidates(told: Option<String>, saved: Option<String>) -> VecDeque<FrameworkId> {
    let mut known: VecDeque<FrameworkId> = told.into_iter().chain(saved).map(FrameworkId::from).collect();
    if known.len() > 1 && known[0] == known[1] {
        known.pop_back();
    }
    known
}

fn read_id(file: &Path) -> Option<String> {
    std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Pause between two reads of the API.
const COPY: Duration = Duration::from_secs(30);

/// Copies the framework's id to this host, whichever host leads: without the API, the framework can then be torn down
/// from any control-plane host. Runs until cancelled.
pub async fn keep_copy(api: Api, state_dir: PathBuf) {
    let file = state_dir.join("framework-id");
    loop {
        if let Ok(Some(id)) = api.framework_id().await
            && read_id(&file).as_ref() != Some(&id)
            && let Err(error) = save(&file, &id)
        {
            tracing::warn!(%error, "failed to copy the framework id to {}", file.display());
        }
        tokio::time::sleep(COPY).await;
    }
}

/// Writes a small file atomically, readable only by its owner.
fn save(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    std::fs::rename(&temporary, file)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Makes calls one after the other, so that they reach the master in order. A call that cannot be sent is dropped: the
/// next subscription starts with a reconciliation, and everything is derived again. Offers are the exception while the
/// subscription lasts: the master does not mention them again.
pub async fn make_calls(
    mut calls: mpsc::Receiver<Call>,
    callers: watch::Receiver<Option<Caller>>,
    events: mpsc::Sender<Event>,
) {
    while let Some(call) = calls.recv().await {
        let caller = callers.borrow().clone();
        let Some(caller) = caller else {
            tracing::debug!(call = call.name(), "not subscribed, call dropped");
            continue;
        };
        let (name, returned) = (call.name(), returned(&call));
        if let Err(error) = caller.call(call).await {
            tracing::warn!(call = name, %error, "a call to Mesos failed");
            let Some(event) = returned else { continue };
            let events = events.clone();
            // Not here: the core may be waiting for this loop to take a call, and then takes no event.
            tokio::spawn(async move { events.send(event).await });
        }
    }
}

/// What to report if the call fails: the offers that it returns. An ACCEPT returns what its tasks do not use. If it did
/// not arrive, a DECLINE makes Mesos offer all of it again, and reconciliation finds that its tasks do not exist.
fn returned(call: &Call) -> Option<Event> {
    let (offers, filters) = match call {
        Call::Accept { accept } => (&accept.offer_ids, &accept.filters),
        Call::Decline { decline } => (&decline.offer_ids, &decline.filters),
        _ => return None,
    };
    let seconds = filters.as_ref().and_then(|filters| filters.refuse_seconds).unwrap_or_default();
    // Ours are whole and not negative.
    Some(Event::OffersNotReturned { offers: offers.clone(), seconds: seconds as u32 })
}

/// Connected agents, as the leading master knows them.
pub async fn agents(masters: &Masters) -> Result<Vec<AgentInfo>, MesosError> {
    let known = Operator::leading(masters).await?.agents().await?;
    Ok(known.agents.into_iter().filter(|agent| agent.active).map(|agent| agent.agent_info).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use mesos::types::Filters;

    #[test]
    fn the_framework_declares_what_it_understands() {
        let identity = Identity {
            name: "kubernetes-demo".into(),
            user: "root".into(),
            principal: String::new(),
            roles: vec!["kubernetes".into()],
            state_dir: PathBuf::new(),
        };
        let info = framework_info(&identity, None);
        let capabilities: Vec<&str> = info.capabilities.iter().map(|each| each.kind.as_str()).collect();
        let expected =
            ["MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT", "REGION_AWARE", "TASK_KILLING_STATE"];
        assert_eq!(capabilities, expected);
        assert_eq!((info.failover_timeout, info.checkpoint, info.principal), (Some(604_800.0), Some(true), None));
    }

    #[test]
    fn a_failed_call_that_returns_offers_is_reported_with_them() {
        let offers = vec!["o1".into(), "o2".into()];
        let reported = |seconds| Some(Event::OffersNotReturned { offers: offers.clone(), seconds });
        assert_eq!(returned(&Call::decline(offers.clone(), Filters::refuse(3600.0))), reported(3600));
        assert_eq!(returned(&Call::accept(offers.clone(), Vec::new(), Filters::refuse(0.0))), reported(0));
        assert_eq!(returned(&Call::suppress(vec!["kubernetes".to_owned()])), None);
    }

    #[test]
    fn the_id_is_kept_where_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scheduler/framework-id");
        save(&file, "one").unwrap();
        save(&file, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }
}
