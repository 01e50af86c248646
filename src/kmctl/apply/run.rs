//! Carries out a plan host by host, in the order that the graph allows, and reports the outcome of each.
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ApplyError;
use super::decide::{CriticalPath, Ended, Graph, HostFacts, HostState, Stage, Task};
use super::host::{Counts, StepText, Work, leave, missing, prepare, read_keys, send, with_programs};
use super::stream::{Missing, Part};
use crate::host::Host;
use crate::inventory::Found;
use crate::plan::{Action, EtcdWork, HostPlan};
use kmctl_core::protocol::host::{
    ETCD, EtcdBootstrap, EtcdStart, HostManifest, HostMark, Item, MARK_FORMAT, MarkClaim, Observed, Planned, Section,
};

/// A host of the run: its desired state, what was found there, and what is done about it.
#[derive(Clone)]
pub struct Member {
    pub host: Arc<dyn Host>,
    /// What the host should have.
    pub manifest: HostManifest,
    /// What was found there.
    pub found: Found,
    /// What is done.
    pub plan: HostPlan,
}

/// A host that has not answered yet but still may.
pub struct Late {
    pub host: String,
    /// Resolves to the host once it has answered and was planned for.
    pub arrival: Pin<Box<dyn Future<Output = Result<Member, ApplyError>> + Send>>,
}

/// The outcome of one host.
#[derive(Debug)]
pub struct HostOutcome {
    pub host: String,
    /// How it ended.
    pub state: HostState,
    /// Changed and unchanged items, as counted by the host.
    pub counts: Counts,
    /// The time from its first stage to its last.
    pub took: Duration,
    /// Why it failed.
    pub error: Option<ApplyError>,
}

/// The outcome of all hosts.
#[derive(Debug)]
pub struct Report {
    /// In the plan's order, followed by those that answered late.
    pub hosts: Vec<HostOutcome>,
    /// How many etcd members were removed, in the order in which their removal was requested.
    pub departed: usize,
    /// What took longest.
    pub critical_path: Option<CriticalPath>,
}

impl Member {
    fn facts(&self) -> HostFacts {
        let Member { host: _, manifest, found, plan } = self;
        let shared = manifest.items.iter().filter(|item| item.is_shared()).count();
        let (keys, healthy) = match found {
            // A key that a shell saw counts no more than one that km compared.
            Found::Bare(found) => {
                let there =
                    |item: &&Item| item.is_shared() && item.paths().iter().all(|path| found.existing.contains(path));
                (manifest.items.iter().filter(there).count(), false)
            }
            Found::Observed(found) => {
                let pairs = || manifest.items.iter().zip(&found.items);
                let keys = pairs().filter(|(item, found)| item.is_shared() && found.observed.is_same()).count();
                let etcd = |planned: Planned| {
                    pairs().filter(move |(item, _)| item.section() == Section::Etcd && item.planned() == planned)
                };
                let runs = etcd(Planned::Running)
                    .any(|(_, found)| found.unit.as_ref().is_some_and(|unit| unit.active == "active"));
                let healthy = etcd(Planned::Awaited).any(|(_, found)| found.observed == Observed::Same);
                (keys, runs && healthy)
            }
        };
        HostFacts {
            host: plan.host.clone(),
            has_work: !plan.steps.is_empty(),
            keys,
            lacks_keys: keys < shared,
            lacks_programs: !missing(manifest, found).is_empty(),
            etcd: plan.etcd,
            founds: plan.founding.is_some(),
            agreement: plan.agreement,
            healthy,
            restarts: plan.steps.iter().any(|step| step.action == Action::Restart && step.subject != ETCD),
        }
    }
}

/// What a stage applies. The first host writes what exists once per cluster.
///
/// On the host that bootstraps a cluster, only etcd's own binary is sent before etcd starts. The other binaries are
/// sent while etcd and the API server start, which mostly wait. Elsewhere all binaries are uploaded before anything is
/// started, so that nothing that others rely on is interrupted while they are sent.
fn part(manifest: &HostManifest, stage: Stage, first: bool, begins: bool) -> HostManifest {
    let units = manifest.units();
    let read_by = |path: &String| units.iter().find(|unit| unit.reads.contains(path)).map(|unit| unit.name.as_str());
    let comes_in = |item: &Item| match item.paths().first().and_then(read_by) {
        _ if !begins => Stage::Prepare,
        Some(ETCD) => Stage::Prepare,
        Some(_) => Stage::Etcd,
        None => Stage::Serve,
    };
    let takes = |item: &Item| match (stage, item.section()) {
        (Stage::Leave(_), _) => false,
        (Stage::Keys, section) => matches!(section, Section::Shared | Section::Directories | Section::Agreement),
        (Stage::Agree, section) => matches!(section, Section::Directories | Section::Agreement),
        (Stage::Programs, section) => matches!(section, Section::Directories | Section::Programs),
        (stage, Section::Programs) => comes_in(item) == stage,
        (Stage::Prepare, section) => !matches!(section, Section::Snapshot | Section::Etcd | Section::ControlPlane),
        (Stage::Snapshot, section) => section == Section::Snapshot,
        (Stage::Etcd, section) => section == Section::Etcd,
        (Stage::Serve, section) => section == Section::ControlPlane && (first || !item.kind().once_per_cluster()),
    };
    let mut items: Vec<Item> = manifest.items.iter().filter(|item| takes(item)).cloned().collect();
    if matches!(stage, Stage::Etcd | Stage::Serve) {
        let (programs, rest): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| item.section() == Section::Programs);
        items = rest;
        let starts = |item: &Item| item.planned() == Planned::Running;
        let started = items.iter().position(starts).map_or(0, |unit| unit + 1);
        items.splice(started..started, programs);
    }
    HostManifest { items, ..manifest.clone() }
}

