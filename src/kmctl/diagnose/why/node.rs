//! Why a node does not start, or is not removed.
use super::drain::{keeping, pods};
use super::{Facts, span};
use crate::diagnose::{Answer, Kind, Reason};
use crate::inventory::mesos::EndedTask;
use crate::inventory::workloads::NodeView;
use kmctl_core::model::nodes::NodePhase;

/// A start that takes longer than this many seconds is reported as slow.
const SLOW: i64 = 120;

/// What blocks a node. `None` if no node or agent of that name is known.
pub(crate) fn node(name: &str, facts: &Facts<'_>) -> Option<Answer> {
    let about = format!("node {name}");
    let failure = failure(name, facts);
    let Some(view) = facts.seen.node(name) else {
        let agent = facts.master.ok()?.agents.iter().find(|agent| agent.hostname == name);
        if agent.is_none() && failure.is_none() {
            return None;
        }
        let mut reasons: Vec<Reason> = failure.into_iter().collect();
        if agent.is_some() {
            let text = "its Mesos agent exists";
            reasons.push(Reason::new(Kind::NoDemand, text, format!("kmctl why offer {name}")));
        }
        return Some(Answer { about, state: "does not exist".to_owned(), reasons, said: Vec::new() });
    };
    let (state, mut reasons) = match view.facts.phase {
        NodePhase::Candidate => candidate(view, facts),
        NodePhase::Starting => starting(view, facts),
        NodePhase::Ready => ready(view, facts),
        NodePhase::Leaving => leaving(view, facts),
    };
    if matches!(view.facts.phase, NodePhase::Candidate | NodePhase::Starting) {
        reasons.extend(failure);
    }
    if view.cordoned {
        let text = "cordoned: accepts no new pods";
        reasons.push(Reason::new(Kind::Node, text, format!("kubectl uncordon {name}")));
    }
    reasons.splice(0..0, facts.scheduler_trouble());
    let proxy = view.proxy_why.as_ref().map(|why| format!("kube-proxy does not use network.proxyMode: {why}"));
    Some(Answer { about, state, reasons, said: proxy.into_iter().collect() })
}

/// How the last start of a node of this name failed.
fn failure(name: &str, facts: &Facts<'_>) -> Option<Reason> {
    let task = format!("node.{name}");
    let last = facts.ended.iter().rev().find(|ended| ended.name == task)?;
    let EndedTask { state, message, at, .. } = last;
    if matches!(state.as_str(), "TASK_KILLED" | "TASK_FINISHED") {
        return None;
    }
    let ago = at.map_or(String::new(), |at| format!(" {} ago", span(facts.now.as_second() - at)));
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    Some(Reason::new(
        Kind::Bootstrap,
        format!("its last task ended{ago} as {state}{message}"),
        format!("check its log: kmctl logs node {name} (other agents are preferred for 5m)"),
    ))
}

fn candidate(view: &NodeView, facts: &Facts<'_>) -> (String, Vec<Reason>) {
    let state = format!("has been a candidate for {}", facts.since(view.created));
    let reason = if facts.bounds.min > 0 {
        Reason::passing(Kind::Time, "required by nodes.min; starts with the next offer of its agent")
    } else {
        Reason::passing(Kind::Time, "starts when kube-scheduler binds a pod to it, and is removed when no pod needs it")
    };
    (state, vec![reason])
}

fn starting(view: &NodeView, facts: &Facts<'_>) -> (String, Vec<Reason>) {
    let name = &view.facts.name;
    let since = view.created.map_or(0, |created| facts.now.as_second() - created.as_second());
    let task = view.facts.task.as_deref().unwrap_or_default();
    let tasks =
        facts.master.ok().into_iter().flat_map(|master| &master.frameworks).flat_map(|framework| &framework.tasks);
    let at = match tasks.into_iter().find(|found| found.id == task).map(|found| found.state.as_str()) {
        Some("TASK_STAGING") => "Mesos is fetching and starting km",
        Some("TASK_STARTING") => "node agent is fetching binaries and images and starting containerd and the kubelet",
        Some("TASK_RUNNING") => "kubelet has joined and is not ready yet",
        _ => "node task is not launched yet",
    };
    let state = format!("is starting, {} elapsed", span(since));
    let reason = if since > SLOW {
        Reason::new(Kind::Bootstrap, format!("slow start: {at}"), format!("check its log: kmctl logs node {name} -f"))
    } else {
        Reason::passing(Kind::Time, at)
    };
    let complaint = view.complaint.clone().map(|text| Reason::passing(Kind::Node, format!("kubelet: {text}")));
    (state, std::iter::once(reason).chain(complaint).collect())
}

fn ready(view: &NodeView, facts: &Facts<'_>) -> (String, Vec<Reason>) {
    let name = &view.facts.name;
    if !view.facts.ready {
        let why = view.complaint.as_deref().unwrap_or("no reason reported");
        let cure = format!("check its log with kmctl logs node {name}, and its agent with kmctl status");
        return ("is not Ready".to_owned(), vec![Reason::new(Kind::Node, why, cure)]);
    }
    let using: Vec<String> = facts.seen.keeping(name).map(|pod| pod.facts.full_name()).collect();
    if !using.is_empty() {
        let reason = Reason::new(
            Kind::Pods,
            format!("used by {}: {}", pods(using.len()), using.join(", ")),
            "lower the maximum to drain the cheapest nodes: kmctl scale --max N",
        );
        return ("is Ready and in use".to_owned(), vec![reason]);
    }
    let others =
        facts.seen.nodes.iter().filter(|node| node.facts.phase == NodePhase::Ready && node.facts.ready).count() - 1;
    if others < facts.bounds.min as usize {
        let text = format!("nodes.min is {}, and only {others} would be Ready without it", facts.bounds.min);
        return (
            "is Ready and idle".to_owned(),
            vec![Reason::new(Kind::NodesMin, text, format!("kmctl scale --min {others}"))],
        );
    }
    let text = format!("removed after {} without pods", facts.cluster.spec.nodes.idle_timeout);
    ("is Ready and idle".to_owned(), vec![Reason::passing(Kind::Time, text)])
}

fn leaving(view: &NodeView, facts: &Facts<'_>) -> (String, Vec<Reason>) {
    let why = if view.facts.why.is_empty() { String::new() } else { format!(": {}", view.facts.why) };
    let mut reasons = keeping(&view.facts.name, facts.seen, facts.now);
    if reasons.is_empty() {
        let text = "its pods have terminated; its executor stops within 90s";
        reasons.push(Reason::passing(Kind::Time, text));
    }
    (format!("is draining{why}"), reasons)
}
