//! When offers are wanted, which agents are woken, and what is reported for waiting pods.
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};

use super::bench::*;
use crate::scheduler::decide::{Bounds, Effect, Event, MesosCall, Refused};
use kmctl_core::cluster::Constraint;
use kmctl_core::model::pods::PodFacts;
use mesos::types::{AgentInfo, Attribute, Resource};

fn cpus(name: &str, cpus: &str) -> PodFacts {
    pod_with(
        name,
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpus, "memory": "64Mi"}}}]}}),
    )
}

fn agent_info(name: &str, cpus: f64) -> AgentInfo {
    AgentInfo {
        hostname: name.into(),
        id: Some(format!("id-{name}").into()),
        resources: vec![Resource::scalar("cpus", cpus), Resource::scalar("mem", 4096.0)],
        attributes: vec![Attribute::text("rack", format!("rack-{name}"))],
        ..AgentInfo::default()
    }
}

/// The label that differs from agent to agent.
const ZONE: &str = "topology.kubernetes.io/zone";

/// At most one pod more in a domain of `key` than in any other.
fn spreading(key: &str) -> Value {
    json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}])
}

fn spread(name: &str, key: &str) -> PodFacts {
    pod_with(name, json!({"spec": {"topologySpreadConstraints": spreading(key)}}))
}

#[test]
fn with_nothing_pending_no_offer_is_held_and_none_is_wanted() {
    let mut bench = Bench::new();
    assert!(bench.core.summary().suppressed);
    let stray = bench.offer("agent1", 2.0, 2048.0);
    assert!(matches!(stray.as_slice(), [Effect::Mesos(MesosCall::Decline { seconds: 3600, .. })]), "{stray:?}");
    bench.running(&pod("web"), "agent1");
    assert!(bench.core.summary().suppressed);
    let left = bench.offer("agent1", 1.0, 1024.0);
    assert!(matches!(left.as_slice(), [Effect::Mesos(MesosCall::Decline { seconds: 3600, .. })]), "{left:?}");
    assert_eq!(bench.core.summary().offers, 0);
    assert_eq!(kinds(&bench.seconds(60)), Vec::<&str>::new(), "and it stays so");
}

#[test]
fn offers_that_help_nobody_go_back_and_held_ones_not_used_too() {
    let mut bench = Bench::new();
    bench.pod(&cpus("big", "3"));
    let small = bench.offer("agent1", 1.0, 4096.0);
    assert!(
        small.iter().any(|effect| matches!(effect, Effect::Mesos(MesosCall::Decline { seconds: 60, .. }))),
        "{small:?}"
    );
    bench.offer("agent2", 4.0, 4096.0);
    assert_eq!(bench.core.summary().offers, 1);
    let later = bench.seconds(31);
    assert!(later.iter().any(|effect| matches!(effect, Effect::Mesos(MesosCall::Decline { seconds: 5, .. }))));
}

#[test]
fn an_offer_of_another_role_is_declined() {
    let mut bench = Bench::new();
    bench.pod(&pod("web"));
    let mut offer = bench.offer_of("agent1", 2.0, 2048.0);
    offer.allocation_info = Resource::scalar("", 0.0).allocated_to("other").allocation_info;
    assert_eq!(kinds(&bench.on(Event::Offers(vec![offer]))), ["decline"]);
}

#[test]
fn no_more_agents_are_woken_than_pending_pods_need() {
    let mut bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.pod(&pod(name));
    }
    let effects = bench.offer_all(&["agent1", "agent2", "agent3"], 4.0, 4096.0);
    assert_eq!(created(&effects), ["agent1"], "three small pods fit on one agent");
    bench.pod(&cpus("d", "3"));
    let effects = bench.offer_all(&["agent2", "agent3"], 4.0, 4096.0);
    assert_eq!(created(&effects), ["agent2"]);
}

