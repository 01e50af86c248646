//! `kmctl runonce`: pods of a file, run to completion without an API server.
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::failures::difference;
use crate::support::*;

/// A file with pods, in a folder that goes with the test.
struct File {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let folder = temporary_folder();
        let path = folder.path().join("pod.yaml");
        std::fs::write(&path, text).expect("written");
        File { path, _folder: folder }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a text")
    }
}

/// A pod that runs a script in the bundle's busybox.
fn pod(name: &str, script: &str) -> String {
    let script = serde_json::to_string(script).expect("a string");
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, {script}]
    resources: {{requests: {{cpu: 20m, memory: 32Mi}}}}
"
    )
}

/// What the expected output of [`rich`] is.
const RICH: &str =
    "from init: made\nvariable: S3CRET-env $(HOME)\nall: one two\nfile: S3CRET-file\nmode: 400\nname: rich\n";

/// Init container, configMap, secret, env and envFrom.
fn rich() -> String {
    "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {FIRST: one, second: two}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {env: 'S3CRET-env $(HOME)', file: S3CRET-file}
---
apiVersion: v1
kind: Pod
metadata: {name: rich}
spec:
  terminationGracePeriodSeconds: 2
  initContainers:
  - name: first
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'echo made > /made/it']
    volumeMounts: [{name: work, mountPath: /made}]
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command:
    - sh
    - -c
    - |
      echo \"from init: $(cat /made/it)\"
      echo \"variable: $KEY\"
      echo \"all: $FIRST $second\"
      echo \"file: $(cat /keys/file)\"
      echo \"mode: $(stat -L -c %a /keys/file)\"
      echo \"name: $NAME\"
    envFrom: [{configMapRef: {name: settings}}]
    env:
    - {name: KEY, valueFrom: {secretKeyRef: {name: keys, key: env}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts: [{name: work, mountPath: /made}, {name: keys, mountPath: /keys}]
    resources: {requests: {cpu: 20m, memory: 32Mi}}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: keys, secret: {secretName: keys, defaultMode: 256}}
"
    .to_owned()
}

/// Frameworks of runs that Mesos knows.
fn runs(lab: &Lab) -> usize {
    let state = lab.mesos_get("/state");
    let all = state["frameworks"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|framework| framework["name"].as_str().is_some_and(|name| name.starts_with("runonce-"))).count()
}

/// The lab with nothing on its agents, and what is on them.
fn quiet(lab: &Lab) -> Vec<(String, String)> {
    lab.wait_for_zero_nodes();
    lab.hosts("agent").into_iter().map(|host| (host.clone(), lab.residue(&host))).collect()
}

