//! Compares what hosts should have with what was found on them.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use similar::TextDiff;

use super::desired::SETTINGS;
use super::error::PlanError;
use super::etcd::{self, EtcdRemoval, EtcdWork};
use super::identity::{identify, replaced};
use super::interrupts::interrupts;
use crate::inventory::{Bare, Found};
use kmctl_core::protocol::host::{
    BootstrapClaim, DataState, ETCD, HostManifest, Item, KM, LIBRARY, Observation, Observations, Observed, Planned,
    UnitSpec,
};

/// What must be done, host by host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The inspected hosts, in cluster.yaml's order.
    pub hosts: Vec<HostPlan>,
    /// Hosts that could not be inspected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
    /// The cluster's id. `None` if no host has one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The host that bootstrapped etcd's cluster, or bootstraps it now. `None` if no host has recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// etcd members that are not hosts of cluster.yaml.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<EtcdRemoval>,
    /// Whether a new cluster takes the place of an older one, as the operator has asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub begin_anew: bool,
}

/// What must be done on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostPlan {
    /// The host's name.
    pub host: String,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// How many items are already correct.
    pub unchanged: usize,
    /// What the operator should know though nothing is done about it.
    pub notes: Vec<String>,
    /// What must be done about its etcd member.
    #[serde(default, skip_serializing_if = "EtcdWork::is_none")]
    pub etcd: EtcdWork,
    /// The id of a cluster that did not get far, which the cluster's id replaces on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_id: Option<String>,
    /// What it records about the host that bootstraps etcd's cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding: Option<BootstrapClaim>,
    /// How many other hosts must record that before this one bootstraps the cluster.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub agreement: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What is known beyond the inspected hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanContext {
    /// Hosts of cluster.yaml that could not be inspected.
    pub unseen: Vec<String>,
    /// The cluster that the other hosts have, or are about to bootstrap. A host that answers late joins it.
    pub existing: Option<ExistingCluster>,
    /// The framework's id, if no inspected host has etcd's data and Mesos has the cluster's framework.
    pub framework: Option<String>,
    /// Whether to remove etcd members that are not hosts of cluster.yaml.
    pub allow_remove: bool,
    /// Whether to bootstrap a new cluster although there was, or may be, an older one.
    pub begin_anew: bool,
}

/// What a host that answers late must know about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingCluster {
    /// Its id.
    pub id: Option<String>,
    /// The host that bootstrapped it, if recorded.
    pub founder: Option<String>,
    /// Whether it is bootstrapped in this run: a host that already has etcd's data does not belong to it.
    pub begins: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// What it is done to: a path, a unit.
    pub subject: String,
    /// Bytes to send, unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Why it is done, unless that is obvious.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// Unified diff of a text that is created or changes. Texts hold no secrets: those are other items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What does not answer during the step, and for how long. `None` if the step is not noticeable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupts: Option<String>,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Upload the `km` binary.
    Install,
    /// Create what does not exist.
    Create,
    /// Update what exists.
    Update,
    /// Compare what exists once `km` is there, and change it if it differs.
    Compare,
    /// Start a unit that does not run.
    Start,
    /// Restart a unit that runs with older files.
    Restart,
    /// Wait until something answers.
    Await,
    /// Join the etcd cluster of the other hosts.
    Join,
}

impl Plan {
    /// Whether a new etcd cluster is bootstrapped.
    pub fn begins(&self) -> bool {
        self.hosts.iter().any(|host| host.etcd == EtcdWork::Bootstrap)
    }

    /// Whether nothing must be done.
    pub fn is_empty(&self) -> bool {
        self.hosts.iter().all(|host| host.steps.is_empty()) && !self.departures.iter().any(|one| one.remove)
    }

    /// Whether it interrupts or removes something, so that the operator must confirm first.
    pub fn needs_approval(&self) -> bool {
        !self.interruptions().is_empty() || self.departures.iter().any(|one| one.remove)
    }

    /// The steps that make the API unavailable for a while, as `unit on host`. A restart of the other units is not
    /// noticeable: they catch up.
    pub fn interruptions(&self) -> Vec<String> {
        self.hosts
            .iter()
            .flat_map(|host| {
                let restarts = host.steps.iter().filter(|step| {
                    step.action == Action::Restart && [ETCD, "kube-apiserver.service"].contains(&&*step.subject)
                });
                restarts.map(|step| format!("{} on {}", step.subject, host.host))
            })
            .collect()
    }
}

/// A host's plan while it is made. Each step is kept with its item, so that what is known of the item need not be read
/// from the step's text.
pub(super) struct Draft<'a> {
    /// The plan, without its steps.
    pub(super) plan: HostPlan,
    pub(super) steps: Vec<Drafted<'a>>,
}

/// A step, and the item that it is for.
pub(super) struct Drafted<'a> {
    /// `None` for `km` itself and for etcd's membership.
    pub(super) item: Option<&'a Item>,
    pub(super) step: Step,
}

impl<'a> Draft<'a> {
    fn new(manifest: &HostManifest) -> Self {
        Draft { plan: HostPlan { host: manifest.host.clone(), ..HostPlan::default() }, steps: Vec::new() }
    }

