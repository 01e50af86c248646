//! Snapshots of etcd.
use std::process::Command;

use jiff::Timestamp;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::files::Root;
use crate::host::units;
use kmctl_core::protocol::host::{Change, ETCD, Event, Kind, Observed, SnapshotSpec};

/// How many snapshots of etcd are kept.
const SNAPSHOTS: usize = 5;

impl OnHost for SnapshotSpec {
    /// A snapshot is only taken along with other changes; it is no state that could differ.
    fn observe(&self, _: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        Ok(Observed::Same)
    }

    /// In a private root there is no etcd.
    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        let root = run.host.root;
        if !root.is_host() || !etcd_runs(root)? {
            return Ok(Change::Unchanged);
        }
        run.reporter.send(&Event::Started { item: self.name() })?;
        save(root, self, run.host.now)?;
        Ok(Change::Created)
    }
}

fn etcd_runs(root: &Root) -> Result<bool, AgentError> {
    let states = units::states(root, &[ETCD.to_owned()])?;
    Ok(states.get(ETCD).is_some_and(|state| state.active == "active"))
}

/// Saves a snapshot of etcd beside its data, and removes all but the newest snapshots.
fn save(root: &Root, spec: &SnapshotSpec, now: Timestamp) -> Result<(), AgentError> {
    let SnapshotSpec { program, credentials, endpoint, folder } = spec;
    let name = now.strftime("%Y%m%dT%H%M%SZ.db").to_string();
    let target = root.at(folder).join(&name);
    let [authority, certificate, key] = credentials;
    let output = Command::new(root.at(program))
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .arg(format!("--cacert={authority}"))
        .arg(format!("--cert={certificate}"))
        .arg(format!("--key={key}"))
        .args(["snapshot", "save"])
        .arg(&target)
        .output()
        .map_err(AgentError::file("run", &root.at(program)))?;
    if !output.status.success() {
        return Err(AgentError::Unit {
            what: "take a snapshot of etcd".to_owned(),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let mut names: Vec<String> = std::fs::read_dir(root.at(folder))
        .map_err(AgentError::file("list", &root.at(folder)))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".db"))
        .collect();
    names.sort();
    let old = names.len().saturating_sub(SNAPSHOTS);
    for name in &names[..old] {
        root.remove(&format!("{folder}/{name}"))?;
    }
    Ok(())
}