fn nothing_is_left(lab: &Lab, before: &[(String, String)], limit: Duration) {
    let end = Instant::now() + limit;
    eventually(limit, "Mesos to know of no run", || (runs(lab) == 0).then_some(()));
    for (host, before) in before {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        eventually_or(
            left,
            &format!("{host} to be as it was"),
            || difference(before, &lab.residue(host)),
            || (lab.residue(host) == *before).then_some(()),
        );
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn the_exit_code_is_the_pods_and_what_is_kmctls_own_is_told_apart() {
    let lab = Lab::ready();
    let before = quiet(&lab);
    let good = File::new(&pod("good", "echo it works; echo to the other side >&2"));
    let finished = lab.kmctl(&["runonce", "--pod", good.path()]);
    assert_eq!((finished.status, finished.stdout.as_str()), (0, "it works\n"), "{}", finished.stderr);
    assert!(finished.stderr.contains("to the other side\n"), "{}", finished.stderr);

    let bad = File::new(&pod("bad", "exit 3"));
    assert_eq!(lab.kmctl(&["runonce", "--pod", bad.path()]).status, 3);

    // Over before anybody could have looked.
    let short = File::new(&pod("short", "exit 0"));
    assert_eq!(lab.kmctl(&["runonce", "--pod", short.path()]).status, 0);

    let long = File::new(&pod("long", "echo begun; exec sleep 1000"));
    let started = Instant::now();
    let finished = lab.kmctl(&["runonce", "--pod", long.path(), "--timeout", "30s"]);
    assert_eq!(finished.status, 124, "{}", finished.stderr);
    assert!(finished.stdout.contains("begun"), "it ran: {}", finished.stderr);
    assert!(started.elapsed() < Duration::from_secs(75));

    let missing = File::new(
        &pod("missing", "exit 0").replace("busybox:latest", "no-such-image:1").replace("IfNotPresent", "Never"),
    );
    let finished = lab.kmctl(&["runonce", "--pod", missing.path()]);
    assert_eq!(finished.status, 125, "{}", finished.stderr);
    assert!(finished.stderr.contains("ErrImageNeverPull"), "{}", finished.stderr);

    let claim = pod("claim", "exit 0") + "  volumes: [{name: v, persistentVolumeClaim: {claimName: x}}]\n";
    let claim = File::new(&claim);
    let finished = lab.kmctl(&["runonce", "--pod", claim.path()]);
    assert_eq!(finished.status, 125);
    assert!(
        finished.stderr.contains("pod claim: spec.volumes[0] (v): persistentVolumeClaim requires an API server"),
        "{}",
        finished.stderr
    );
    assert_eq!(lab.kmctl(&["runonce", "--pod", "/no/such/file"]).status, 125);
    assert_eq!(lab.kmctl(&["runonce"]).status, 125, "wrong usage");
    nothing_is_left(&lab, &before, Duration::from_secs(60));
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn twenty_pods_share_one_kubelet_on_each_agent() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let many: Vec<String> =
        (0..20).map(|number| pod(&format!("p{number}"), &format!("echo I am {number}; sleep 15"))).collect();
    let many = File::new(&many.join("---\n"));
    let child = lab
        .kmctl_command(&["runonce", "--pod", many.path(), "--timeout", "180s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kmctl starts");
    let agents = lab.hosts("agent");
    let mut most = 0;
    let output = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || child.wait_with_output().expect("kmctl ends"));
        while !waiting.is_finished() {
            for agent in &agents {
                let seen = lab.ssh(agent, "pgrep -c -x kubelet || true").stdout.trim().parse().unwrap_or(0);
                assert!(seen <= 1, "{seen} kubelets on {agent}");
                most = most.max(seen);
            }
        }
        waiting.join().expect("it has ended")
    });
    let finished = Finished::of(output, "kmctl runonce");
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert_eq!(most, 1, "a kubelet was seen while the pods ran");
    for number in 0..20 {
        let line = format!("[p{number} main] I am {number}\n");
        assert!(finished.stdout.contains(&line), "{line} in {}", finished.stdout);
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn what_a_pod_is_given_reaches_it_and_nobody_else() {
    let lab = Lab::ready();
    lab.wait_for_zero_nodes();
    let rich = File::new(&rich());
    let finished = lab.kmctl(&["runonce", "--pod", rich.path(), "--timeout", "180s"]);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let said: String =
        finished.stdout.lines().map(|line| format!("{}\n", line.trim_start_matches("[rich main] "))).collect();
    assert_eq!(said, RICH);
    assert!(finished.stderr.contains("pod rich: restartPolicy Always is treated as Never"), "{}", finished.stderr);
    // The output showed them, as the pod wanted; Mesos and its folders know nothing of them.
    for kind in ["GET_STATE", "GET_TASKS", "GET_FRAMEWORKS", "GET_EXECUTORS"] {
        assert!(!lab.mesos_call(kind).contains("S3CRET"), "{kind}");
    }
    for host in lab.hosts("agent").into_iter().chain(["master".to_owned()]) {
        let found = lab.ssh(&host, "grep -rl --exclude-dir=proc S3CRET /var/lib/mesos /var/log 2>/dev/null || true");
        assert_eq!(found.stdout.trim(), "", "on {host}");
    }
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn an_interrupted_and_a_killed_kmctl_leave_nothing() {
    let lab = Lab::ready();
    let before = quiet(&lab);
    for signal in ["-INT", "-KILL"] {
        let code = ended_by(&lab, &[], signal);
        assert!(signal != "-INT" || code == Some(130), "{code:?}");
        nothing_is_left(&lab, &before, Duration::from_secs(30));
    }
}

/// Runs a pod that does not end, and ends kmctl by a signal while it runs.
fn ended_by(lab: &Lab, place: &[&str], signal: &str) -> Option<i32> {
    let long = File::new(&pod("long", "echo begun; exec sleep 1000"));
    let mut child = lab
        .kmctl_command(&[&["runonce", "--pod", long.path()], place].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kmctl starts");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line, "begun\n");
    run(std::process::Command::new("kill").args([signal, &child.id().to_string()])).success();
    child.wait().expect("it ends").code()
}

#[test]
#[ignore = "needs the lab: scripts/test"]
fn the_same_file_runs_on_a_host_and_on_this_machine() {
    let lab = Lab::ready();
    let host = lab.hosts("control-plane").remove(0);
    let before = lab.residue(&host);
    let file = File::new(&rich());
    let bad = File::new(&pod("bad", "exit 3"));
    for place in [&["--host", host.as_str()][..], &["--local"][..]] {
        let finished = lab.kmctl(&[&["runonce", "--pod", file.path(), "--timeout", "180s"], place].concat());
        assert_eq!(finished.status, 0, "{place:?}: {}", finished.stderr);
        let said: String =
            finished.stdout.lines().map(|line| format!("{}\n", line.trim_start_matches("[rich main] "))).collect();
        assert_eq!(said, RICH, "{place:?}");
        assert_eq!(
            lab.kmctl(&[&["runonce", "--pod", bad.path(), "--timeout", "180s"], place].concat()).status,
            3,
            "{place:?}"
        );
    }
    ended_by(&lab, &["--host", &host], "-KILL");
    eventually_or(
        Duration::from_secs(30),
        "the host to be as it was",
        || difference(&before, &lab.residue(&host)),
        || (lab.residue(&host) == before).then_some(()),
    );
}