#[test]
fn only_agents_that_could_fit_are_woken() {
    let on_rack =
        |rack: &str| pod_with("p", json!({"spec": {"nodeSelector": {"k8s.mesosphere.io/attribute-rack": rack}}}));
    let cases: Vec<(PodFacts, Vec<&str>)> = vec![
        (pod("p"), vec!["agent1"]),
        (on_rack("rack-agent2"), vec!["agent2"]),
        (on_rack("rack-9"), vec![]),
        (cpus("p", "100"), vec![]),
    ];
    for (pod, expected) in cases {
        let mut bench = Bench::new();
        bench.pod(&pod);
        assert_eq!(created(&bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0)), expected, "{:?}", pod.demand);
    }
}

#[test]
fn constraints_and_the_largest_number_of_nodes_are_kept() {
    let mut settings = settings();
    settings.constraints = vec![Constraint { attribute: "rack".into(), values: vec!["rack-agent2".into()] }];
    let mut bench = Bench::with(settings);
    bench.pod(&cpus("a", "3"));
    bench.pod(&cpus("b", "3"));
    assert_eq!(created(&bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0)), ["agent2"]);

    let mut bench = Bench::new();
    bench.on(Event::Bounds(Bounds { max: Some(1), ..Bounds::default() }));
    bench.pod(&cpus("a", "3"));
    bench.pod(&cpus("b", "3"));
    assert_eq!(created(&bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0)).len(), 1);
    let waits = bench.seconds(3);
    assert_eq!(explained(&waits).unwrap(), "Mesos: nodes.max is reached (1 nodes), and none of them has room");
}

#[test]
fn a_pod_that_no_agent_could_take_wakes_nothing_and_is_told_why() {
    let selector = json!({"spec": {"nodeSelector": {"k8s.mesosphere.io/attribute-rack": "r9"}}});
    let cases = [
        (
            cpus("p", "100"),
            "Mesos: no agent could ever take this pod: needs 100 cpus and 0.26 for its node; largest agent has 4",
        ),
        (pod_with("p", selector), "Mesos: no agent has k8s.mesosphere.io/attribute-rack=r9 (2 agents looked at)"),
    ];
    for (pod, expected) in cases {
        let mut bench = Bench::new();
        bench.on(Event::Agents(vec![agent_info("agent1", 4.0), agent_info("agent2", 2.0)]));
        let mut effects = bench.pod(&pod);
        effects.extend(bench.seconds(30));
        assert_eq!(explained(&effects).unwrap(), expected);
        assert!(created(&effects).is_empty() && !kinds(&effects).contains(&"revive"), "{:?}", kinds(&effects));
        assert!(bench.core.summary().suppressed);
        assert_eq!(kinds(&effects).iter().filter(|kind| **kind == "explain").count(), 1, "told once");
    }
}

#[test]
fn what_nothing_grants_wakes_nothing_and_is_told_by_name() {
    let limits = json!({"limits": {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "1"}});
    let gpu = pod_with("gpu", json!({"spec": {"containers": [{"name": "c", "resources": limits}]}}));
    let mut bench = Bench::new();
    let mut effects = bench.pod(&gpu);
    effects.extend(bench.offer("agent1", 4.0, 4096.0));
    effects.extend(bench.seconds(3));
    assert!(created(&effects).is_empty() && !kinds(&effects).contains(&"revive"), "{:?}", kinds(&effects));
    let told = "Mesos: nothing grants nvidia.com/gpu to pods yet: docs/scheduler.md, \"What is refused\"";
    assert_eq!(explained(&effects).unwrap(), told);
    bench.running(&pod("other"), "agent1");
    assert_eq!(bench.filter(&gpu, &["agent1"]).1["agent1"], Refused::Ungranted);
}

