//! Writes and calls that fail are repeated, with growing pauses.
use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Effect, Event, MesosCall, NodeStep};
use mesos::types::OfferId;

/// The seconds, counted from now, in which an effect occurs. Each occurrence fails if `failed` makes an event of it.
fn seconds_of(bench: &mut Bench, seconds: u64, failed: impl Fn(&Effect) -> Option<Event>) -> Vec<u64> {
    let mut at = Vec::new();
    for second in 1..=seconds {
        for event in bench.seconds(1).iter().filter_map(&failed).collect::<Vec<Event>>() {
            at.push(second);
            bench.on(event);
        }
    }
    at
}

fn publishes(effect: &Effect) -> bool {
    matches!(effect, Effect::Api(ApiRequest::PublishGrant { .. }))
}

#[test]
fn a_grant_that_could_not_be_published_is_published_again() {
    let mut bench = Bench::new();
    bench.running(&pod("web"), "agent1");
    let late = pod("late");
    bench.pod(&late);
    bench.offer("agent1", 2.0, 2048.0);
    bench.refuses = Some(NodeStep::Publish);
    bench.bind(&late, "agent1");
    let tries = bench.seconds(120).iter().filter(|effect| publishes(effect)).count();
    assert!((7..=9).contains(&tries), "after 1, 2, 4, 8, 16, 32 and 60 s: {tries}");
    bench.refuses = None;
    let tries = bench.seconds(300).iter().filter(|effect| publishes(effect)).count();
    assert_eq!(tries, 1, "until it is stored");
}

fn declined(effects: &[Effect]) -> Vec<(Vec<OfferId>, u32)> {
    let declined = effects.iter().filter_map(|effect| match effect {
        Effect::Mesos(MesosCall::Decline { offers, seconds }) => Some((offers.clone(), *seconds)),
        _ => None,
    });
    declined.collect()
}

#[test]
fn offers_that_could_not_be_declined_are_declined_again() {
    let mut bench = Bench::new();
    let stray = bench.offer("agent1", 2.0, 2048.0);
    let [(offers, seconds)] = declined(&stray).try_into().unwrap();
    let failed = Event::OffersNotReturned { offers: offers.clone(), seconds };
    bench.on(failed.clone());
    assert_eq!(declined(&bench.seconds(2)), [(offers.clone(), seconds)]);
    assert_eq!(declined(&bench.seconds(60)), [], "once, if that did not fail");
    bench.on(failed.clone());
    let again = seconds_of(&mut bench, 100, |effect| {
        matches!(effect, Effect::Mesos(MesosCall::Decline { .. })).then(|| failed.clone())
    });
    assert_eq!(again, [1, 3, 7, 15, 31, 61, 91]);
}

#[test]
fn offers_that_are_void_are_not_declined_again() {
    for void in ["rescinded", "new stream"] {
        let mut bench = Bench::new();
        let stray = bench.offer("agent1", 2.0, 2048.0);
        let [(offers, seconds)] = declined(&stray).try_into().unwrap();
        bench.on(Event::OffersNotReturned { offers: offers.clone(), seconds });
        if void == "rescinded" {
            bench.on(Event::Rescinded(offers[0].value.clone()));
        } else {
            bench.on(Event::Disconnected);
            bench.on(Event::Subscribed);
            bench.answer_sentinel();
        }
        assert_eq!(declined(&bench.seconds(10)), [], "{void}");
    }
}
