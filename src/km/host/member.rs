//! etcd's membership: how a host becomes a member, gets its vote, and how a lost member is removed.
//!
//! A cluster starts with one member; every other host joins it. It joins as a learner, which has no vote, so that a
//! member that fails to start costs no quorum. It gets its vote once it has caught up. Requests use etcd's own JSON
//! gateway (`/v3/cluster/member/…`, etcd's api_grpc_gateway document).
use kmctl_core::protocol::host::EtcdMember;
use kmctl_core::protocol::host::EtcdStart;
use kmctl_core::protocol::host::LeaveRequest;
use kmctl_core::protocol::host::MemberSpec;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::http::{Http, Pause};
use kmctl_core::protocol::host::Observed;
use kmctl_core::protocol::host::{Change, Event};

/// How long a new member may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(120);

/// How long etcd may refuse a change of its members because one of them was added a moment ago: it requires five
/// seconds of connection to all of them.
const SETTLE: Duration = Duration::from_secs(60);

struct Etcd {
    http: Http,
}

impl Etcd {
    fn open(root: &Root, spec: &MemberSpec) -> Result<Self, AgentError> {
        let read = |path: String| -> Result<String, AgentError> { Ok(root.text(&path)?.unwrap_or_default()) };
        let authority = read(format!("{}.crt", spec.authority))?;
        let (certificate, key) = (read(format!("{}.crt", spec.client))?, read(format!("{}.key", spec.client))?);
        Ok(Etcd { http: Http::new(Some(&authority), Some((&certificate, &key)))? })
    }

    /// The answer of the first member that gives one, otherwise the last error.
    fn call(&self, servers: &[&str], path: &str, body: &Value) -> Result<Value, String> {
        let mut last = "there is no other member to ask".to_owned();
        for server in servers {
            let url = format!("{server}/v3/cluster/member/{path}");
            let body = ("application/json", body.to_string().into_bytes());
            match self.http.request(Method::POST, &url, Some(body)) {
                Ok((200, body)) => return serde_json::from_str(&body).map_err(|error| error.to_string()),
                Ok((status, body)) => last = format!("{server}: status {status}: {}", message(&body)),
                Err(error) => last = format!("{server}: {error}"),
            }
        }
        Err(last)
    }

    /// Like `call`, for a change. It is repeated while etcd answers that it may work later.
    fn change(&self, servers: &[&str], path: &str, body: &Value) -> Result<Value, String> {
        let (started, mut pause) = (Instant::now(), Pause::new());
        loop {
            match self.call(servers, path, body) {
                Err(error) if may_work_later(&error) && started.elapsed() < SETTLE => pause.wait(),
                answer => return answer,
            }
        }
    }

    fn members(&self, servers: &[&str]) -> Result<Vec<EtcdMember>, String> {
        self.call(servers, "list", &json!({})).map(|answer| read_members(&answer))
    }
}

/// etcd's own messages (its `rpctypes`): a member is not connected yet, there is no leader, or a member that was added
/// before has not started.
fn may_work_later(answer: &str) -> bool {
    let words = ["unhealthy cluster", "no leader", "leader changed", "not enough started members", "too many learner"];
    words.iter().any(|words| answer.contains(words))
}

fn message(body: &str) -> String {
    let parsed: Value = serde_json::from_str(body).unwrap_or_default();
    parsed["message"].as_str().or(parsed["error"].as_str()).unwrap_or(body.trim()).to_owned()
}

fn read_members(answer: &Value) -> Vec<EtcdMember> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let member = |member: &Value| EtcdMember {
        id: text(&member["ID"]),
        name: text(&member["name"]),
        peers: member["peerURLs"].as_array().into_iter().flatten().map(text).collect(),
        learner: member["isLearner"].as_bool().unwrap_or_default(),
    };
    answer["members"].as_array().into_iter().flatten().map(member).collect()
}

/// A learner does not answer requests about members, so its own server is queried first only where that adds one more
/// source.
fn own_first(spec: &MemberSpec) -> Vec<&str> {
    std::iter::once(spec.local.as_str()).chain(spec.others.iter().map(String::as_str)).collect()
}

fn others_first(spec: &MemberSpec) -> Vec<&str> {
    spec.others.iter().map(String::as_str).chain(std::iter::once(spec.local.as_str())).collect()
}

/// All members.
pub(crate) fn list(root: &Root, spec: &MemberSpec) -> Result<Vec<EtcdMember>, String> {
    Etcd::open(root, spec).map_err(|error| error.to_string())?.members(&own_first(spec))
}

/// Whether the host has been a member. A private root runs no etcd that would create the data.
fn exists(root: &Root, spec: &MemberSpec) -> bool {
    if root.is_host() { root.is_directory(&spec.data) } else { root.mode(&spec.environment).is_some() }
}

/// Compares whether the data exist.
pub(crate) fn observe(root: &Root, spec: &MemberSpec) -> Observed {
    if exists(root, spec) { Observed::Same } else { Observed::Missing }
}

