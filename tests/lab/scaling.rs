//! `kmctl scale`: up and down, with budgets kept, and what is told of it.
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

fn shown(lab: &Lab) -> Value {
    serde_json::from_str(&lab.kmctl(&["scale", "-o", "json"]).success()).expect("JSON")
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn three_nodes_then_one_never_leaves_fewer_pods_than_their_budget_wants() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    assert_eq!(lab.hosts("agent").len(), 3, "the lab for this test has three agents");
    let _bounds = Bounds(&lab);
    let namespace = Namespace::new(&lab, "shrink");

    let preview = lab.kmctl(&["scale", "--nodes", "3", "--dry-run"]).success();
    assert!(preview.contains("+ 3 more nodes will start"), "{preview}");
    assert_eq!(shown(&lab)["nodes"], serde_json::json!([]), "a dry run changes nothing");
    let grown = lab.kmctl(&["scale", "--nodes", "3"]);
    assert!(grown.ok() && grown.stderr.contains("autoscaling is disabled"), "{}{}", grown.stdout, grown.stderr);
    assert!(grown.stdout.contains("nodes 3, ready 3"), "{}", grown.stdout);

    // Six replicas, two on each of the three nodes: kube-scheduler fills the node whose offer comes first.
    namespace.deployment("web", 0, "50m", "32Mi");
    lab.apply(&disruption_budget("shrink", "web", 4));
    let names: Vec<String> =
        lab.nodes().iter().filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect();
    for (index, open) in names.iter().enumerate() {
        for name in &names {
            lab.kubectl(&[if name == open { "uncordon" } else { "cordon" }, name]).success();
        }
        let count = 2 * (index + 1);
        lab.kubectl(&["-n", "shrink", "scale", "deployment/web", &format!("--replicas={count}")]).success();
        let pods = lab.wait_for_pods("shrink", count, SETTLE);
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == **open).count();
        assert_eq!(here, 2, "on {open}");
    }
    for name in &names {
        lab.kubectl(&["uncordon", name]).success();
    }

    let watch = Available::watch(&lab, "shrink", "web");
    let preview = lab.kmctl(&["scale", "--nodes", "1", "--dry-run"]).success();
    let with = |sign: &str| preview.lines().filter(|line| line.starts_with(sign)).count();
    assert_eq!((with("- "), with("= ")), (2, 1), "{preview}");
    let shrunk = lab.kmctl(&["scale", "--nodes", "1"]);
    assert!(shrunk.ok(), "{}{}", shrunk.stdout, shrunk.stderr);
    lab.wait_for_pods("shrink", 6, NODE_START);
    let seen = watch.stop();
    assert!(seen.iter().all(|available| *available >= 4), "the watch saw {seen:?}");
    assert!(seen.len() > 1, "pods were moved: {seen:?}");
    assert_eq!(lab.nodes().len(), 1);
    eventually(SETTLE, "Mesos to show the rest free", || {
        let slaves = lab.mesos_get("/slaves")["slaves"].as_array().cloned()?;
        let used = slaves.iter().filter(|s| number(&s["used_resources"]["cpus"]) > 0.0).count();
        (used == 1).then_some(())
    });

    // Scaled it stays, and that is said.
    let plan = lab.kmctl(&["plan"]).success();
    assert!(plan.contains("min 1 (cluster.yaml:") && plan.contains("no changes"), "{plan}");
    let up = lab.kmctl(&["up", "--yes"]);
    assert!(up.ok() && up.stderr.contains("keeping node limits set with"), "{}{}", up.stdout, up.stderr);
    assert_eq!(shown(&lab)["max"], 1);
    lab.kmctl(&["up", "--yes", "--reset-scale"]).success();
    let file = shown(&lab);
    assert_eq!((&file["min"], &file["max"]), (&file["file"]["min"], &file["file"]["max"]));
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn what_cannot_be_drained_is_named_and_stays_when_there_is_room_again() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let _bounds = Bounds(&lab);
    let namespace = Namespace::new(&lab, "stuck");
    namespace.sleeper("bare", "100m", "64Mi");
    let pod = namespace.wait("bare", NODE_START);
    let node = pod["spec"]["nodeName"].as_str().expect("a node").to_owned();
    // Beside it one that must always be there.
    lab.apply(&disruption_budget("stuck", "only", 1));
    namespace.deployment("only", 1, "50m", "32Mi");
    let pods = lab.wait_for_pods("stuck", 2, SETTLE);
    assert!(pods.iter().all(|pod| pod["spec"]["nodeName"] == *node), "on one node");

    let refused = lab.kmctl(&["scale", "--max", "0", "--timeout", "20s"]);
    assert_eq!(refused.status, 124, "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("pod stuck/bare has no controller"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: delete it if it is no longer needed"), "{}", refused.stderr);
    let budget = "PodDisruptionBudget stuck/only allows 0 disruptions (1 healthy, 1 required)";
    assert!(refused.stderr.contains(budget), "{}", refused.stderr);
    let why = lab.kmctl(&["why", "node", &node]).success();
    assert!(why.contains("is draining") && why.contains("has no controller") && why.contains(budget), "{why}");
    assert!(ready(&lab.pod("stuck", "bare").expect("still there")), "it was not touched");

    lab.kmctl(&["scale", "--max", "none"]).success();
    eventually(SETTLE, "the node to stay", || {
        let node = lab.get(&["node", &node])?;
        let state = &node["metadata"]["annotations"]["kmctl.io/state"];
        (state == "ready" && node["spec"]["taints"].as_array().is_none_or(Vec::is_empty)).then_some(())
    });
    assert_eq!(lab.list(&["-n", "stuck", "pods"]).iter().filter(|pod| ready(pod)).count(), 2, "nothing has gone");
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn saved_bounds_change_two_numbers_of_the_file() {
    let lab = Lab::ready();
    let _bounds = Bounds(&lab);
    let folder = temporary_folder();
    let before = std::fs::read_to_string(&lab.cluster).expect("cluster.yaml");
    // Paths in it are relative to its folder.
    let source = std::path::Path::new(&lab.cluster).parent().expect("a folder");
    for entry in std::fs::read_dir(source).expect("a folder").flatten() {
        let _ = std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name()));
    }
    let copy = folder.path().join("copy.yaml");
    std::fs::write(&copy, format!("# ours\n{before}")).expect("written");
    let kmctl = |arguments: &[&str]| {
        let mut command = std::process::Command::new(lab.program("kmctl"));
        command.args(arguments).arg("-f").arg(&copy);
        run(&mut command).success()
    };
    kmctl(&["scale", "--max", "9", "--save"]);
    let after = std::fs::read_to_string(&copy).expect("there");
    assert!(after.starts_with("# ours\n") && after.contains("max: 9"), "{after}");
    let changed = after.lines().filter(|line| !before.contains(line) && *line != "# ours").count();
    assert!(changed <= 1, "one line differs: {after}");
    assert!(!kmctl(&["scale"]).contains("cluster.yaml:"), "file and cluster agree");
}

/// Follows how many replicas of a Deployment are available.
struct Available {
    child: Background,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Available {
    fn watch(lab: &Lab, namespace: &str, name: &str) -> Available {
        let template = "jsonpath={.status.availableReplicas}{\"\\n\"}";
        let mut child = lab
            .kubectl_command(&["-n", namespace, "get", "deployment", name, "--watch", "-o", template])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let (send, lines) = std::sync::mpsc::channel();
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let first = lines.recv_timeout(Duration::from_secs(20)).expect("the watch begins");
        assert_eq!(first, "6");
        Available { child: Background(child), lines }
    }

    fn stop(mut self) -> Vec<u32> {
        self.child.stop();
        self.lines.iter().map(|line| line.trim().parse().unwrap_or(0)).collect()
    }
}