    fn push(&mut self, item: Option<&'a Item>, step: Step) {
        self.steps.push(Drafted { item, step });
    }

    /// Adds an item's step, or counts the item as correct.
    fn take(&mut self, item: &'a Item, step: Option<Step>) {
        match step {
            Some(step) => self.push(Some(item), step),
            None => self.plan.unchanged += 1,
        }
    }

    fn finish(self) -> HostPlan {
        HostPlan { steps: self.steps.into_iter().map(|drafted| drafted.step).collect(), ..self.plan }
    }
}

/// Decides for all hosts. `km` is the sha256 of the `km` that belongs to this kmctl.
pub fn decide(hosts: &[(HostManifest, Found)], km: &str, context: &PlanContext) -> Result<Plan, PlanError> {
    let PlanContext { unseen, existing, framework: _, allow_remove, begin_anew } = context;
    let id = identify(hosts, existing.as_ref().and_then(|existing| existing.id.as_deref()))?;
    let count = hosts.len() + unseen.len();
    let mut drafts: Vec<Draft<'_>> = hosts
        .iter()
        .enumerate()
        .map(|(number, (manifest, found))| match found {
            Found::Observed(observations) => decide_observed(manifest, observations, km, number == 0),
            Found::Bare(found) => decide_bare(manifest, found, number == 0),
        })
        .collect::<Result<_, _>>()?;
    for ((manifest, found), draft) in hosts.iter().zip(&mut drafts) {
        draft.plan.replaced_id = replaced(manifest, found, id.as_deref());
    }
    for Drafted { step, .. } in drafts.iter_mut().flat_map(|draft| &mut draft.steps) {
        if step.action == Action::Restart {
            step.interrupts = interrupts(&step.subject, count);
        }
    }
    let founder = etcd::assign(hosts, &mut drafts, context)?;
    let departures = etcd::departures(hosts, unseen, *allow_remove);
    let hosts: Vec<HostPlan> = drafts.into_iter().map(Draft::finish).collect();
    let begin_anew = *begin_anew && hosts.iter().any(|plan| plan.etcd == EtcdWork::Bootstrap);
    Ok(Plan { hosts, unseen: unseen.clone(), id, founder, departures, begin_anew })
}

pub(super) fn step(action: Action, subject: &str) -> Step {
    Step { action, subject: subject.to_owned(), size: None, why: Vec::new(), diff: None, interrupts: None }
}

/// Whether a host writes the item. One host, the first, writes what exists once per cluster.
fn writes(item: &Item, first: bool) -> bool {
    first || !item.kind().once_per_cluster()
}

fn decide_bare<'a>(manifest: &'a HostManifest, found: &Bare, first: bool) -> Result<Draft<'a>, PlanError> {
    let existing = &found.existing;
    let mut draft = Draft::new(manifest);
    draft.push(None, step(Action::Install, KM));
    for item in &manifest.items {
        let name = item.name();
        let there = existing.contains(&name);
        let compared = |there: bool| step(if there { Action::Compare } else { Action::Create }, &name);
        let step = match item.planned() {
            // Added once it is known how the host joins etcd.
            Planned::Membership | Planned::Agreed => continue,
            Planned::OnceRunning => None,
            Planned::Existing if there => None,
            Planned::Kept if !there => {
                return Err(PlanError::NoSecret { host: manifest.host.clone(), path: name });
            }
            Planned::Running => Some(step(Action::Start, &name)),
            Planned::Awaited => Some(step(Action::Await, &name)),
            Planned::InEtcd => Some(compared(found.etcd_data.state() == DataState::Present)),
            Planned::Written | Planned::Existing | Planned::Kept => {
                let diff = if there { None } else { new_text(item) };
                Some(Step { size: item.kind().size(), diff, ..compared(there) })
            }
        };
        draft.take(item, step.filter(|_| writes(item, first)));
    }
    Ok(draft)
}

fn decide_observed<'a>(
    manifest: &'a HostManifest,
    found: &Observations,
    km: &str,
    first: bool,
) -> Result<Draft<'a>, PlanError> {
    let lives = found.items.iter().any(|item| item.unit.as_ref().is_some_and(|unit| unit.active == "active"));
    if lives {
        refuse_other_network(manifest, found)?;
    }
    refuse_upgrade(manifest, found, lives)?;
    let mut draft = Draft::new(manifest);
    // Files that will be different once the plan has run: a unit that reads one of them is restarted.
    let mut changing: BTreeSet<String> = BTreeSet::new();
    if found.km.as_deref() != Some(km) {
        draft.push(None, step(Action::Install, KM));
        changing.insert(KM.to_owned());
    }
    for (item, observation) in manifest.items.iter().zip(&found.items) {
        let step = match item.planned() {
            Planned::Agreed => continue,
            Planned::Membership if !observation.observed.is_same() => continue,
            _ => decide_item(manifest, item, observation, &changing, &mut draft.plan.notes)?,
        };
        if step.is_some() && observation.observed.changes_content() {
            changing.extend(item.paths());
        }
        draft.take(item, step.filter(|_| writes(item, first)));
    }
    Ok(draft)
}

