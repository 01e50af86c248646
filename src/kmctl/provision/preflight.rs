//! What `up` checks before it installs anything on a host that is not part of the cluster yet. A finding that `kmctl
//! check` reports as an error prevents `up` from changing any host.
use super::clients;
use super::inspect::{InspectedHost, Inspection};
use super::session::Session;
use crate::failure::{Code, Failure};
use crate::inventory::machine::{self, Machine};
use crate::plan::preflight::{Finding, Level, judge_clocks, judge_machine, judge_master};
use kmctl_core::cluster::Loaded;

/// Fails if a new host does not meet the requirements, or if Mesos does not and no running cluster should continue
/// without it.
///
/// # Errors
/// The first finding, after a line for each of the others, or that a host or Mesos could not be queried.
pub(super) async fn check_new_hosts(
    session: &Session,
    loaded: &Loaded,
    inspection: &Inspection,
    begins: bool,
) -> Result<(), Failure> {
    let new: Vec<&InspectedHost> =
        inspection.inspected.iter().filter(|one| !one.found.has_units(&one.manifest)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let first_install = new.len() == inspection.inspected.len() && (begins || inspection.late.is_empty());
    let step = session.progress.step("", "Checking new hosts");
    let errors = match errors(loaded, &new, first_install).await {
        Ok(errors) if errors.is_empty() => {
            step.done("New hosts passed preflight checks");
            return Ok(());
        }
        Ok(errors) => {
            step.failed("preflight checks failed");
            errors
        }
        Err(failure) => {
            step.failed("failed");
            return Err(failure);
        }
    };
    let mut errors = errors.into_iter();
    let Some(Finding { about, text, cure, .. }) = errors.next() else { return Ok(()) };
    for other in errors {
        session.progress.note(&other.about, &format!("{}; {}", other.text, other.cure));
    }
    Err(Failure::message(Code::Failed, format!("preflight check failed on {about}: {text}; nothing was changed"))
        .hint(format!("{cure}; check again with `kmctl check`")))
}

async fn errors(loaded: &Loaded, new: &[&InspectedHost], first_install: bool) -> Result<Vec<Finding>, Failure> {
    let looks = new
        .iter()
        .map(|one| async { Ok::<_, Failure>((one.manifest.host.as_str(), machine::look(one.host.as_ref()).await?)) });
    let ask = async {
        match new.first() {
            Some(one) if first_install => Some(clients::master(one.host.clone(), loaded).await),
            _ => None,
        }
    };
    let (machines, master) = tokio::join!(futures::future::try_join_all(looks), ask);
    let machines = machines?;
    let mut findings = judge(&machines);
    if let Some(master) = master {
        let master = master.map_err(|failure| {
            let (text, hint) = clients::text_and_hint(&failure);
            Failure::message(
                Code::Failed,
                format!("preflight check failed: Mesos query failed: {text}; nothing was changed"),
            )
            .hint(format!("{hint}; check again with `kmctl check`"))
        })?;
        findings.extend(judge_master(&loaded.cluster, &master));
    }
    findings.retain(|finding| finding.level == Level::Error);
    Ok(findings)
}

fn judge(machines: &[(&str, Machine)]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = machines.iter().flat_map(|(host, machine)| judge_machine(host, machine)).collect();
    let clocks: Vec<_> = machines.iter().map(|(host, machine)| (*host, machine)).collect();
    findings.extend(judge_clocks(&clocks));
    findings
}
