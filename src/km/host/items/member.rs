//! How a host becomes a member of etcd.
//!
//! A cluster starts with one member; every other host joins it. It joins as a learner, which has no vote, so that a
//! member that fails to start costs no quorum. It gets its vote once it has caught up.
use serde_json::json;

use super::{Inspection, OnHost, Run};
use crate::host::AgentError;
use crate::host::etcd::{Etcd, read_members};
use crate::host::etcd_data;
use crate::host::files::Root;
use kmctl_core::protocol::host::{
    Change, DataState, ETCD_DATA, EtcdBootstrap, EtcdMember, EtcdStart, MemberSpec, Observed,
};

impl OnHost for MemberSpec {
    /// Compares whether the data exist.
    fn observe(&self, host: &mut Inspection<'_>) -> Result<Observed, AgentError> {
        Ok(if exists(host.root, self)? { Observed::Same } else { Observed::Missing })
    }

    fn apply(&self, run: &mut Run<'_, '_>) -> Result<Change, AgentError> {
        let change = prepare(run.host.root, self, &run.header.etcd)?;
        if change == Change::Created && run.header.etcd.begin_anew {
            // What runs has the old cluster in memory. An API server creates the objects that others need, such as their
            // roles, only when it starts.
            run.outdate_units()?;
        }
        Ok(change)
    }
}

/// Whether the host has been a member and has its data. A private root runs no etcd that would create them.
fn exists(root: &Root, spec: &MemberSpec) -> Result<bool, AgentError> {
    match root.is_host() {
        true => Ok(etcd_data::read(root)?.state() == DataState::Present),
        false => Ok(root.mode(&spec.environment).is_some()),
    }
}

/// Prepares the first start of a host without data.
fn prepare(root: &Root, spec: &MemberSpec, etcd: &EtcdBootstrap) -> Result<Change, AgentError> {
    let data = etcd_data::read(root)?;
    if exists(root, spec)? {
        if data.record.is_none() && root.is_host() {
            etcd_data::label(root, true)?;
        }
        return Ok(Change::Unchanged);
    }
    let start = etcd.start;
    if let DataState::Lost(loss) = data.state() {
        let begins = matches!(start, Some(EtcdStart::Bootstrap));
        if loss.may_return() || begins && !etcd.begin_anew {
            return Err(AgentError::Refused(format!("{ETCD_DATA} {loss}, and etcd has used it before")));
        }
    }
    let own = format!("{}={}", spec.name, spec.peer);
    let (members, state) = match start {
        None => {
            return Err(AgentError::Refused(format!(
                "etcd's data in {ETCD_DATA} are gone since the plan was made: run again"
            )));
        }
        Some(EtcdStart::Bootstrap) => (own, "new"),
        Some(EtcdStart::Join) if root.is_host() => (join(root, spec)?, "existing"),
        Some(EtcdStart::Join) => (own, "existing"),
    };
    let text = format!(
        "# Written by kmctl for the first start of etcd; later starts do not heed it.\n\
         ETCD_INITIAL_CLUSTER={members}\nETCD_INITIAL_CLUSTER_STATE={state}\n"
    );
    etcd_data::label(root, false)?;
    root.write(&spec.environment, 0o644, text.as_bytes())?;
    Ok(Change::Created)
}

/// Registers the host with the other members. A registration of a killed run is reused; a member whose data are gone is
/// replaced. Returns the member list for etcd's first start.
fn join(root: &Root, spec: &MemberSpec) -> Result<String, AgentError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |answer: String| AgentError::Refused(format!("{what}: {answer}"))
    };
    let etcd = Etcd::open(root, spec)?;
    let servers: Vec<&str> = spec.others.iter().map(String::as_str).collect();
    let members = etcd.members(&servers).map_err(failed("ask the other members of etcd"))?;
    let known = members.iter().find(|member| member.name == spec.name || member.peers.contains(&spec.peer));
    let registered = known.is_some_and(|member| member.name.is_empty());
    if let Some(lost) = known.filter(|_| !registered) {
        etcd.change(&servers, "remove", &json!({"ID": lost.id}))
            .map_err(failed("remove the member whose data are gone"))?;
        root.step();
    }
    let members = if registered {
        members
    } else {
        let body = json!({"peerURLs": [spec.peer], "isLearner": true});
        let answer = etcd.change(&servers, "add", &body).map_err(failed("add the host to etcd"))?;
        root.step();
        read_members(&answer)
    };
    Ok(initial_cluster(spec, &members))
}

/// etcd compares names and addresses with those of the other members; a member that has not started has no name yet.
fn initial_cluster(spec: &MemberSpec, members: &[EtcdMember]) -> String {
    let one = |member: &EtcdMember| {
        let own = member.peers.contains(&spec.peer);
        let name = match (own, member.name.as_str()) {
            (true, _) => spec.name.clone(),
            (false, "") => format!("member-{}", member.id),
            (false, name) => name.to_owned(),
        };
        member.peers.iter().map(|peer| format!("{name}={peer}")).collect::<Vec<_>>().join(",")
    };
    members.iter().map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::host::items) fn spec() -> MemberSpec {
        MemberSpec {
            name: "cp2".to_owned(),
            peer: "https://192.0.2.12:2380".to_owned(),
            local: "https://127.0.0.1:2379".to_owned(),
            others: vec!["https://192.0.2.11:2379".to_owned()],
            environment: "/etc/kubernetes/etcd-initial.env".to_owned(),
            authority: "/etc/kubernetes/pki/etcd/ca".to_owned(),
            client: "/etc/kubernetes/pki/client".to_owned(),
        }
    }

    fn starts(how: EtcdStart) -> EtcdBootstrap {
        EtcdBootstrap { start: Some(how), ..EtcdBootstrap::default() }
    }

    /// As etcd 3.4's gateway answers.
    pub(in crate::host::items) fn listed() -> Vec<EtcdMember> {
        read_members(&json!({"header": {"cluster_id": "1"}, "members": [
            {"ID": "10276657743932975437", "name": "cp1", "peerURLs": ["https://192.0.2.11:2380"],
             "clientURLs": ["https://192.0.2.11:2379"]},
            {"ID": "2", "peerURLs": ["https://192.0.2.12:2380"], "isLearner": true},
            {"ID": "3", "peerURLs": ["https://192.0.2.13:2380"], "isLearner": true}]}))
    }

    #[test]
    fn the_first_start_knows_every_member_also_those_without_a_name() {
        let expected = "cp1=https://192.0.2.11:2380,cp2=https://192.0.2.12:2380,member-3=https://192.0.2.13:2380";
        assert_eq!(initial_cluster(&spec(), &listed()), expected);
        assert_eq!(listed()[0].id, "10276657743932975437");
    }

    #[test]
    fn a_host_begins_or_joins_only_as_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path(), None);
        assert!(matches!(prepare(&root, &spec(), &EtcdBootstrap::default()), Err(AgentError::Refused(_))));
        assert_eq!(prepare(&root, &spec(), &starts(EtcdStart::Bootstrap)).unwrap(), Change::Created);
        let text = root.text("/etc/kubernetes/etcd-initial.env").unwrap().unwrap();
        assert!(text.ends_with("ETCD_INITIAL_CLUSTER=cp2=https://192.0.2.12:2380\nETCD_INITIAL_CLUSTER_STATE=new\n"));
        // Once it is a member, no instruction changes that.
        assert_eq!(prepare(&root, &spec(), &starts(EtcdStart::Join)).unwrap(), Change::Unchanged);
        assert_eq!(root.text("/etc/kubernetes/etcd-initial.env").unwrap().unwrap(), text);
    }
}
