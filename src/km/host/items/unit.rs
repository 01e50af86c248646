//! systemd units that run with their current files.
use std::time::Duration;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::digests::Digests;
use crate::host::events::Reporter;
use crate::host::files::Root;
use crate::host::units;
use kmctl_core::protocol::host::{Change, Event, Item, Observed, UnitSpec, UnitState};

impl OnHost for UnitSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let state = host.units.get(&self.name);
        Ok(Observed::from_problems(problems(host.root, self, state, &mut host.digests)?))
    }

    /// In a private root only the records are kept.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        let root = run.host.root;
        let query =
            || units::states(root, std::slice::from_ref(&self.name)).map(|mut states| states.remove(&self.name));
        let mut state = query()?;
        if state.as_ref().is_none_or(|state| state.stale_definition) {
            units::reload(root)?;
            state = query()?;
        }
        if problems(root, self, state.as_ref(), &mut run.host.digests)?.is_empty() {
            return Ok(Change::Unchanged);
        }
        run.reporter.send(&Event::Started { item: self.name.clone() })?;
        if state.as_ref().is_none_or(|state| state.enabled != "enabled") {
            // All units of this part, including those that are started later.
            let all = run.header.manifest.items.iter().filter_map(Item::unit).map(|unit| unit.name.as_str());
            units::enable(root, &all.collect::<Vec<_>>())?;
        }
        let was = |active: &str| state.as_ref().is_some_and(|state| state.active == active);
        restart(root, self, was("failed"), &mut run.host.digests)?;
        Ok(if was("active") { Change::Restarted } else { Change::Started })
    }

    fn stop(&self, root: &Root, reporter: &mut Reporter<'_>) -> Result<Option<Change>, AgentError> {
        reporter.send(&Event::Started { item: self.name.clone() })?;
        let mut waiting = |since: Duration| {
            let (item, last) = (self.name.clone(), "still stopping".to_owned());
            reporter.send(&Event::Waiting { item, seconds: since.as_secs(), last })
        };
        let there = units::stop(root, &self.name, &mut waiting)?;
        Ok(Some(if there { Change::Removed } else { Change::Unchanged }))
    }
}

/// A digest of all files that the unit's process reads.
fn fingerprint(root: &Root, spec: &UnitSpec, digests: &mut Digests) -> Result<String, AgentError> {
    let mut all = String::new();
    for path in &spec.reads {
        let digest = digests.of(root, path)?.unwrap_or_default();
        all.push_str(&format!("{path} {digest}\n"));
    }
    let (digest, _) = kmctl_core::bundle::hex_digest(&mut all.as_bytes())
        .map_err(|source| AgentError::Input { what: "hash a unit's files".to_owned(), source })?;
    Ok(digest)
}

/// Why a unit must be started or restarted; empty if it runs with its current files.
fn problems(
    root: &Root,
    spec: &UnitSpec,
    state: Option<&UnitState>,
    digests: &mut Digests,
) -> Result<Vec<String>, AgentError> {
    let mut problems = Vec::new();
    if root.is_host() {
        match state {
            Some(state) if state.active == "active" => {}
            Some(state) => problems.push(format!("it is {}", state.active)),
            None => problems.push("it is not there".to_owned()),
        }
        if state.is_some_and(|state| state.enabled != "enabled") {
            problems.push("it does not start with the host".to_owned());
        }
    }
    // The files that the process was started with are recorded after its start. So if a run is killed between writing a
    // file and restarting the unit that reads it, the next run completes the restart.
    let started_with = units::started_with(root, &spec.name)?;
    if started_with.as_deref() != Some(fingerprint(root, spec, digests)?.as_str()) {
        problems.push(match started_with {
            Some(_) => "it runs with older files".to_owned(),
            None => "it was never started with these files".to_owned(),
        });
    }
    Ok(problems)
}

/// Restarts a unit, and records what it was started with. `failed`: systemd lists the unit as failed.
fn restart(root: &Root, spec: &UnitSpec, failed: bool, digests: &mut Digests) -> Result<(), AgentError> {
    // Computed before the start: a file that changes meanwhile must count as not read.
    let fingerprint = fingerprint(root, spec, digests)?;
    units::restart(root, &spec.name, failed)?;
    root.step();
    units::record_start(root, &spec.name, &fingerprint)
}
