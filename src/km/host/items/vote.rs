//! A member's vote in etcd.
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::etcd::{Etcd, others_first};
use crate::host::etcd_data;
use crate::host::events::Reporter;
use crate::host::files::Root;
use crate::host::http::Pause;
use kmctl_core::protocol::host::{Change, EtcdMember, Event, Kind, MemberSpec, Observed, VoteSpec};

/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(120);

impl OnHost for VoteSpec {
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        let observed = compare(&self.0, host.members.as_ref());
        // A run that was killed between etcd's start and its vote has left what configures the first start.
        let is_unfinished =
            || Ok::<_, AgentError>(etcd_data::read(host.root)?.record.is_some_and(|data| !data.started));
        Ok(match observed {
            Observed::Same if host.members.is_some() && is_unfinished()? => {
                Observed::different("its first start is not completed")
            }
            observed => observed,
        })
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        run.reporter.send(&Event::Started { item: self.name() })?;
        promote(run.host.root, self, run.reporter)
    }
}

/// Compares whether the member votes. `members` is etcd's answer, or none if etcd does not run.
fn compare(spec: &MemberSpec, members: Option<&Result<Vec<EtcdMember>, String>>) -> Observed {
    match members {
        // The run that starts etcd checks again.
        None => Observed::Same,
        Some(Err(error)) => Observed::Unknown { why: error.clone() },
        Some(Ok(members)) => match members.iter().find(|member| member.name == spec.name) {
            Some(member) if member.learner => Observed::different("it has no vote yet"),
            Some(_) => Observed::Same,
            None => Observed::different("etcd does not list it as a member"),
        },
    }
}

/// Waits until the host has caught up, and gives it its vote.
fn promote(root: &Root, vote: &VoteSpec, reporter: &mut Reporter<'_>) -> Result<Change, AgentError> {
    if !root.is_host() {
        return Ok(Change::Unchanged);
    }
    let (item, VoteSpec(spec)) = (vote.name(), vote);
    let etcd = Etcd::open(root, spec)?;
    let (started, mut told) = (Instant::now(), Instant::now());
    let (mut promoted, mut pause) = (false, Pause::new());
    loop {
        // The other members know whether it is a learner. A single member can only query itself.
        let last = match etcd.members(&others_first(spec)) {
            Err(error) => error,
            Ok(members) => match members.iter().find(|member| member.peers.contains(&spec.peer)) {
                None => "etcd does not list it as a member".to_owned(),
                Some(member) if !member.learner => {
                    etcd_data::started(root, &spec.environment)?;
                    return Ok(if promoted { Change::Updated } else { Change::Unchanged });
                }
                Some(member) => {
                    promoted = true;
                    match etcd.call(&others_first(spec), "promote", &json!({"ID": member.id})) {
                        Ok(_) => "etcd does not list its vote yet".to_owned(),
                        Err(error) => error,
                    }
                }
            },
        };
        let seconds = started.elapsed().as_secs();
        if started.elapsed() >= CATCH_UP {
            return Err(AgentError::Unhealthy { what: item, seconds, last });
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            reporter.send(&Event::Waiting { item: item.clone(), seconds, last })?;
        }
        pause.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::items::member::tests::{listed, spec};

    #[test]
    fn a_learner_differs_and_a_voter_does_not() {
        let of = |learner| {
            let member = EtcdMember { name: "cp2".to_owned(), learner, ..listed()[1].clone() };
            compare(&spec(), Some(&Ok(vec![member])))
        };
        assert_eq!(of(false), Observed::Same);
        assert_eq!(of(true), Observed::different("it has no vote yet"));
        assert_eq!(compare(&spec(), None), Observed::Same);
        assert!(matches!(compare(&spec(), Some(&Err("timeout".to_owned()))), Observed::Unknown { .. }));
    }
}
