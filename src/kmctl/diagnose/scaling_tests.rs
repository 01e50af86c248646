//! Previews, progress and obstacles in a small world.
use serde_json::json;

use super::*;
use crate::diagnose::fixtures::*;

fn at(min: u32, max: Option<u32>) -> Bounds {
    Bounds { min, max }
}

/// `agent1` with one pod, `agent2` with two of which one has no controller, `agent3` starting.
fn three() -> Workloads {
    workloads(
        vec![node("agent1", "ready"), node("agent2", "ready"), node("agent3", "starting")],
        vec![
            pod("a", Some("agent1"), json!({})),
            pod("b", Some("agent2"), json!({})),
            pod("c", Some("agent2"), bare()),
            pod("d", None, json!({})),
        ],
        vec![pdb("web", 0)],
    )
}

fn situation<'a>(cluster: &'a Cluster, seen: &'a Workloads, master: &'a Master, summary: &'a Summary) -> Situation<'a> {
    Situation { cluster, seen, master: Some(master), scheduler: Some(summary), now: now() }
}

#[test]
fn a_preview_names_who_goes_who_stays_and_what_will_be_in_the_way() {
    let (cluster, seen, summary) = (cluster(), three(), acting());
    let master = master(vec![agent("agent1", 1.0, 1024.0), agent("agent4", 3.9, 512.0)]);
    let situation = situation(&cluster, &seen, &master, &summary);
    let cases = [(at(0, Some(1)), "one"), (at(3, Some(3)), "same"), (at(5, None), "more"), (at(0, Some(0)), "none")];
    for (bounds, name) in cases {
        insta::assert_snapshot!(name, preview(bounds, &situation).join("\n"));
    }
}

#[test]
fn bounds_hold_when_enough_nodes_are_ready_and_not_too_many_are_there() {
    let seen = three();
    let cases = [
        (at(2, Some(3)), true, ""),
        (at(3, Some(3)), false, "2 of 3 nodes ready; agent3 is starting"),
        (at(0, Some(2)), false, "3 nodes, maximum is 2; agent3 is starting"),
        (at(0, None), true, ""),
    ];
    for (bounds, done, text) in cases {
        assert_eq!(progress(bounds, &seen), Progress { done, text: text.to_owned() });
    }
}

#[test]
fn what_is_in_the_way_is_told_with_figures_and_a_cure() {
    let cluster = cluster();
    let busy = master(vec![agent("agent1", 1.0, 1024.0), agent("agent4", 3.9, 512.0)]);
    let free = master(vec![agent("agent4", 0.0, 0.0)]);
    let none = master(Vec::new());
    let leaving = || {
        workloads(
            vec![node("agent1", "ready"), node("agent2", "leaving")],
            vec![
                pod("a", Some("agent2"), json!({})),
                pod("b", Some("agent2"), bare()),
                pod("c", Some("agent2"), json!({"metadata": {"deletionTimestamp": "2026-11-24T12:00:05Z"}})),
            ],
            vec![pdb("web", 0)],
        )
    };
    let alone = || workloads(vec![node("agent1", "ready")], Vec::new(), Vec::new());
    let cases = [
        ("others use the agent", alone(), &busy, acting(), at(2, None), vec![Kind::Taken]),
        ("offers are on their way", alone(), &free, acting(), at(2, None), vec![Kind::Time]),
        ("there are no more agents", alone(), &none, acting(), at(3, None), vec![Kind::Agents]),
        ("no connection", alone(), &free, Summary::default(), at(1, None), vec![Kind::Scheduler]),
        (
            "pods that cannot move",
            leaving(),
            &free,
            acting(),
            at(0, Some(1)),
            vec![Kind::NoController, Kind::Budget, Kind::Ending],
        ),
        ("bounds that hold", leaving(), &free, acting(), at(0, Some(2)), vec![]),
    ];
    for (name, seen, master, summary, bounds, kinds) in cases {
        let reasons = obstacles(bounds, &situation(&cluster, &seen, master, &summary));
        assert_eq!(reasons.iter().map(|reason| reason.kind).collect::<Vec<_>>(), kinds, "{name}: {reasons:?}");
        let waits = kinds.is_empty() || kinds == [Kind::Time] || kinds == [Kind::Taken];
        assert_eq!(needs_somebody(&reasons), !waits, "{name}");
    }
    let (seen, summary) = (leaving(), acting());
    let reasons = obstacles(at(0, Some(1)), &situation(&cluster, &seen, &free, &summary));
    let told: Vec<String> = reasons.iter().map(|reason| format!("{}\n  do: {}", reason.what, reason.cure)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn every_node_says_why_it_is_there() {
    let (cluster, summary) = (cluster(), acting());
    let master = master(Vec::new());
    let seen = workloads(
        vec![node("used", "ready"), node("idle", "ready"), node("gone", "leaving"), node("new", "candidate")],
        vec![pod("a", Some("used"), json!({})), pod("b", Some("gone"), json!({}))],
        Vec::new(),
    );
    let situation = situation(&cluster, &seen, &master, &summary);
    let told = |bounds: Bounds| crate::diagnose::scaling_report::Shown::new(bounds, &situation).text();
    insta::assert_snapshot!(format!("{}---\n{}", told(at(0, None)), told(at(2, Some(2)))));
}