/// The mark that the host has, or receives first.
fn claim(member: &Member, id: &str) -> MarkClaim {
    let HostManifest { cluster, host, .. } = &member.manifest;
    let (cluster, member_name) = (cluster.clone(), host.clone());
    let mark = HostMark { format: MARK_FORMAT, cluster, id: id.to_owned(), member: member_name };
    MarkClaim { mark, instead_of: member.plan.replaced_id.clone() }
}

/// The text that is shown while a stage runs.
fn text(stage: Stage) -> StepText {
    let (running, done) = match stage {
        Stage::Keys => ("Creating the shared keys", "Created the shared keys"),
        Stage::Agree => ("Recording the etcd bootstrap host", "Recorded the etcd bootstrap host"),
        Stage::Programs | Stage::Prepare => ("Writing configuration", "Wrote configuration"),
        Stage::Snapshot => ("Taking an etcd snapshot", "Took an etcd snapshot"),
        Stage::Leave(_) => ("Removing an etcd member", "Removed an etcd member"),
        Stage::Etcd => ("Preparing etcd", "Prepared etcd"),
        Stage::Serve => ("Preparing control plane components", "Prepared control plane components"),
    };
    StepText { running, done }
}

/// What the stages of a run share.
#[derive(Clone)]
struct Shared {
    work: Work,
    /// Keys by path, in base64, once they were read from the host that creates them.
    keys: Arc<Mutex<BTreeMap<String, String>>>,
    /// Names of the members to remove from etcd.
    departures: Arc<Vec<String>>,
}

struct Finished {
    task: Task,
    /// What is now known of the host.
    found: Option<Found>,
    outcome: Result<(Counts, bool), ApplyError>,
}

enum RunEvent {
    Finished(Box<Finished>),
    Arrived(usize, Result<Box<Member>, ApplyError>),
}

/// Carries out the plan of every host. `departures` are the etcd members to remove.
pub async fn run(members: Vec<Member>, late: Vec<Late>, departures: Vec<String>, work: &Work) -> Report {
    let started = Instant::now();
    let facts: Vec<HostFacts> = members.iter().map(Member::facts).collect();
    let mut graph = Graph::new(&facts, departures.len());
    let shared = Shared { work: work.clone(), keys: Arc::default(), departures: Arc::new(departures) };
    let mut hosts = Vec::from_iter(members.into_iter().map(HostProgress::new));
    let mut running: JoinSet<RunEvent> = JoinSet::new();
    let names: Vec<String> = late.iter().map(|late| late.host.clone()).collect();
    for (number, late) in late.into_iter().enumerate() {
        running.spawn(async move { RunEvent::Arrived(number, late.arrival.await.map(Box::new)) });
    }
    let mut absent = Vec::new();
    loop {
        for task in graph.next(started.elapsed()) {
            let Some(host) = hosts.get(task.host) else { continue };
            let (shared, member) = (shared.clone(), host.member.clone());
            running.spawn(async move { RunEvent::Finished(Box::new(carry_out(task, member, &shared).await)) });
        }
        let Some(happened) = running.join_next().await else { break };
        match happened {
            Ok(RunEvent::Finished(finished)) => {
                let Finished { task, found, outcome } = *finished;
                let Some(host) = hosts.get_mut(task.host) else { continue };
                let ended = host.take(found, outcome, &shared);
                graph.finished(task.id, ended, started.elapsed());
            }
            Ok(RunEvent::Arrived(number, arrived)) => match arrived {
                Ok(member) => {
                    graph.admit(member.facts());
                    hosts.push(HostProgress::new(*member));
                }
                Err(error) => absent.push((names.get(number).cloned().unwrap_or_default(), error)),
            },
            // A panicking task has already printed its own message. Its host counts as not finished.
            Err(_) => break,
        }
    }
    let mut outcomes: Vec<HostOutcome> =
        hosts.into_iter().enumerate().map(|(number, host)| host.outcome(&graph, number)).collect();
    outcomes.extend(absent.into_iter().map(|(host, error)| {
        let (state, counts) = (HostState::Failed, Counts::default());
        HostOutcome { host, state, counts, took: started.elapsed(), error: Some(error) }
    }));
    Report { hosts: outcomes, departed: graph.departed(), critical_path: graph.critical_path() }
}

