//! What is killed comes back, and nobody else notices.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::*;

#[test]
#[ignore = "needs the lab: scripts/test"]
fn killing_the_scheduler_three_times_and_the_master_disturbs_no_pod() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "kills");
    namespace.deployment("eight", 8, "50m", "32Mi");
    let before = identities(&lab.wait_for_pods("kills", 8, NODE_START));
    let watch = NodeWatch::start(&lab);

    let host = lab.hosts("control-plane").remove(0);
    for round in 1..=3 {
        let old = main_pid(&lab, &host, "km-scheduler");
        lab.ssh(&host, &format!("kill -9 {old}")).success();
        eventually(SETTLE, "km scheduler to come back", || {
            Some(main_pid(&lab, &host, "km-scheduler")).filter(|new| new != &old && new != "0")
        });
        namespace.sleeper(&format!("after-{round}"), "50m", "32Mi");
        namespace.wait(&format!("after-{round}"), NODE_START);
        lab.kubectl(&["-n", "kills", "delete", "pod", &format!("after-{round}")]).success();
    }

    let old = main_pid(&lab, "master", "mesos-master");
    lab.ssh("master", &format!("kill -9 {old}")).success();
    lab.wait_for_agents(SETTLE);
    namespace.sleeper("after-master", "50m", "32Mi");
    namespace.wait("after-master", NODE_START);
    lab.kubectl(&["-n", "kills", "delete", "pod", "after-master"]).success();

    let pods = lab.list(&["-n", "kills", "pods", "-l", "app=eight"]);
    assert_eq!(identities(&pods), before, "same containers, same start times");
    assert_eq!(watch.not_ready(), Vec::<String>::new(), "no node was seen NotReady");
    eventually_or(
        SETTLE,
        "Mesos and Kubernetes to agree",
        || format!("{:?}", lab.tasks().iter().map(|t| t["name"].clone()).collect::<Vec<_>>()),
        || {
            let mut tasks: Vec<String> =
                lab.tasks().iter().map(|t| t["name"].as_str().unwrap_or("").to_owned()).collect();
            tasks.retain(|name| !name.starts_with("node."));
            tasks.sort();
            let mut pods: Vec<String> =
                lab.list(&["-n", "kills", "pods"]).iter().map(|p| format!("{}.kills", name_of(p))).collect();
            pods.sort();
            (tasks == pods).then_some(())
        },
    );
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_killed_mesos_agent_recovers_its_executor() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "agent-kill");
    namespace.sleeper("stays", "100m", "64Mi");
    let before = namespace.wait("stays", NODE_START);
    let node = before["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let executor = lab.ssh(&node, "pgrep -o -f 'km node'").success();
    let watch = NodeWatch::start(&lab);

    let old = main_pid(&lab, &node, "mesos-agent");
    lab.ssh(&node, &format!("kill -9 {old}")).success();
    eventually(SETTLE, "the agent to come back", || {
        Some(main_pid(&lab, &node, "mesos-agent")).filter(|new| new != &old && new != "0")
    });
    eventually(SETTLE, "the agent to be active again", || {
        let slaves = lab.mesos_get("/slaves")["slaves"].as_array().cloned()?;
        let us = slaves.iter().find(|s| s["hostname"] == node.as_str())?.clone();
        (us["active"] == true && number(&us["used_resources"]["cpus"]) > 0.0).then_some(())
    });
    // A pod that starts afterwards proves that the executor talks to its agent again.
    let pinned = format!("  nodeSelector: {{kubernetes.io/hostname: {node}}}");
    namespace.pod("later", "50m", "32Mi", &pinned, "sleep 100000");
    namespace.wait("later", NODE_START);
    let after = lab.pod("agent-kill", "stays").expect("still there");
    assert_eq!(container_identity(&after), container_identity(&before));
    assert_eq!(lab.ssh(&node, "pgrep -o -f 'km node'").success(), executor, "the same executor");
    assert_eq!(watch.not_ready(), Vec::<String>::new());
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn after_a_killed_node_agent_pods_start_elsewhere_and_nothing_is_left() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let residue: BTreeMap<String, String> =
        lab.hosts("agent").into_iter().map(|h| (h.clone(), residue(&lab, &h))).collect();
    let namespace = Namespace::new(&lab, "node-kill");
    lab.apply(
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: phoenix, namespace: node-kill}
spec:
  replicas: 2
  selector: {matchLabels: {app: phoenix}}
  template:
    metadata: {labels: {app: phoenix}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: docker.io/library/busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'date > /keep/file; sleep 100000']
        resources: {requests: {cpu: 50m, memory: 32Mi}}
        volumeMounts: [{name: keep, mountPath: /keep}]
      volumes: [{name: keep, hostPath: {path: /srv/kmctl-kept, type: DirectoryOrCreate}}]
",
    );
    let before = lab.wait_for_pods("node-kill", 2, NODE_START);
    let node = before[0]["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let on_node: Vec<String> = before.iter().filter(|p| p["spec"]["nodeName"] == node.as_str()).map(name_of).collect();
    let sandbox = sandbox_of_the_node(&lab, &node);
    let old = lab.ssh(&node, "pgrep -o -f 'km node'").success();
    lab.ssh(&node, &format!("kill -9 {}", old.trim())).success();

    eventually_or(
        NODE_START,
        "the pods to run again under other names",
        || lab.kubectl(&["-n", "node-kill", "get", "pods", "-o", "wide"]).stdout,
        || {
            let pods: Vec<Value> = lab.list(&["-n", "node-kill", "pods"]).into_iter().filter(ready).collect();
            (pods.len() == 2 && pods.iter().all(|p| !on_node.contains(&name_of(p)))).then_some(())
        },
    );
    drop(namespace);
    lab.wait_for_zero_nodes();
    eventually_or(
        Duration::from_secs(90),
        "the sweep to leave nothing",
        || difference(&without_store(&residue[&node]), &without_store(&self::residue(&lab, &node))),
        || (without_store(&self::residue(&lab, &node)) == without_store(&residue[&node])).then_some(()),
    );

    // Mesos removes the sandbox of the dead executor, and everything that it finds mounted below it, after its gc_delay.
    eventually(Duration::from_secs(180), "Mesos to remove the sandbox (--gc_delay=1mins)", || {
        lab.ssh(&node, &format!("test ! -e {sandbox}")).ok().then_some(())
    });
    let kept = lab.ssh(&node, "test -s /srv/kmctl-kept/file && rm -r /srv/kmctl-kept");
    assert!(kept.ok(), "the file in the hostPath volume is still there");
}

