//! Every obstacle, in a small world.
use serde_json::{Value, json};

use super::*;
use crate::diagnose::Answer;
use crate::diagnose::fixtures::*;
use crate::diagnose::fixtures::{node, pod};
use crate::inventory::mesos::{Pressure, RoleUse, RunningTask};
use crate::inventory::workloads::Workloads;

/// A world that each test changes.
struct World {
    cluster: Cluster,
    bounds: Bounds,
    seen: Workloads,
    master: Result<Master, String>,
    scheduler: Result<Summary, String>,
    events: Vec<ObjectEvent>,
    ended: Vec<EndedTask>,
}

impl World {
    fn new(nodes: Vec<Value>, pods: Vec<Value>) -> World {
        World {
            cluster: cluster(),
            bounds: Bounds { min: 0, max: None },
            seen: workloads(nodes, pods, Vec::new()),
            master: Ok(master(vec![agent("agent1", 1.0, 1024.0), agent("agent2", 3.9, 512.0)])),
            scheduler: Ok(acting()),
            events: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            cluster: &self.cluster,
            bounds: self.bounds,
            seen: &self.seen,
            master: self.master.as_ref().map_err(String::as_str),
            scheduler: self.scheduler.as_ref().map_err(String::as_str),
            events: &self.events,
            ended: &self.ended,
            now: now(),
        }
    }

    fn pod(&self) -> Answer {
        super::pod(&self.seen.pods[0], &self.facts())
    }

    fn node(&self, name: &str) -> Answer {
        super::node(name, &self.facts()).unwrap()
    }

    fn offer(&self) -> Answer {
        let facts = self.facts();
        offer(&facts.master.unwrap().agents[0], &facts)
    }

    fn master(&mut self) -> &mut Master {
        self.master.as_mut().unwrap()
    }

    fn event(&mut self, source: &str, reason: &str, message: &str) {
        let at = Some("2026-11-24T11:59:00Z".parse().unwrap());
        let (source, reason, message) = (source.to_owned(), reason.to_owned(), message.to_owned());
        self.events.push(ObjectEvent { at, source, reason, message });
    }
}