#[test]
fn a_text_that_changes_all_the_time_is_told_ever_more_seldom() {
    let mut bench = Bench::new();
    bench.pod(&cpus("big", "3"));
    let mut told = 0;
    for second in 0..600 {
        bench.on(Event::Agents(vec![agent_info("agent1", 2.0 + f64::from(second % 7) / 10.0)]));
        told += kinds(&bench.seconds(1)).iter().filter(|kind| **kind == "explain").count();
    }
    // After 1.5 s, and then 10, 20, 40, 80, 160 and 300 s later.
    assert!((5..=7).contains(&told), "{told}");
}

#[test]
fn host_ports_that_lack_are_named_also_when_nothing_is_offered() {
    let declaring = |name: &str, count: u16| {
        let ports: Vec<_> = (1..=count).map(|port| json!({ "containerPort": port })).collect();
        let resources = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
        pod_with(name, json!({ "spec": { "containers": [{ "name": "c", "resources": resources, "ports": ports }] } }))
    };
    let with_ports = || {
        let mut info = agent_info("agent1", 4.0);
        info.resources.push(Resource::ranges("ports", [(31000, 31009)]));
        info
    };
    // More than the agent has: no node is woken, and the pod's event explains why.
    let mut bench = Bench::new();
    bench.on(Event::Agents(vec![with_ports()]));
    let mut effects = bench.pod(&declaring("many", 11));
    effects.extend(bench.seconds(30));
    assert_eq!(
        explained(&effects).unwrap(),
        "Mesos: no agent could ever take this pod: 11 host ports needed, Mesos has 10 there: ports 31000-31009"
    );
    assert!(created(&effects).is_empty() && bench.core.summary().suppressed);

    // More than the running pods leave free, until one of them is gone.
    let first = declaring("first", 6);
    bench.running(&first, "agent1");
    bench.on(Event::Agents(vec![with_ports()]));
    let second = declaring("second", 6);
    bench.pod(&second);
    let reason = |bench: &mut Bench| bench.filter(&second, &["agent1"]).1.remove("agent1");
    assert_eq!(reason(&mut bench), Some(Refused::SpentPorts));
    let told = explained(&bench.seconds(6)).unwrap();
    assert_eq!(told, "Mesos: 4 of 10 host ports free, 6 needed (agent1)");
    bench.on(Event::PodGone(first.uid.clone()));
    assert_ne!(reason(&mut bench), Some(Refused::SpentPorts));
}

#[test]
fn while_others_hold_the_agents_figures_are_told_and_the_pod_runs_when_they_let_go() {
    let mut bench = Bench::new();
    bench.on(Event::Agents(vec![agent_info("agent1", 2.0)]));
    let web = pod("web");
    bench.pod(&web);
    bench.offer("agent1", 0.5, 1024.0);
    let text = explained(&bench.seconds(3)).unwrap();
    // The useless offer has been declined by then: nothing is offered.
    assert_eq!(
        text,
        "Mesos: 0 of 2 cpus and 0 of 4096 MB offered on the best of 1 agents; the pod and its node need 0.76 cpus, 641 MB"
    );
    assert!(!bench.core.summary().suppressed, "still wanted");
    assert_eq!(created(&bench.offer("agent1", 2.0, 4096.0)), ["agent1"]);
}

#[test]
fn spread_pods_wake_every_domain_that_they_need() {
    for key in [ZONE, "kubernetes.io/hostname"] {
        let mut bench = Bench::new();
        for name in ["a", "b", "c"] {
            bench.pod(&spread(name, key));
        }
        let effects = bench.offer_all(&["agent1", "agent2", "agent3"], 4.0, 4096.0);
        assert_eq!(created(&effects).len(), 3, "{key}");
    }
    // Pods created one by one find one node that has room. It must be refused until the other domain is awake.
    let mut bench = Bench::new();
    let (a, b) = (spread("a", ZONE), spread("b", ZONE));
    bench.running(&a, "agent1");
    bench.pod(&b);
    // Another pod needs the offer of the first node.
    let mut other = pod("other");
    other.labels.clear();
    bench.pod(&other);
    let both = bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0);
    assert_eq!(created(&both), ["agent2"]);
    let (kept, failed) = bench.filter(&b, &["agent1"]);
    assert!(kept.is_empty());
    assert_eq!(failed["agent1"], Refused::Waking);
    bench.now = bench.now + Duration::from_secs(11);
    assert_eq!(bench.filter(&b, &["agent1"]).0, ["agent1"], "only for a limited time");
}