/// The sandbox of the one executor that runs on an agent.
fn sandbox_of_the_node(lab: &Lab, host: &str) -> String {
    let state = lab.curl(&format!("http://{}:5051/state", lab.address(host)));
    let state: Value = serde_json::from_str(&state).expect("the agent's state is JSON");
    assert_eq!(state["flags"]["gc_delay"], "1mins", "the lab for this test is started with LAB_GC_DELAY=1mins");
    let frameworks = state["frameworks"].as_array().cloned().unwrap_or_default();
    let executors = frameworks.iter().flat_map(|f| f["executors"].as_array().cloned().unwrap_or_default());
    let sandboxes: Vec<String> = executors.filter_map(|e| e["directory"].as_str().map(str::to_owned)).collect();
    assert_eq!(sandboxes.len(), 1, "{sandboxes:?}");
    sandboxes.into_iter().next().expect("one")
}

/// Without the file of this test, and without what nodes keep on purpose from one run to the next: verified programs and
/// images, and the folders for them.
fn without_store(residue: &str) -> String {
    let kept = |line: &&str| {
        let path = line.strip_prefix("file: ").and_then(|fact| fact.split(' ').nth(3)).unwrap_or_default();
        let Some(below) = path.strip_prefix("/var/lib/kmctl") else { return !path.starts_with("/srv/kmctl-kept") };
        let depth = below.matches('/').count();
        let name = below.split('/').nth(2).unwrap_or_default();
        !(depth < 2 || ["store", "runs", "ledger"].contains(&name) && depth == 2 || name == "store")
    };
    residue.lines().filter(kept).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_a_run_leaves_behind_is_not_taken_for_the_store() {
    let store = "file: d 700 0 /var/lib/kmctl/lab\nfile: d 755 0 /var/lib/kmctl/lab/store\nfile: f 755 0 /var/lib/kmctl/lab/store/abc\n";
    assert_eq!(without_store(store), "");
    let left = "file: d 755 0 /var/lib/kmctl/lab/runs/agent1.0123abcd\nfile: f 600 0 /var/lib/kmctl/lab/ledger/x.json\nlink: km0\n";
    assert_eq!(without_store(left), left);
}

/// Watches Node objects from its start and tells who was ever seen not Ready after having been so.
struct NodeWatch {
    child: Background,
    lines: mpsc::Receiver<String>,
}

impl NodeWatch {
    fn start(lab: &Lab) -> NodeWatch {
        let template = "{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}";
        let mut child = lab
            .kubectl_command(&["get", "nodes", "--watch", "-o", &format!("jsonpath={template}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        let (send, lines) = mpsc::channel();
        let reader = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        NodeWatch { child: Background(child), lines }
    }

    fn not_ready(mut self) -> Vec<String> {
        self.child.stop();
        let mut was_ready = BTreeMap::new();
        let mut bad = Vec::new();
        let mut seen = 0;
        for line in self.lines.iter() {
            seen += 1;
            let Some((node, status)) = line.split_once(' ') else { continue };
            match status {
                "True" => {
                    was_ready.insert(node.to_owned(), ());
                }
                other if was_ready.contains_key(node) => bad.push(format!("{node}: {other}")),
                _ => {}
            }
        }
        assert!(seen > 0, "the watch saw something");
        bad
    }
}

pub fn identities(pods: &[Value]) -> BTreeMap<String, (String, String)> {
    pods.iter().map(|p| (name_of(p), container_identity(p))).collect()
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn a_pod_whose_annotations_are_replaced_lives_on_and_gets_those_of_its_binding_back() {
    let lab = Lab::ready();
    let namespace = Namespace::new(&lab, "replaced");
    namespace.sleeper("web", "50m", "32Mi");
    namespace.wait("web", NODE_START);
    let pod = |lab: &Lab| lab.pod("replaced", "web").expect("the pod");
    let before = pod(&lab);
    let task = before["metadata"]["annotations"]["kmctl.io/task"].clone();
    assert!(task.is_string(), "{before}");
    let host = lab.hosts("control-plane").remove(0);
    for (round, down) in [("dropped", false), ("other-task", false), ("dropped-while-away", true)] {
        if down {
            lab.ssh(&host, "systemctl stop km-scheduler").success();
        }
        let annotations = match round {
            "other-task" => serde_json::json!({"kmctl.io/task": "pod.of.somebody-else"}),
            _ => serde_json::json!({"kmctl.io/task": null, "kmctl.io/granted": null}),
        };
        let patch = serde_json::json!({ "metadata": { "annotations": annotations } }).to_string();
        lab.kubectl(&["-n", "replaced", "patch", "pod", "web", "--type=merge", "-p", &patch]).success();
        if down {
            lab.ssh(&host, "systemctl start km-scheduler kube-scheduler").success();
        }
        eventually(SETTLE, round, || {
            let now = pod(&lab);
            let back = &now["metadata"]["annotations"];
            (back["kmctl.io/task"] == task && back["kmctl.io/granted"].is_string()).then_some(())
        });
        let now = pod(&lab);
        assert!(now["metadata"]["deletionTimestamp"].is_null(), "{round}: {now}");
        assert_eq!(container_identity(&now), container_identity(&before), "{round}");
    }
    let state = lab.task("web.replaced").expect("its task")["state"].clone();
    assert_eq!(state, "TASK_RUNNING");
}

fn main_pid(lab: &Lab, host: &str, unit: &str) -> String {
    lab.ssh(host, &format!("systemctl show -p MainPID --value {unit}")).success().trim().to_owned()
}

/// What is on a host, as `tests/residue` prints it.
pub fn residue(lab: &Lab, host: &str) -> String {
    lab.residue(host)
}

pub fn difference(before: &str, after: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (lines(before), lines(after));
    let gone = before.difference(&after).map(|l| format!("- {l}\n"));
    let new = after.difference(&before).map(|l| format!("+ {l}\n"));
    gone.chain(new).collect()
}
