//! Every kind of effect is produced by some event.
use std::collections::BTreeSet;

use super::bench::*;
use crate::scheduler::decide::{Answer, ApiRequest, Bounds, Effect, Event, MesosCall, NodeStep};
use mesos::types::{Bytes, TaskState, TaskStatus};

/// All kinds. The match in `listed` fails to compile for a new variant until it is listed.
const ALL: [&str; 25] = [
    "accept",
    "acknowledge",
    "answer_bind",
    "answer_filter",
    "answer_prioritize",
    "bind",
    "create_node",
    "decline",
    "delete_node",
    "delete_pod",
    "evict_pod",
    "explain",
    "kill",
    "list_agents",
    "mark_node",
    "nudge",
    "prepare_node",
    "publish_grant",
    "purge_done",
    "reconcile",
    "record",
    "renew_lease",
    "report",
    "revive",
    "suppress",
];

fn listed(effect: &Effect) -> &'static str {
    match effect {
        Effect::Mesos(MesosCall::Accept { .. })
        | Effect::Mesos(MesosCall::Acknowledge { .. })
        | Effect::Answer(_, Answer::Bind(_) | Answer::Filter { .. } | Answer::Prioritize(_))
        | Effect::Api(ApiRequest::Bind(_))
        | Effect::Api(ApiRequest::CreateNode(_))
        | Effect::Mesos(MesosCall::Decline { .. })
        | Effect::Api(ApiRequest::DeleteNode { .. })
        | Effect::Api(ApiRequest::DeletePod { .. })
        | Effect::Api(ApiRequest::EvictPod { .. })
        | Effect::Api(ApiRequest::Explain { .. })
        | Effect::Mesos(MesosCall::Kill { .. })
        | Effect::ListAgents
        | Effect::Api(ApiRequest::MarkNode { .. })
        | Effect::Api(ApiRequest::Nudge { .. })
        | Effect::Api(ApiRequest::PrepareNode { .. })
        | Effect::Api(ApiRequest::PublishGrant { .. })
        | Effect::Api(ApiRequest::PurgeDone { .. })
        | Effect::Mesos(MesosCall::Reconcile(_))
        | Effect::Api(ApiRequest::Record { .. })
        | Effect::Api(ApiRequest::RenewLease { .. })
        | Effect::Report(_)
        | Effect::Mesos(MesosCall::Revive)
        | Effect::Mesos(MesosCall::Suppress) => effect.kind(),
    }
}

#[test]
fn every_effect_is_produced() {
    let mut bench = Bench::new();
    let (node, task) = bench.running(&pod("web"), "agent1");
    bench.on(Event::Prioritize { request: 99, nodes: vec!["agent1".into()] });
    let waits = pod("waits");
    bench.pod(&waits);
    bench.seconds(3);
    bench.filter(&waits, &["agent1"]);
    bench.offer("agent1", 2.0, 2048.0);
    bench.seconds(2);
    bench.on(Event::PodGone(waits.uid.clone()));
    bench.on(Event::PodGone("uid-web".into()));
    bench.update(&task, TaskState::Killed);
    bench.on(Event::KnownAgents(Vec::new()));
    bench.on(Event::Bounds(Bounds { purge: true, ..Bounds::default() }));
    bench.update(&node, TaskState::Killed);
    bench.seconds(1);
    let (_, lost) = {
        let mut other = Bench::new();
        let (node, _) = other.running(&pod("lost"), "agent1");
        let effects = other.update(&node, TaskState::Failed);
        (other, effects)
    };
    bench.log.extend(lost);
    let mut shrinking = Bench::new();
    shrinking.running(&controlled("moves"), "agent1");
    bench.log.extend(shrinking.on(Event::Bounds(Bounds { max: Some(0), ..Bounds::default() })));
    bench.log.extend({
        let mut overwritten = Bench::new();
        overwritten.running(&pod("web"), "agent1");
        let mut seen = overwritten.pods["uid-web"].clone();
        seen.task = None;
        overwritten.on(Event::Pod(Box::new(seen)))
    });
    let seen: BTreeSet<&str> = bench.log.iter().map(listed).collect();
    let missing: Vec<&&str> = ALL.iter().filter(|kind| !seen.contains(**kind)).collect();
    assert!(missing.is_empty(), "never produced: {missing:?}");
}

#[test]
fn failures_of_effects_are_taken_in() {
    let mut bench = Bench::new();
    bench.pod(&pod("web"));
    bench.offer("agent1", 2.0, 2048.0);
    let failed = |step| Event::NodeFailed { node: "agent1".into(), step, why: "no".into() };
    let effects = bench.on(failed(NodeStep::Prepare));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Report(text) if text.contains("cannot be prepared"))));
    bench.on(Event::NodeGone("agent1".into()));
    bench.offer("agent1", 2.0, 2048.0);
    assert!(bench.on(failed(NodeStep::Create)).iter().any(|effect| effect.kind() == "report"));
}

#[test]
fn only_updates_with_an_id_are_acknowledged() {
    let mut bench = Bench::new();
    let mut status = TaskStatus::new("pod.x.00000000", TaskState::Lost);
    assert!(!bench.on(Event::Update(Box::new(status.clone()))).iter().any(|effect| effect.kind() == "acknowledge"));
    status.agent_id = Some("a".into());
    status.uuid = Some(Bytes(vec![7]));
    let effects = bench.on(Event::Update(Box::new(status)));
    assert!(effects.contains(&Effect::Mesos(MesosCall::Acknowledge {
        agent: "a".into(),
        task: "pod.x.00000000".into(),
        uuid: vec![7]
    })));
}
