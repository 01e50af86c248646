//! Compares what hosts should have with what was found on them.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use similar::TextDiff;

use super::desired::{MEMBER_DATA, SETTINGS};
use super::error::PlanError;
use super::etcd::{self, EtcdRemoval, EtcdWork};
use super::interrupts::interrupts;
use crate::inventory::Found;
use kmctl_core::protocol::host::{
    BootstrapClaim, HostManifest, Item, KM, LIBRARY, Observation, Observations, Observed,
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
    /// The host that bootstrapped etcd's cluster, or bootstraps it now. `None` if no host has recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<String>,
    /// etcd members that are not hosts of cluster.yaml.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departures: Vec<EtcdRemoval>,
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
}

/// What a host that answers late must know about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExistingCluster {
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
                    step.action == Action::Restart
                        && ["etcd.service", "kube-apiserver.service"].contains(&&*step.subject)
                });
                restarts.map(|step| format!("{} on {}", step.subject, host.host))
            })
            .collect()
    }
}

/// Decides for all hosts. `km` is the sha256 of the `km` that belongs to this kmctl.
pub fn decide(hosts: &[(HostManifest, Found)], km: &str, context: &PlanContext) -> Result<Plan, PlanError> {
    let PlanContext { unseen, existing: _, framework: _, allow_remove } = context;
    let count = hosts.len() + unseen.len();
    let mut plans: Vec<HostPlan> = hosts
        .iter()
        .map(|(manifest, found)| match found {
            Found::Observed(observations) => decide_observed(manifest, observations, km),
            Found::Bare { existing } => decide_bare(manifest, existing),
        })
        .collect::<Result<_, _>>()?;
    for step in plans.iter_mut().flat_map(|host| &mut host.steps).filter(|step| step.action == Action::Restart) {
        step.interrupts = interrupts(&step.subject, count);
    }
    // One host writes the API objects that all hosts share.
    for plan in plans.iter_mut().skip(1) {
        let before = plan.steps.len();
        plan.steps.retain(|step| !step.subject.ends_with(" API objects"));
        plan.unchanged += before - plan.steps.len();
    }
    let founder = etcd::assign(hosts, &mut plans, context)?;
    let departures = etcd::departures(hosts, unseen, *allow_remove);
    Ok(Plan { hosts: plans, unseen: unseen.clone(), founder, departures })
}

pub(super) fn step(action: Action, subject: &str) -> Step {
    Step { action, subject: subject.to_owned(), size: None, why: Vec::new(), diff: None, interrupts: None }
}

fn decide_bare(manifest: &HostManifest, existing: &BTreeSet<String>) -> Result<HostPlan, PlanError> {
    let mut steps = vec![step(Action::Install, KM)];
    let mut unchanged = 0;
    for item in &manifest.items {
        let name = item.name();
        let there = existing.contains(&name);
        match item {
            Item::Secret { path, sha256: None } if !there => {
                return Err(PlanError::NoSecret { host: manifest.host.clone(), path: path.clone() });
            }
            Item::Directory { .. } if there => unchanged += 1,
            // Added once it is known how the host joins etcd.
            Item::Member(_) | Item::Founder => {}
            Item::Snapshot { .. } | Item::Vote(_) => unchanged += 1,
            Item::Unit(_) => steps.push(step(Action::Start, &name)),
            Item::Health(_) => steps.push(step(Action::Await, &name)),
            Item::Objects { .. } => {
                let data = existing.contains(MEMBER_DATA);
                steps.push(step(if data { Action::Compare } else { Action::Create }, &name));
            }
            Item::Program { size, .. } => {
                let action = if there { Action::Compare } else { Action::Create };
                steps.push(Step { size: Some(*size), ..step(action, &name) });
            }
            Item::Directory { .. }
            | Item::File { .. }
            | Item::Secret { .. }
            | Item::Authority(_)
            | Item::KeyPair { .. }
            | Item::EncryptionKey { .. }
            | Item::Certificate(_)
            | Item::Kubeconfig(_) => steps.push(match there {
                true => step(Action::Compare, &name),
                false => Step { diff: new_text(item), ..step(Action::Create, &name) },
            }),
        }
    }
    Ok(HostPlan { host: manifest.host.clone(), steps, unchanged, ..HostPlan::default() })
}

fn decide_observed(manifest: &HostManifest, found: &Observations, km: &str) -> Result<HostPlan, PlanError> {
    let lives = found.items.iter().any(|item| item.unit.as_ref().is_some_and(|unit| unit.active == "active"));
    if lives {
        refuse_other_network(manifest, found)?;
    }
    refuse_upgrade(manifest, found, lives)?;
    let mut plan = HostPlan { host: manifest.host.clone(), ..HostPlan::default() };
    // Files that will be different once the plan has run: a unit that reads one of them is restarted.
    let mut changing: BTreeSet<String> = BTreeSet::new();
    if found.km.as_deref() != Some(km) {
        plan.steps.push(step(Action::Install, KM));
        changing.insert(KM.to_owned());
    }
    for (item, observation) in manifest.items.iter().zip(&found.items) {
        if matches!(item, Item::Founder) || matches!(item, Item::Member(_)) && !observation.observed.is_same() {
            continue;
        }
        let Some(step) = decide_item(manifest, item, observation, &changing, &mut plan.notes)? else {
            plan.unchanged += 1;
            continue;
        };
        if observation.observed.changes_content() {
            changing.extend(item.paths());
        }
        plan.steps.push(step);
    }
    Ok(plan)
}

fn decide_item(
    manifest: &HostManifest,
    item: &Item,
    observation: &Observation,
    changing: &BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Result<Option<Step>, PlanError> {
    let name = item.name();
    if let Item::Unit(spec) = item {
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
            return Ok(None);
        }
        // A unit whose start was never recorded is left over from an unfinished run: nothing relies on it yet.
        let relied_on = runs && observation.unit.as_ref().is_some_and(|unit| unit.recorded);
        let action = if relied_on { Action::Restart } else { Action::Start };
        // Starting a unit that does not run needs no reason.
        return Ok(Some(Step { why: if relied_on { why } else { Vec::new() }, ..step(action, &name) }));
    }
    if let Item::Secret { path, sha256: None } = item {
        if observation.observed == Observed::Missing {
            return Err(PlanError::NoSecret { host: manifest.host.clone(), path: path.clone() });
        }
        notes.push(format!("keeping {path}: mesos.secretFile does not exist on this machine"));
    }
    let size = match item {
        Item::Program { size, .. } => Some(*size),
        _ => None,
    };
    let awaits = matches!(item, Item::Health(_));
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
        Observed::Different { why, current } => {
            let diff = match (item, current) {
                (Item::File { text, .. }, Some(current)) => Some(unified(current, text)),
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
    match item {
        Item::File { path, text, .. } if !path.starts_with(LIBRARY) => Some(unified("", text)),
        _ => None,
    }
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
    let other = manifest.items.iter().zip(&found.items).find_map(|(item, there)| match (item, &there.observed) {
        (Item::File { path, text, .. }, Observed::Different { current: Some(current), .. }) if path == SETTINGS => {
            Some((mode(current)?, mode(text)?))
        }
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