#[test]
fn spread_pods_wait_for_agents_whose_offers_come_a_moment_later() {
    let mut bench = Bench::new();
    // Known agents without an offer: nothing was pending, so the offers were declined.
    bench.offer_all(&["agent1", "agent2", "agent3"], 4.0, 4096.0);
    bench.seconds(60);
    let (a, b) = (spread("a", ZONE), spread("b", ZONE));
    bench.running(&a, "agent1");
    bench.pod(&b);
    bench.offer("agent1", 4.0, 4096.0);
    let (kept, failed) = bench.filter(&b, &["agent1"]);
    assert!(kept.is_empty(), "zones of agents 2 and 3 may still be offered");
    assert_eq!(failed["agent1"], Refused::Waking);
    let meanwhile = bench.seconds(11);
    assert!(kinds(&meanwhile).contains(&"revive"), "offers are asked for while it waits: {:?}", kinds(&meanwhile));
    bench.offer("agent1", 4.0, 4096.0);
    assert_eq!(bench.filter(&b, &["agent1"]).0, ["agent1"], "only for a limited time");
}

#[test]
fn spread_pods_that_were_let_through_count_before_they_are_bound() {
    let mut bench = Bench::new();
    bench.offer_all(&["agent1", "agent2", "agent3"], 4.0, 4096.0);
    bench.seconds(60);
    let pods = ["a", "b", "c"].map(|name| spread(name, ZONE));
    for pod in &pods {
        bench.pod(pod);
    }
    // Offers arrive one by one, and kube-scheduler queries all three pods before the first one's bind arrives.
    assert_eq!(created(&bench.offer("agent1", 4.0, 4096.0)), ["agent1"]);
    assert_eq!(bench.filter(&pods[0], &["agent1"]).0, ["agent1"]);
    let (kept, failed) = bench.filter(&pods[1], &["agent1"]);
    assert!(kept.is_empty(), "the first pod is on its way there");
    assert_eq!(failed["agent1"], Refused::Waking);
    assert_eq!(
        bench.filter(&pods[0], &["agent1"]).0,
        ["agent1"],
        "asked about again, it does not count against itself"
    );
    let (_, effects) = bench.bind(&pods[0], "agent1");
    assert!(!kinds(&effects).contains(&"suppress"));
    assert!(!kinds(&bench.seconds(2)).contains(&"suppress"), "the other zones' offers are still wanted");
    assert_eq!(created(&bench.offer("agent2", 4.0, 4096.0)), ["agent2"]);

    // Two nodes are eligible, and a third zone has no node yet: one is chosen, so that the next pod's count is
    // reliable.
    let (kept, failed) = bench.filter(&pods[1], &["agent1", "agent2"]);
    assert_eq!(kept, ["agent2"], "{failed:?}");
    let (kept, failed) = bench.filter(&pods[2], &["agent1", "agent2"]);
    assert!(kept.is_empty(), "{failed:?}");
    assert_eq!(created(&bench.offer("agent3", 4.0, 4096.0)), ["agent3"]);
    assert_eq!(bench.filter(&pods[2], &["agent1", "agent2", "agent3"]).0, ["agent3"]);
}

#[test]
fn a_spread_pod_that_is_never_bound_stops_counting() {
    let mut bench = Bench::new();
    bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0);
    bench.seconds(60);
    let (a, b) = (spread("a", ZONE), spread("b", ZONE));
    bench.pod(&a);
    bench.pod(&b);
    bench.offer("agent1", 4.0, 4096.0);
    assert_eq!(bench.filter(&a, &["agent1"]).0, ["agent1"]);
    assert!(bench.filter(&b, &["agent1"]).0.is_empty());
    bench.now = bench.now + Duration::from_secs(6);
    assert_eq!(bench.filter(&b, &["agent1"]).0, ["agent1"], "kube-scheduler had another reason against a");
}

