//! `kmctl why`, `logs` and `status` on a living cluster, and the commands of docs/operations.md.
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

/// The kinds of reasons that `why` gives.
fn kinds(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    let mut all = vec!["why", "-o", "json"];
    all.extend(arguments);
    let answer: Value = serde_json::from_str(&lab.kmctl(&all).success()).expect("JSON");
    let reasons = answer["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().map(|reason| reason["kind"].as_str().unwrap_or_default().to_owned()).collect()
}

fn eventually_kind(lab: &Lab, arguments: &[&str], kind: &str) {
    eventually_or(
        Duration::from_secs(60),
        &format!("why {arguments:?} to say {kind}"),
        || lab.kmctl(&[&["why"], arguments].concat()).stdout,
        || kinds(lab, arguments).contains(&kind.to_owned()).then_some(()),
    );
}

/// A limit of processors for the cluster's role in Mesos.
struct Quota<'a>(&'a Lab);

impl<'a> Quota<'a> {
    fn of(lab: &'a Lab, cpus: f64) -> Quota<'a> {
        Self::set(lab, &serde_json::json!({ "cpus": { "value": cpus } }));
        Quota(lab)
    }

    fn set(lab: &Lab, limits: &Value) {
        let config = serde_json::json!({ "role": "kubernetes", "limits": limits });
        let call = serde_json::json!({ "type": "UPDATE_QUOTA", "update_quota": { "quota_configs": [config] } });
        lab.mesos_post(&call);
    }
}

impl Drop for Quota<'_> {
    fn drop(&mut self) {
        Self::set(self.0, &serde_json::json!({}));
    }
}

/// Memory of an agent that another role has reserved.
struct Reservation<'a> {
    lab: &'a Lab,
    agent: Value,
    resources: Value,
}

impl<'a> Reservation<'a> {
    /// Most of what the agent of this name has; and half of it, in MiB, which does not fit any more.
    fn of_most(lab: &'a Lab, hostname: &str) -> (Reservation<'a>, f64) {
        let agents = lab.mesos_get("/slaves")["slaves"].as_array().cloned().expect("agents");
        let agent = agents.iter().find(|agent| agent["hostname"] == hostname).expect("the agent");
        let all = agent["resources"]["mem"].as_f64().expect("a number");
        let (principal, _) = lab.credentials.split_once(':').expect("principal:secret");
        let reservation = serde_json::json!({ "type": "DYNAMIC", "role": "others", "principal": principal });
        let resources = serde_json::json!([{
            "type": "SCALAR", "name": "mem", "scalar": { "value": (all * 0.8).floor() }, "reservations": [reservation],
        }]);
        let made = Reservation { lab, agent: serde_json::json!({ "value": agent["id"] }), resources };
        made.call("RESERVE_RESOURCES", "reserve_resources");
        (made, (all * 0.5).floor())
    }

    fn call(&self, kind: &str, field: &str) {
        let call = serde_json::json!({ "agent_id": self.agent, "resources": self.resources });
        self.lab.mesos_post(&serde_json::json!({ "type": kind, field: call }));
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.call("UNRESERVE_RESOURCES", "unreserve_resources");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn why_names_what_keeps_pods_and_offers() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "whys");
    namespace.sleeper("cpus", "100", "64Mi");
    namespace.sleeper("memory", "100m", "500Gi");
    let selector = "  nodeSelector: {k8s.mesosphere.io/attribute-rack: r99}";
    namespace.pod("picky", "100m", "64Mi", selector, "sleep 1");
    for (pod, kind, figure) in [
        ("cpus", "tooLarge", "requests 100 CPU"),
        ("memory", "tooLarge", "512000 MiB"),
        ("picky", "attribute", "rack=r99"),
    ] {
        eventually_kind(&lab, &["pod", pod, "-n", "whys"], kind);
        let text = lab.kmctl(&["why", "pod", &format!("whys/{pod}")]).success();
        assert!(text.contains(figure) && text.contains("hint: "), "{text}");
    }
    let agent = lab.hosts("agent").remove(0);
    let offer = kinds(&lab, &["offer", &agent]);
    assert!(offer.contains(&"tooLarge".to_owned()) && offer.contains(&"attribute".to_owned()), "{offer:?}");

