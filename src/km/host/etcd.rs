//! Requests about etcd's members, through etcd's own JSON gateway (`/v3/cluster/member/…`, etcd's api_grpc_gateway
//! document).
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::http::{Http, Pause};
use kmctl_core::protocol::host::{Change, EtcdMember, Event, LeaveRequest, MemberSpec};

/// How long etcd may refuse a change of its members because one of them was added a moment ago: it requires five
/// seconds of connection to all of them.
const SETTLE: Duration = Duration::from_secs(60);

/// etcd, reached with the host's own client certificate.
pub(super) struct Etcd {
    http: Http,
}

impl Etcd {
    pub(super) fn open(root: &Root, spec: &MemberSpec) -> Result<Self, AgentError> {
        let read = |path: String| -> Result<String, AgentError> { Ok(root.text(&path)?.unwrap_or_default()) };
        let authority = read(format!("{}.crt", spec.authority))?;
        let (certificate, key) = (read(format!("{}.crt", spec.client))?, read(format!("{}.key", spec.client))?);
        Ok(Etcd { http: Http::new(Some(&authority), Some((&certificate, &key)))? })
    }

    /// The answer of the first member that gives one, otherwise the last error.
    pub(super) fn call(&self, servers: &[&str], path: &str, body: &Value) -> Result<Value, String> {
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
    pub(super) fn change(&self, servers: &[&str], path: &str, body: &Value) -> Result<Value, String> {
        let (started, mut pause) = (Instant::now(), Pause::new());
        loop {
            match self.call(servers, path, body) {
                Err(error) if may_work_later(&error) && started.elapsed() < SETTLE => pause.wait(),
                answer => return answer,
            }
        }
    }

    pub(super) fn members(&self, servers: &[&str]) -> Result<Vec<EtcdMember>, String> {
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

pub(super) fn read_members(answer: &Value) -> Vec<EtcdMember> {
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
pub(super) fn own_first(spec: &MemberSpec) -> Vec<&str> {
    std::iter::once(spec.local.as_str()).chain(spec.others.iter().map(String::as_str)).collect()
}

pub(super) fn others_first(spec: &MemberSpec) -> Vec<&str> {
    spec.others.iter().map(String::as_str).chain(std::iter::once(spec.local.as_str())).collect()
}

/// All members.
pub(crate) fn list(root: &Root, spec: &MemberSpec) -> Result<Vec<EtcdMember>, String> {
    Etcd::open(root, spec).map_err(|error| error.to_string())?.members(&own_first(spec))
}

/// Removes a member. The remaining members must be a quorum of the current ones, which etcd itself enforces.
pub(crate) fn leave(root: &Root, request: &LeaveRequest, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let LeaveRequest { cluster, member, name, holder } = request;
    super::identity::check(root, cluster, &member.name)?;
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

    #[test]
    fn a_member_that_came_a_moment_ago_is_no_reason_to_give_up() {
        assert!(may_work_later("https://10.88.0.12:2379: status 503: etcdserver: unhealthy cluster"));
        assert!(may_work_later("https://10.88.0.12:2379: status 412: etcdserver: too many learner members in cluster"));
        assert!(!may_work_later("https://10.88.0.12:2379: status 400: etcdserver: Peer URLs already exists"));
    }
}