#[test]
fn a_spread_pod_does_not_wait_for_an_agent_that_could_never_take_it() {
    let large = json!({"spec": {
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "3", "memory": "64Mi"}}}],
        "topologySpreadConstraints": spreading(ZONE)}});
    let mut bench = Bench::new();
    bench.offer("agent1", 8.0, 4096.0);
    bench.offer("small", 1.0, 4096.0);
    bench.on(Event::Agents(vec![agent_info("agent1", 8.0), agent_info("small", 1.0)]));
    bench.seconds(60);
    let (a, b) = (pod_with("a", large.clone()), pod_with("b", large));
    bench.running(&a, "agent1");
    bench.pod(&b);
    bench.offer("agent1", 8.0, 4096.0);
    let (kept, failed) = bench.filter(&b, &["agent1"]);
    assert_eq!(kept, ["agent1"], "{failed:?}");
}

#[test]
fn a_cordoned_node_is_no_place_for_a_pod_and_another_agent_is_woken() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let taint = |key: &str| Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    let mut node = bench.nodes["agent1"].clone();
    node.taints.push(taint("node.kubernetes.io/unschedulable"));
    bench.nodes.insert("agent1".to_owned(), node.clone());
    bench.on(Event::Node(Box::new(node.clone())));
    bench.pod(&pod("web"));
    assert_eq!(created(&bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0)), ["agent2"]);

    // A temporary taint is no reason to start another node.
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    node.taints = vec![taint("node.kubernetes.io/not-ready")];
    bench.nodes.insert("agent1".to_owned(), node.clone());
    bench.on(Event::Node(Box::new(node)));
    bench.pod(&pod("web"));
    assert!(created(&bench.offer_all(&["agent1", "agent2"], 4.0, 4096.0)).is_empty());
}

#[test]
fn pods_that_must_be_apart_wake_an_agent_each() {
    let apart = |name: &str| {
        pod_with(
            name,
            json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}}),
        )
    };
    let mut bench = Bench::new();
    bench.pod(&apart("a"));
    bench.pod(&apart("b"));
    let effects = bench.offer_all(&["agent1", "agent2", "agent3"], 4.0, 4096.0);
    assert_eq!(created(&effects), ["agent1", "agent2"]);
}

#[test]
fn a_new_offer_nudges_the_pod_that_it_helps_but_at_most_once_a_second() {
    let mut bench = Bench::new();
    bench.running(&pod("first"), "agent1");
    let web = pod("web");
    bench.pod(&web);
    assert!(bench.filter(&web, &["agent1"]).0.is_empty());
    assert!(!kinds(&bench.seconds(5)).contains(&"nudge"), "nothing has changed");
    bench.offer("agent1", 2.0, 2048.0);
    let first = bench.wait(Duration::from_millis(300));
    assert!(kinds(&first).contains(&"nudge"));
    let more = bench.seconds(10);
    let count = kinds(&more).iter().filter(|kind| **kind == "nudge").count();
    assert!((1..=9).contains(&count), "{count}");
}

#[test]
fn two_agents_of_one_hostname_become_two_nodes() {
    let mut bench = Bench::new();
    bench.pod(&cpus("a", "3"));
    bench.pod(&cpus("b", "3"));
    let (mut one, mut two) = (bench.offer_of("agent1", 4.0, 4096.0), bench.offer_of("agent1", 4.0, 4096.0));
    one.agent_id = "f-S1".into();
    two.agent_id = "f-S2".into();
    let mut names = created(&bench.on(Event::Offers(vec![one, two])));
    names.sort();
    assert_eq!(names.len(), 2);
    assert!(names.iter().any(|name| name.starts_with("agent1-s")), "{names:?}");
}