    // What somebody has set, and what that leaves.
    let _bounds = Bounds(&lab);
    lab.kmctl(&["scale", "--max", "0", "--no-wait"]).success();
    namespace.sleeper("capped", "50m", "32Mi");
    eventually_kind(&lab, &["pod", "whys/capped"], "nodesMax");
    let quota = Quota::of(&lab, 0.1);
    eventually_kind(&lab, &["pod", "whys/capped"], "quota");
    let text = lab.kmctl(&["why", "pod", "whys/capped"]).success();
    assert!(text.contains("nodes.max is 0") && text.contains("of 0.1 CPU used"), "{text}");
    drop(quota);
    lab.kmctl(&["scale", "--max", "none", "--no-wait"]).success();
    lab.wait_for_pod("whys", "capped", NODE_START);

    lab.apply(
        "apiVersion: v1
kind: Pod
metadata: {name: image, namespace: whys}
spec:
  containers:
  - name: main
    image: kmctl.invalid/no/such:1
    resources: {requests: {cpu: 50m, memory: 32Mi}}
",
    );
    eventually_or(
        NODE_START,
        "the image not to come",
        || lab.kmctl(&["why", "pod", "whys/image"]).stdout,
        || kinds(&lab, &["pod", "whys/image"]).contains(&"imagePull".to_owned()).then_some(()),
    );
    // What is kept for another role.
    let (reservation, half) = Reservation::of_most(&lab, &agent);
    let pinned = format!("  nodeSelector: {{kubernetes.io/hostname: {agent}}}");
    namespace.pod("reserved", "50m", &format!("{half}Mi"), &pinned, "sleep 1000");
    eventually_kind(&lab, &["pod", "whys/reserved"], "role");
    let text = lab.kmctl(&["why", "pod", "whys/reserved"]).success();
    assert!(text.contains("reserved for other roles") && text.contains("unreserve"), "{text}");
    drop(reservation);
    lab.wait_for_pod("whys", "reserved", NODE_START);

    let unknown = lab.kmctl(&["why", "node", "no-such-node"]);
    assert_eq!(unknown.status, 1, "{}", unknown.stdout);
    assert!(unknown.stderr.contains("hint: nodes:"), "{}", unknown.stderr);
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn why_names_the_end_of_a_node_that_could_not_start() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let namespace = Namespace::new(&lab, "bootstrap");
    let agent = lab.hosts("agent").remove(0);
    // A file where the node's folder should be: nothing can be made below it.
    let folder = folder_of(&lab);
    lab.ssh(&agent, &format!("rm -rf {folder} && mkdir -p $(dirname {folder}) && echo in the way > {folder}"))
        .success();
    let pinned = format!("  nodeSelector: {{kubernetes.io/hostname: {agent}}}");
    namespace.pod("unlucky", "50m", "32Mi", &pinned, "sleep 1000");
    eventually_or(
        Duration::from_secs(120),
        "the failed start to be told",
        || lab.kmctl(&["why", "node", &agent]).stdout,
        || kinds(&lab, &["node", &agent]).contains(&"bootstrap".to_owned()).then_some(()),
    );
    let text = lab.kmctl(&["why", "node", &agent]).success();
    assert!(text.contains("TASK_FAILED") && text.contains("kmctl logs node"), "{text}");
    assert!(!lab.kmctl(&["logs", "node", &agent]).success().is_empty(), "the sandbox is still readable");
    // With its parent, if that was made here, too.
    lab.ssh(&agent, &format!("rm -f {folder}; rmdir --ignore-fail-on-non-empty $(dirname {folder})")).success();
}