/// A pod that waits and requests this much.
fn waiting(cpu: &str, memory: &str, more: Value) -> Value {
    let mut pod = pod(
        "p",
        None,
        json!({"spec": {"containers": [{"name": "c", "image": "busybox", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}),
    );
    merge(&mut pod, more);
    pod
}

fn kinds(answer: &Answer) -> Vec<Kind> {
    answer.reasons.iter().map(|reason| reason.kind).collect()
}

/// What blocks a pod, by kind. The text of each is a snapshot of its own.
#[test]
fn why_a_pod_does_not_run() {
    let plain = || waiting("100m", "64Mi", json!({}));
    let on = |node: &str, change: Value| pod("p", Some(node), change);
    let container = |state: Value, more: Value| {
        let mut status = json!({"name": "c", "image": "no/such:1", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        merge(&mut status, more);
        json!({"status": {"phase": "Pending", "conditions": [], "containerStatuses": [status]}})
    };
    type Case = (&'static str, World, Vec<Kind>);
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |name, world: World, kinds: Vec<Kind>| cases.push((name, world, kinds));

    case("room", World::new(vec![], vec![plain()]), vec![Kind::Time]);
    case("too_many_cpus", World::new(vec![], vec![waiting("100", "64Mi", json!({}))]), vec![Kind::TooLarge]);
    case("too_much_memory", World::new(vec![], vec![waiting("100m", "64Gi", json!({}))]), vec![Kind::TooLarge]);
    case("taken", World::new(vec![], vec![waiting("3", "64Mi", json!({}))]), vec![Kind::Taken]);

    let selector = json!({"spec": {"nodeSelector": {"k8s.mesosphere.io/attribute-rack": "r9"}}});
    case("attribute", World::new(vec![], vec![waiting("100m", "64Mi", selector)]), vec![Kind::Attribute]);

    let device = json!({"spec": {"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}});
    case("ungranted", World::new(vec![], vec![waiting("100m", "64Mi", device)]), vec![Kind::Ungranted]);

    let mut world = World::new(vec![], vec![waiting("3", "64Mi", json!({}))]);
    world.master().agents.truncate(1);
    world.master().agents[0].used = Pressure::default();
    world.master().agents[0].reserved = [("dev".to_owned(), Pressure { cpus: 2.0, mem: 1024.0 })].into();
    case("reserved_for_another_role", world, vec![Kind::Role]);

    let mut world = World::new(vec![], vec![waiting("600m", "64Mi", json!({}))]);
    let role = RoleUse { held: Pressure { cpus: 1.5, mem: 100.0 }, limit: [("cpus".to_owned(), 2.0)].into() };
    world.master().roles = Some([("kubernetes".to_owned(), role)].into());
    case("quota", world, vec![Kind::Quota]);

    let mut world = World::new(vec![], vec![waiting("300m", "64Mi", json!({}))]);
    let role = RoleUse { held: Pressure { cpus: 1.5, mem: 100.0 }, limit: [("cpus".to_owned(), 2.0)].into() };
    world.master().roles = Some([("kubernetes".to_owned(), role)].into());
    case("quota_that_lets_the_pod_in_but_not_its_node", world, vec![Kind::Quota]);

    let mut world = World::new(vec![], vec![plain()]);
    world.master().flags = [("roles".to_owned(), "dev,web".to_owned())].into();
    case("role_not_admitted", world, vec![Kind::Role]);

    let mut world = World::new(vec![node("agent2", "ready")], vec![waiting("300m", "64Mi", json!({}))]);
    world.bounds.max = Some(1);
    case("nodes_max", world, vec![Kind::NodesMax, Kind::Taken]);

    let mut world = World::new(vec![], vec![plain()]);
    world.cluster.spec.nodes.constraints =
        vec![kmctl_core::cluster::Constraint { attribute: "rack".to_owned(), values: vec!["r7".to_owned()] }];
    case("constraints", world, vec![Kind::Constraint]);

    let ports = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}});
    case("host_port", World::new(vec![], vec![waiting("1", "1Mi", ports)]), vec![Kind::Ports]);

    let mut world = World::new(vec![], vec![plain()]);
    world.event("default-scheduler", "FailedScheduling", "0/1 nodes are available: 1 node(s) had taint {a: b}");
    case("kube_schedulers_rules", world, vec![Kind::Rules]);

    let mut world = World::new(vec![], vec![plain()]);
    world.scheduler = Err("connection refused".to_owned());
    world.master = Err("no answer within 15s".to_owned());
    case("nobody_answers", world, vec![Kind::Scheduler, Kind::Mesos]);

    let mut world = World::new(vec![], vec![plain()]);
    world.master().frameworks.clear();
    case("no_framework", world, vec![Kind::Mesos]);

    let other = json!({"spec": {"schedulerName": "mine"}});
    case("another_scheduler", World::new(vec![], vec![waiting("1", "1Mi", other)]), vec![Kind::NotOurs]);

    let pull = container(
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"no/such:1\""}}),
        json!({}),
    );
    let mut world = World::new(vec![node("agent1", "ready")], vec![on("agent1", pull)]);
    world.event("kubelet", "Failed", "Failed to pull image \"no/such:1\": not found");
    case("image_pull", world, vec![Kind::ImagePull]);

    let crash = container(
        json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        json!({"restartCount": 4, "lastState": {"terminated": {"exitCode": 3}}}),
    );
    case("crash", World::new(vec![node("agent1", "ready")], vec![on("agent1", crash)]), vec![Kind::Container]);

    let pending = json!({"status": {"phase": "Pending", "conditions": []}});
    case(
        "node_starts",
        World::new(vec![node("agent1", "starting")], vec![on("agent1", pending.clone())]),
        vec![Kind::Node],
    );
    case("node_is_gone", World::new(vec![], vec![on("agent1", pending.clone())]), vec![Kind::Node]);
    let mut by_hand = on("agent1", pending);
    by_hand["metadata"]["annotations"] = json!({});
    case("bound_by_hand", World::new(vec![node("agent1", "ready")], vec![by_hand]), vec![Kind::NotOurs]);

    let ending = json!({"metadata": {"deletionTimestamp": "2026-11-24T11:58:00Z", "finalizers": ["example.com/keep"]}});
    case(
        "kept_by_a_finalizer",
        World::new(vec![node("agent1", "ready")], vec![on("agent1", ending)]),
        vec![Kind::Ending],
    );
    case("runs", World::new(vec![node("agent1", "ready")], vec![on("agent1", json!({}))]), vec![]);
    let failed = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}});
    case("has_ended", World::new(vec![node("agent1", "ready")], vec![on("agent1", failed)]), vec![]);

    let mut texts = String::new();
    for (name, world, expected) in &cases {
        let answer = world.pod();
        assert_eq!(kinds(&answer), *expected, "{name}: {}", answer.text());
        texts.push_str(&format!("## {name}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn why_a_node_does_not_start_or_does_not_go() {
    let ended = |state: &str, message: &str| EndedTask {
        id: "node.agent1.0a1b2c3d".to_owned(),
        name: "node.agent1".to_owned(),
        state: state.to_owned(),
        message: message.to_owned(),
        agent: "S-agent1".to_owned(),
        at: Some(now().as_second() - 180),
    };
    type Case = (&'static str, World, Vec<Kind>);
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |name, world: World, kinds: Vec<Kind>| cases.push((name, world, kinds));

    let mut world = World::new(vec![], vec![]);
    world.ended = vec![ended("TASK_FAILED", "cannot start containerd: no space left on device")];
    case("bootstrap_failed_and_gone", world, vec![Kind::Bootstrap, Kind::NoDemand]);
    let mut world = World::new(vec![node("agent1", "candidate")], vec![]);
    world.ended = vec![ended("TASK_FAILED", "no space left on device")];
    case("bootstrap_failed_and_tried_again", world, vec![Kind::Time, Kind::Bootstrap]);
    let mut world = World::new(vec![node("agent1", "candidate")], vec![]);
    world.ended = vec![ended("TASK_FAILED", "x"), ended("TASK_KILLED", "")];
    case("an_orderly_end_is_no_failure", world, vec![Kind::Time]);

    let mut starting = node("agent1", "starting");
    starting["metadata"]["annotations"]["kmctl.io/node-task"] = json!("node.agent1.0a1b2c3d");
    let mut world = World::new(vec![starting.clone()], vec![]);
    world.master().frameworks[0].tasks = vec![running("node.agent1.0a1b2c3d", "TASK_STARTING")];
    case("starting", world, vec![Kind::Time]);
    starting["metadata"]["creationTimestamp"] = json!("2026-11-24T11:50:00Z");
    let mut world = World::new(vec![starting], vec![]);
    world.master().frameworks[0].tasks = vec![running("node.agent1.0a1b2c3d", "TASK_STAGING")];
    case("starting_slowly", world, vec![Kind::Bootstrap]);

    case(
        "used",
        World::new(
            vec![node("agent1", "ready")],
            vec![pod("a", Some("agent1"), json!({})), pod("b", Some("agent1"), bare())],
        ),
        vec![Kind::Pods],
    );
    case("idle", World::new(vec![node("agent1", "ready")], vec![]), vec![Kind::Time]);
    let mut world = World::new(vec![node("agent1", "ready")], vec![]);
    world.bounds.min = 1;
    case("kept_by_min", world, vec![Kind::NodesMin]);

    let mut world = World::new(vec![node("agent1", "leaving")], vec![pod("a", Some("agent1"), json!({}))]);
    world.seen.budgets = vec![pdb("web", 0)];
    case("a_budget_blocks_the_drain", world, vec![Kind::Budget]);
    let mut world = World::new(vec![node("agent1", "leaving")], vec![pod("a", Some("agent1"), json!({}))]);
    world.seen.budgets = vec![pdb("web", 1)];
    case("a_budget_allows_it", world, vec![Kind::Pods]);
    let mut world = World::new(vec![node("agent1", "leaving")], vec![pod("a", Some("agent1"), json!({}))]);
    world.seen.budgets = vec![pdb("web", 1), pdb("all", 1)];
    case("two_budgets", world, vec![Kind::Budget]);
    case(
        "a_pod_without_controller",
        World::new(vec![node("agent1", "leaving")], vec![pod("a", Some("agent1"), bare())]),
        vec![Kind::NoController],
    );
    case("drained", World::new(vec![node("agent1", "leaving")], vec![]), vec![Kind::Time]);

    let mut broken = node("agent1", "ready");
    broken["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}]);
    case("not_ready", World::new(vec![broken], vec![]), vec![Kind::Node]);

    let mut texts = String::new();
    for (name, world, expected) in &cases {
        let answer = world.node("agent1");
        assert_eq!(kinds(&answer), *expected, "{name}: {}", answer.text());
        texts.push_str(&format!("## {name}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(texts);
    assert_eq!(super::node("agent9", &World::new(vec![], vec![]).facts()), None);
}

fn running(id: &str, state: &str) -> RunningTask {
    RunningTask {
        id: id.to_owned(),
        name: "node.agent1".to_owned(),
        state: state.to_owned(),
        agent: "S-agent1".to_owned(),
        resources: Pressure::default(),
    }
}

#[test]
fn why_an_offer_is_not_used() {
    type Case = (&'static str, World, Vec<Kind>);
    let mut cases: Vec<Case> = Vec::new();
    let mut case = |name, world: World, kinds: Vec<Kind>| cases.push((name, world, kinds));
    let one = |cpu: &str, memory: &str| World::new(vec![], vec![waiting(cpu, memory, json!({}))]);

    case("nobody_waits", World::new(vec![], vec![]), vec![Kind::NoDemand]);
    case("too_few_cpus", one("5", "64Mi"), vec![Kind::TooLarge]);
    case("too_little_memory", one("100m", "5Gi"), vec![Kind::TooLarge]);
    case("cpus_taken", one("3", "64Mi"), vec![Kind::Taken]);
    case("memory_taken", one("100m", "3Gi"), vec![Kind::Taken]);
    case("fits", one("100m", "64Mi"), vec![Kind::Time]);
    let selector = json!({"spec": {"nodeSelector": {"k8s.mesosphere.io/attribute-rack": "r9"}}});
    case("attribute", World::new(vec![], vec![waiting("100m", "64Mi", selector)]), vec![Kind::Attribute]);
    let device = json!({"spec": {"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}});
    case("ungranted", World::new(vec![], vec![waiting("100m", "64Mi", device)]), vec![Kind::Ungranted]);
    let mut world = one("3", "64Mi");
    world.master().agents[0].used = Pressure::default();
    world.master().agents[0].reserved = [("dev".to_owned(), Pressure { cpus: 2.0, mem: 0.0 })].into();
    case("role", world, vec![Kind::Role]);
    let mut world = one("100m", "64Mi");
    world.bounds.max = Some(0);
    case("nodes_max", world, vec![Kind::NodesMax]);
    let mut world = one("100m", "64Mi");
    world.master().agents[0].active = false;
    case("inactive", world, vec![Kind::Agent]);
    let mut world = one("100m", "64Mi");
    world.cluster.spec.nodes.constraints =
        vec![kmctl_core::cluster::Constraint { attribute: "rack".to_owned(), values: vec!["r7".to_owned()] }];
    case("constraint", world, vec![Kind::Constraint]);
    case(
        "leaving",
        World::new(vec![node("agent1", "leaving")], vec![waiting("1", "1Mi", json!({}))]),
        vec![Kind::Node],
    );

    let mut texts = String::new();
    for (name, world, expected) in &cases {
        let answer = world.offer();
        assert_eq!(kinds(&answer), *expected, "{name}: {}", answer.text());
        texts.push_str(&format!("## {name}\n{}\n", answer.text()));
    }
    insta::assert_snapshot!(texts);
}

#[test]
fn spans_are_told_in_their_two_largest_units() {
    let cases = [(5, "5s"), (65, "1m5s"), (3_700, "1h1m"), (90_000, "1d1h"), (-3, "0s")];
    for (seconds, text) in cases {
        assert_eq!(span(seconds), text);
    }
}
