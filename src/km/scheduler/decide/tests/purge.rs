//! The end of a purge: what is reported of agents that could not be cleaned, and how it is recorded.
use std::collections::BTreeMap;

use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Bounds, Effect, Event};
use mesos::types::TaskState;

fn purge() -> Event {
    Event::Bounds(Bounds { purge: true, ..Bounds::default() })
}

/// What each recorded end of a purge says of agents that are not cleaned.
fn ends(effects: &[Effect]) -> Vec<BTreeMap<String, String>> {
    let ends = effects.iter().filter_map(|effect| match effect {
        Effect::Api(ApiRequest::PurgeDone { uncleaned }) => Some(uncleaned.clone()),
        _ => None,
    });
    ends.collect()
}

/// An agent that had a node, and whose sweep has just ended.
fn swept() -> (Bench, Vec<Effect>) {
    let mut bench = Bench::new();
    bench.on(Event::KnownAgents(vec!["id-agent1".into()]));
    bench.on(purge());
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    let effects = bench.update(&sweep, TaskState::Finished);
    (bench, effects)
}

#[test]
fn an_agent_without_an_offer_is_named_as_not_cleaned() {
    let mut bench = Bench::new();
    bench.on(Event::KnownAgents(vec!["id-agent1".into(), "id-agent2".into()]));
    let mut effects = bench.on(purge());
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    effects.extend(bench.update(&sweep, TaskState::Finished));
    effects.extend(bench.seconds(290));
    assert!(ends(&effects).is_empty(), "the other agent may still make an offer");
    let [uncleaned] = ends(&bench.seconds(20)).try_into().unwrap();
    let expected = BTreeMap::from([("id-agent2".to_owned(), "it made no offer within 300s".to_owned())]);
    assert_eq!(uncleaned, expected);
}

#[test]
fn an_agent_whose_sweep_fails_is_named_as_not_cleaned() {
    let mut bench = Bench::new();
    bench.on(Event::KnownAgents(vec!["id-agent1".into()]));
    bench.on(purge());
    let mut effects = Vec::new();
    for _ in 0..3 {
        bench.offer("agent1", 2.0, 2048.0);
        let sweep = accepted(&bench.log).pop().unwrap();
        effects.extend(bench.update(&sweep, TaskState::Failed));
    }
    let [uncleaned] = ends(&effects).try_into().unwrap();
    assert_eq!(uncleaned.keys().collect::<Vec<_>>(), ["agent1 (id-agent1)"]);
    assert!(uncleaned["agent1 (id-agent1)"].starts_with("its sweep ended as TASK_FAILED"), "{uncleaned:?}");
}

#[test]
fn an_end_of_a_purge_that_could_not_be_recorded_is_recorded_again() {
    let (mut bench, effects) = swept();
    assert_eq!(ends(&effects), [BTreeMap::new()]);
    bench.on(Event::PurgeNotRecorded);
    assert_eq!(ends(&bench.seconds(2)), [BTreeMap::new()]);
    bench.on(Event::PurgeNotRecorded);
    assert!(ends(&bench.wait(std::time::Duration::from_millis(1500))).is_empty(), "later each time");
    assert_eq!(ends(&bench.seconds(2)), [BTreeMap::new()]);
    assert!(ends(&bench.seconds(60)).is_empty());
}

#[test]
fn a_purge_that_is_requested_again_after_its_end_starts_over() {
    let (mut bench, _) = swept();
    bench.on(Event::Bounds(Bounds { purge: true, purged: true, ..Bounds::default() }));
    bench.on(purge());
    bench.offer("agent1", 2.0, 2048.0);
    let sweep = accepted(&bench.log).pop().unwrap();
    assert_eq!(ends(&bench.update(&sweep, TaskState::Finished)), [BTreeMap::new()]);
}