fn folder_of(lab: &Lab) -> String {
    let text = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    let value = |key: &str| {
        let after = text.split(&format!("{key}:")).nth(1)?;
        after.trim_start().split(['\n', ',', '}']).next().map(|word| word.trim().to_owned())
    };
    let name = value("name").expect("a name");
    value("rootDir").unwrap_or_else(|| format!("/var/lib/kmctl/{name}"))
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn logs_of_components_nodes_and_tasks_are_read_through_ssh() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "logs");
    namespace.pod("talks", "50m", "32Mi", "", "echo said this; while true; do sleep 1; echo more; done");
    let pod = namespace.wait("talks", NODE_START);
    let node = pod["spec"]["nodeName"].as_str().expect("a node").to_owned();

    let component = lab.kmctl(&["logs", "km-scheduler", "-n", "200"]).success();
    assert!(component.lines().count() > 1 && component.lines().count() <= 200, "{component}");
    assert!(!lab.kmctl(&["logs", "node", &node]).success().is_empty());
    let kubelet = lab.kmctl(&["logs", "node", &node, "--of", "kubelet.log", "-n", "5"]).success();
    assert_eq!(kubelet.lines().count(), 5, "{kubelet}");
    let wrong = lab.kmctl(&["logs", "node", &node, "--of", "nothing"]);
    assert!(!wrong.ok() && wrong.stderr.contains("kubelet.log"), "{}", wrong.stderr);
    assert!(lab.kmctl(&["logs", "task", "talks.logs"]).success().contains("said this"));
    assert!(!lab.kmctl(&["logs", "task", &format!("node.{node}")]).success().is_empty());

    let mut child = lab
        .kmctl_command(&["logs", "task", "talks.logs", "-n", "0", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kmctl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let _followed = Background(child);
    for _ in 0..2 {
        assert_eq!(lines.next().expect("a line").expect("text"), "more");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn status_shows_everything_and_watches() {
    let lab = Lab::ready();
    let status = lab.kmctl(&["status"]).success();
    for part in ["certificates: ", "nodes: ", "pods: ", "mesos "] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let json: Value = serde_json::from_str(&lab.kmctl(&["status", "-o", "json"]).success()).expect("JSON");
    assert_eq!(json["hosts"][0]["outdated"], serde_json::json!([]), "as in cluster.yaml");
    assert!(json["hosts"][0]["certificates"].as_array().is_some_and(|all| all.len() > 5));
    let host = lab.hosts("control-plane").remove(0);
    lab.ssh(&host, "echo '# by hand' >> /etc/kmctl/scheduler.yaml").success();
    let status = lab.kmctl(&["status"]);
    assert!(status.stdout.contains("differs from cluster.yaml (/etc/kmctl/scheduler.yaml"), "{}", status.stdout);
    lab.kmctl(&["up", "--yes"]).success();

    let mut child = lab
        .kmctl_command(&["status", "--watch", "-o", "json", "--interval", "500ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kmctl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let _watch = Background(child);
    for _ in 0..2 {
        let line = lines.next().expect("a line").expect("text");
        assert!(serde_json::from_str::<Value>(&line).expect("JSON")["api"]["ready"] == true, "{line}");
    }
}

/// What docs/operations.md tells people to type, as far as it changes nothing and names nothing of theirs.
#[test]
#[ignore = "needs the lab: scripts/test"]
fn the_commands_of_the_operations_guide_work() {
    let lab = Lab::ready();
    let guide = std::fs::read_to_string(lab.root.join("docs/operations.md")).expect("the guide");
    let harmless = ["status", "scale", "check", "plan", "up", "logs", "completions"];
    let mut ran = 0;
    for line in guide.lines().filter_map(|line| line.strip_prefix("$ kmctl ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let named = words
            .iter()
            .any(|word| word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || ".:=".contains(c)));
        let endless = words.contains(&"--watch") || (words[0] == "logs" && words.contains(&"-f"));
        let changes = words[0] == "scale" && words.len() > 1 && !words.contains(&"--dry-run");
        if named || endless || changes || !harmless.contains(&words[0]) {
            continue;
        }
        let finished = lab.kmctl(&words);
        assert!(finished.ok(), "kmctl {line}: {}{}", finished.stdout, finished.stderr);
        ran += 1;
    }
    assert!(ran >= 8, "only {ran} commands were run");
}