/// Compares whether the member votes. `members` is etcd's answer, or none if etcd does not run.
pub(crate) fn observe_vote(spec: &MemberSpec, members: Option<&Result<Vec<EtcdMember>, String>>) -> Observed {
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

/// Prepares the first start of a host without data.
pub(crate) fn apply(root: &Root, spec: &MemberSpec, start: Option<EtcdStart>) -> Result<Change, AgentError> {
    if exists(root, spec) {
        return Ok(Change::Unchanged);
    }
    let own = format!("{}={}", spec.name, spec.peer);
    let (members, state) = match start {
        None => return Err(AgentError::Refused(format!("{} is gone since the plan was made: run again", spec.data))),
        Some(EtcdStart::Bootstrap) => (own, "new"),
        Some(EtcdStart::Join) if root.is_host() => (join(root, spec)?, "existing"),
        Some(EtcdStart::Join) => (own, "existing"),
    };
    let text = format!(
        "# Written by kmctl for the first start of etcd; later starts do not heed it.\n\
         ETCD_INITIAL_CLUSTER={members}\nETCD_INITIAL_CLUSTER_STATE={state}\n"
    );
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

/// Waits until the host has caught up, and gives it its vote.
pub(crate) fn promote(root: &Root, spec: &MemberSpec, reporter: &mut Reporter<'_>) -> Result<Change, AgentError> {
    if !root.is_host() {
        return Ok(Change::Unchanged);
    }
    let item = kmctl_core::protocol::host::Item::Vote(spec.clone()).name();
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

/// Removes a member. The remaining members must be a quorum of the current ones, which etcd itself enforces.
pub(crate) fn leave(root: &Root, request: &LeaveRequest, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let LeaveRequest { member, name, holder } = request;
    let _lock = super::lock::take(root, holder.clone())?;
    let item = format!("etcd member {name}");
    let refused = |answer: String| AgentError::Refused(format!("remove {name} from etcd: {answer}"));
    let etcd = Etcd::open(root, member)?;
    let members = etcd.members(&own_first(member)).map_err(refused)?;
    let Some(leaving) = members.iter().find(|one| one.name == *name) else {
        return reporter.done(item, Change::Unchanged);
    };
    if *name == member.name || members.len() < 2 {
        return Err(AgentError::Refused(format!("{name} is the member that would be asked to remove itself")));
    }
    reporter.send(&Event::Started { item: item.clone() })?;
    etcd.change(&own_first(member), "remove", &json!({"ID": leaving.id})).map_err(refused)?;
    reporter.done(item, Change::Removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> MemberSpec {
        MemberSpec {
            name: "cp2".to_owned(),
            peer: "https://192.0.2.12:2380".to_owned(),
            local: "https://127.0.0.1:2379".to_owned(),
            others: vec!["https://192.0.2.11:2379".to_owned()],
            data: "/var/lib/etcd/member".to_owned(),
            environment: "/etc/kubernetes/etcd-initial.env".to_owned(),
            authority: "/etc/kubernetes/pki/etcd/ca".to_owned(),
            client: "/etc/kubernetes/pki/client".to_owned(),
        }
    }

    /// As etcd 3.4's gateway answers.
    fn listed() -> Vec<EtcdMember> {
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
    fn a_member_that_came_a_moment_ago_is_no_reason_to_give_up() {
        assert!(may_work_later("https://10.88.0.12:2379: status 503: etcdserver: unhealthy cluster"));
        assert!(may_work_later("https://10.88.0.12:2379: status 412: etcdserver: too many learner members in cluster"));
        assert!(!may_work_later("https://10.88.0.12:2379: status 400: etcdserver: Peer URLs already exists"));
    }

    #[test]
    fn a_learner_differs_and_a_voter_does_not() {
        let of = |learner| {
            let member = EtcdMember { name: "cp2".to_owned(), learner, ..listed()[1].clone() };
            observe_vote(&spec(), Some(&Ok(vec![member])))
        };
        assert_eq!(of(false), Observed::Same);
        assert_eq!(of(true), Observed::different("it has no vote yet"));
        assert_eq!(observe_vote(&spec(), None), Observed::Same);
        assert!(matches!(observe_vote(&spec(), Some(&Err("timeout".to_owned()))), Observed::Unknown { .. }));
    }

    #[test]
    fn a_host_begins_or_joins_only_as_it_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path(), None);
        assert!(matches!(apply(&root, &spec(), None), Err(AgentError::Refused(_))));
        assert_eq!(apply(&root, &spec(), Some(EtcdStart::Bootstrap)).unwrap(), Change::Created);
        let text = root.text("/etc/kubernetes/etcd-initial.env").unwrap().unwrap();
        assert!(text.ends_with("ETCD_INITIAL_CLUSTER=cp2=https://192.0.2.12:2380\nETCD_INITIAL_CLUSTER_STATE=new\n"));
        // Once it is a member, no instruction changes that.
        assert_eq!(apply(&root, &spec(), Some(EtcdStart::Join)).unwrap(), Change::Unchanged);
        assert_eq!(root.text("/etc/kubernetes/etcd-initial.env").unwrap().unwrap(), text);
    }
}