/// The step of a unit: whether its process runs, and with which files.
fn decide_unit(spec: &UnitSpec, observation: &Observation, changing: &BTreeSet<String>) -> Option<Step> {
    let runs = observation.unit.as_ref().is_some_and(|unit| unit.active == "active");
    let mut why = match &observation.observed {
        Observed::Different { why, .. } => why.clone(),
        _ => Vec::new(),
    };
    let read: Vec<&String> = spec.reads.iter().filter(|path| changing.contains(*path)).collect();
    if runs && !read.is_empty() {
        let shown: Vec<&str> = read.iter().map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
        why.push(format!("{} changed", shown.join(", ")));
    }
    if observation.observed.is_same() && read.is_empty() {
        return None;
    }
    // A unit whose start was never recorded is left over from an unfinished run: nothing relies on it yet.
    let relied_on = runs && observation.unit.as_ref().is_some_and(|unit| unit.recorded);
    let action = if relied_on { Action::Restart } else { Action::Start };
    // Starting a unit that does not run needs no reason.
    Some(Step { why: if relied_on { why } else { Vec::new() }, ..step(action, &spec.name) })
}

fn decide_item(
    manifest: &HostManifest,
    item: &Item,
    observation: &Observation,
    changing: &BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Result<Option<Step>, PlanError> {
    if let Some(spec) = item.unit() {
        return Ok(decide_unit(spec, observation, changing));
    }
    let name = item.name();
    if item.planned() == Planned::Kept {
        if observation.observed == Observed::Missing {
            return Err(PlanError::NoSecret { host: manifest.host.clone(), path: name });
        }
        notes.push(format!("keeping {name}: mesos.secretFile does not exist on this machine"));
    }
    let size = item.kind().size();
    let awaits = item.planned() == Planned::Awaited;
    if let Observed::Kept { what } = &observation.observed {
        notes.push(format!(
            "keeping node limits set with `kmctl scale` ({}); reset them with --reset-scale",
            what.join(", ")
        ));
    }
    Ok(match &observation.observed {
        Observed::Same | Observed::Kept { .. } => None,
        Observed::Missing if awaits => Some(step(Action::Await, &name)),
        Observed::Missing => Some(Step { size, diff: new_text(item), ..step(Action::Create, &name) }),
        Observed::Different { why, .. } if awaits => Some(Step { why: why.clone(), ..step(Action::Await, &name) }),
        Observed::Different { why, current, .. } => {
            let diff = match (item.kind().text(), current) {
                (Some(text), Some(current)) => Some(unified(current, text)),
                _ => None,
            };
            Some(Step { size, why: why.clone(), diff, ..step(Action::Update, &name) })
        }
        Observed::Unknown { why } => Some(Step { why: vec![why.clone()], ..step(Action::Compare, &name) }),
    })
}

/// The text of a new file, as a diff. The bundle's table of contents is left out: the files that it lists are steps of
/// their own.
fn new_text(item: &Item) -> Option<String> {
    let text = item.kind().text().filter(|_| !item.name().starts_with(LIBRARY));
    text.map(|text| unified("", text))
}

fn unified(current: &str, wanted: &str) -> String {
    TextDiff::from_lines(current, wanted).unified_diff().context_radius(1).header("on the host", "wanted").to_string()
}

/// A running cluster keeps its version and its bundle. After `down` there is none to keep.
fn refuse_upgrade(manifest: &HostManifest, found: &Observations, lives: bool) -> Result<(), PlanError> {
    let refuse = |found: String| {
        let wanted = format!("Kubernetes {}", manifest.version);
        Err(PlanError::Upgrade { host: manifest.host.clone(), found, wanted })
    };
    if let Some(other) = found.versions.iter().find(|version| **version != manifest.version) {
        return refuse(format!("Kubernetes {other}"));
    }
    let contents = format!("{LIBRARY}/{}/manifest.json", manifest.version);
    let other_bundle = found
        .items
        .iter()
        .any(|item| item.name == contents && matches!(item.observed, Observed::Different { current: Some(_), .. }));
    if lives && other_bundle {
        return refuse(format!("another bundle of Kubernetes {}", manifest.version));
    }
    Ok(())
}

/// A running cluster keeps its network mode. Otherwise nodes, endpoints and rules of both modes would coexist.
fn refuse_other_network(manifest: &HostManifest, found: &Observations) -> Result<(), PlanError> {
    let mode = |settings: &str| -> Option<String> {
        let settings: serde_json::Value = serde_yaml::from_str(settings).ok()?;
        Some(settings.get("network")?.get("mode")?.as_str()?.to_owned())
    };
    let mut settings = manifest.items.iter().zip(&found.items).filter(|(item, _)| item.name() == SETTINGS);
    let other = settings.find_map(|(item, there)| match (item.kind().text(), &there.observed) {
        (Some(text), Observed::Different { current: Some(current), .. }) => Some((mode(current)?, mode(text)?)),
        _ => None,
    });
    match other {
        Some((found, wanted)) if found != wanted => {
            Err(PlanError::Network { host: manifest.host.clone(), found, wanted })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
pub(super) mod tests;