/// A host while the run is in progress.
struct HostProgress {
    member: Member,
    counts: Counts,
    error: Option<ApplyError>,
}

impl HostProgress {
    fn new(member: Member) -> Self {
        HostProgress { member, counts: Counts::default(), error: None }
    }

    fn take(&mut self, found: Option<Found>, outcome: Result<(Counts, bool), ApplyError>, shared: &Shared) -> Ended {
        if let Some(found) = found {
            self.member.found = found;
        }
        match outcome {
            Ok((counts, uploaded)) => {
                self.counts.changed += counts.changed;
                self.counts.unchanged += counts.unchanged;
                Ended::Done { uploaded }
            }
            Err(error) => {
                shared
                    .work
                    .progress
                    .note(self.member.host.name(), "failed; continuing with steps that do not depend on it");
                self.error = Some(error);
                Ended::Failed
            }
        }
    }

    fn outcome(self, graph: &Graph, number: usize) -> HostOutcome {
        let HostProgress { member, counts, error } = self;
        HostOutcome { host: member.plan.host, state: graph.state(number), counts, took: graph.took(number), error }
    }
}

async fn carry_out(task: Task, mut member: Member, shared: &Shared) -> Finished {
    let outcome = stage(task, &mut member, shared).await;
    // Later stages of the host use what preparing it has found.
    let found = matches!(task.stage, Stage::Keys | Stage::Agree | Stage::Programs | Stage::Prepare)
        .then(|| member.found.clone());
    Finished { task, found, outcome }
}

async fn stage(task: Task, member: &mut Member, shared: &Shared) -> Result<(Counts, bool), ApplyError> {
    let Shared { work, keys, departures } = shared;
    let host = member.host.as_ref();
    let begins = member.plan.etcd == EtcdWork::Bootstrap;
    let part = Part {
        manifest: part(&member.manifest, task.stage, task.host == 0, begins),
        units: member.manifest.units(),
        mark: claim(member, &work.cluster_id),
    };
    let sent = (text(task.stage), &part);
    let start = match member.plan.etcd {
        EtcdWork::Bootstrap => Some(EtcdStart::Bootstrap),
        EtcdWork::Join => Some(EtcdStart::Join),
        EtcdWork::None | EtcdWork::Start | EtcdWork::Restart => None,
    };
    let etcd = EtcdBootstrap { start, founding: member.plan.founding.clone(), begin_anew: work.begin_anew };
    let known = || keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match task.stage {
        Stage::Keys => {
            member.found = prepare(host, &member.manifest, member.found.clone(), work).await?;
            let (counts, _) = send(host, sent, &Vec::new(), &BTreeMap::new(), &etcd, work).await?;
            let made = read_keys(host, &part.manifest).await?;
            *keys.lock().unwrap_or_else(PoisonError::into_inner) = made;
            Ok((counts, false))
        }
        Stage::Prepare => {
            member.found = prepare(host, &member.manifest, member.found.clone(), work).await?;
            send(host, sent, &lacking(member, &part), &known(), &etcd, work).await
        }
        Stage::Programs => {
            member.found = prepare(host, &member.manifest, member.found.clone(), work).await?;
            let sent = send(host, sent, &lacking(member, &part), &BTreeMap::new(), &etcd, work).await?;
            member.found = with_programs(&member.manifest, member.found.clone());
            Ok(sent)
        }
        Stage::Leave(number) => {
            let (name, asker) = (departures.get(number), member.manifest.member());
            let (Some(name), Some(asker)) = (name, asker) else { return Ok((Counts::default(), false)) };
            leave(host, (&member.manifest.cluster, asker), name, work).await.map(|counts| (counts, false))
        }
        Stage::Agree => {
            member.found = prepare(host, &member.manifest, member.found.clone(), work).await?;
            send(host, sent, &Vec::new(), &BTreeMap::new(), &etcd, work).await
        }
        Stage::Snapshot | Stage::Etcd | Stage::Serve => {
            send(host, sent, &lacking(member, &part), &BTreeMap::new(), &etcd, work).await
        }
    }
}

/// The binaries of a part that the host lacks, as far as is known.
fn lacking(member: &Member, part: &Part) -> Missing {
    let mut lacking = missing(&member.manifest, &member.found);
    lacking.retain(|lacking| part.manifest.items.iter().filter_map(Item::program).any(|file| file.path == *lacking));
    lacking
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
