//! How a command fails on several hosts at once.
use super::inspect::Inspection;
use super::session::Session;
use crate::apply::{ApplyError, Report};
use crate::failure::{Code, Failure};
use crate::plan::Plan;

/// Combines the failures of some of `hosts` hosts into one. The others are reported before it.
pub(super) fn of_hosts(session: &Session, errors: Vec<ApplyError>, hosts: usize) -> Failure {
    let count = errors.len();
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Failure::message(Code::Failed, "failed") };
    for error in errors {
        let causes: Vec<String> = anyhow::Error::new(error).chain().map(ToString::to_string).collect();
        session.progress.note("", &causes.join(": "));
    }
    match &first {
        ApplyError::Locked { .. } => {
            Failure::new(Code::Locked, first).hint("wait for the other command to finish, then run the command again")
        }
        ApplyError::NoBundle { .. } => Failure::new(Code::Invalid, first)
            .hint("set the path of the bundle in cluster.yaml: `bundle: ./kubernetes.bundle`"),
        ApplyError::Bundle(_) => {
            Failure::new(Code::Invalid, first).hint("create the bundle again: `kmctl bundle create`")
        }
        ApplyError::Unreachable { source, .. } => {
            // The error of a refused login has its own hint.
            let known = source.hint().is_some();
            let failure = Failure::new(Code::SomeHosts, first);
            if known { failure } else { failure.hint("run the command again when the host is reachable") }
        }
        _ if count < hosts => {
            Failure::new(Code::SomeHosts, first).hint("run the command again; it resumes where it stopped")
        }
        _ => Failure::new(Code::Failed, first).hint("run the command again; it resumes where it stopped"),
    }
}

/// The failure of a command that continued after errors, if there were any.
pub(super) fn of_some(session: &Session, errors: Vec<(String, ApplyError)>, hosts: usize) -> Option<Failure> {
    let errors: Vec<ApplyError> = errors.into_iter().map(|(_, error)| error).collect();
    (!errors.is_empty()).then(|| of_hosts(session, errors, hosts))
}

/// The failure of a command that could not inspect all hosts.
pub(super) fn of_inspection(session: &Session, inspection: Inspection, hosts: usize) -> Option<Failure> {
    of_some(session, inspection.failed, hosts)
}

/// Fails if a host failed or was skipped, or if an etcd member that should have been removed still exists.
pub(super) fn of_report(session: &Session, report: Report, plan: &Plan) -> Result<(), Failure> {
    let (hosts, departed) = (report.hosts.len(), report.departed);
    let errors: Vec<ApplyError> = report.hosts.into_iter().filter_map(|outcome| outcome.error).collect();
    if !errors.is_empty() {
        return Err(of_hosts(session, errors, hosts));
    }
    let Some(left) = plan.departures.iter().filter(|one| one.remove).nth(departed) else { return Ok(()) };
    let text = format!("failed to remove {} from etcd: no healthy member", left.member);
    Err(Failure::message(Code::Failed, text).hint("check the status of etcd: kmctl status"))
}
