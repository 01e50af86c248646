//! The lab as its users see it: `scripts/lab`, `kmctl`, `kubectl`, and Mesos' HTTP API through curl.
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What `scripts/lab env` prints.
pub struct Lab {
    pub root: PathBuf,
    pub cluster: String,
    pub kubeconfig: String,
    pub mesos: String,
    pub credentials: String,
    /// The version of Kubernetes that cluster.yaml names.
    pub kubernetes: String,
}

/// Longest time a first pod may take: fetching, unpacking and starting a node on two busy cores.
pub const NODE_START: Duration = Duration::from_secs(180);

/// Time for a change to show up on a node that is already running.
pub const SETTLE: Duration = Duration::from_secs(60);

impl Lab {
    /// The lab with a living cluster in it.
    pub fn ready() -> Lab {
        let lab = Lab::bare();
        lab.kmctl(&["up", "--yes"]).success();
        lab.kmctl(&["kubeconfig", "--out", &lab.kubeconfig]).success();
        lab
    }

    /// The lab, whatever is in it.
    pub fn bare() -> Lab {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let printed = run(Command::new(root.join("scripts/lab")).arg("env")).success();
        let get = |name: &str| {
            let prefix = format!("{name}=");
            let line = printed.lines().find_map(|l| l.strip_prefix(&prefix));
            line.unwrap_or_else(|| panic!("scripts/lab env prints no {name}")).trim_matches(['\'', '"']).to_owned()
        };
        Lab {
            cluster: get("CLUSTER"),
            kubeconfig: get("KUBECONFIG"),
            mesos: get("MESOS_MASTER"),
            credentials: get("MESOS_CREDENTIALS"),
            kubernetes: get("KUBERNETES_VERSION"),
            root,
        }
    }

    /// Runs the release binary as an operator would.
    pub fn kmctl(&self, arguments: &[&str]) -> Finished {
        run(&mut self.kmctl_command(arguments))
    }

    pub fn kmctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program("kmctl"));
        command.args(arguments).args(["-f", &self.cluster]);
        command
    }

    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("target/release").join(name)
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Finished {
        run(&mut self.kubectl_command(arguments))
    }

    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        command.args(["--kubeconfig", &self.kubeconfig]).args(arguments);
        command
    }

    /// One object, or none.
    pub fn get(&self, arguments: &[&str]) -> Option<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        let finished = self.kubectl(&all);
        finished.ok().then(|| serde_json::from_str(&finished.stdout).expect("kubectl prints JSON"))
    }

    pub fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let list = self.get(arguments).unwrap_or_else(|| panic!("kubectl get {arguments:?} failed"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn nodes(&self) -> Vec<Value> {
        self.list(&["nodes"])
    }

    pub fn apply(&self, manifest: &str) {
        run_with(&mut self.kubectl_command(&["apply", "-f", "-"]), manifest).success();
    }

    /// A command on a lab host.
    pub fn ssh(&self, host: &str, command: &str) -> Finished {
        run(Command::new(self.root.join("scripts/lab")).args(["ssh", host, command]))
    }

    /// A command on a lab host that reads `input`.
    pub fn ssh_with(&self, host: &str, command: &str, input: &str) -> Finished {
        run_with(Command::new(self.root.join("scripts/lab")).args(["ssh", host, command]), input)
    }

    /// A GET on kube-scheduler of the first control-plane host, which answers on its loopback only, as the administrator.
    pub fn kube_scheduler(&self, path: &str) -> String {
        let script = format!(
            "set -e
folder=$(mktemp -d)
trap 'rm -rf $folder' EXIT
for part in certificate key; do
  sed -n \"s/^ *client-$part-data: *//p\" /etc/kubernetes/admin.conf | base64 -d >$folder/$part
done
curl -sS --fail --insecure --max-time 10 --cert $folder/certificate --key $folder/key https://127.0.0.1:10259{path}
"
        );
        self.ssh_with(&self.hosts("control-plane")[0], "bash -s", &script).success()
    }

    /// Does something to one of the lab's hosts, as `scripts/lab kill NAME` does.
    pub fn change(&self, what: &str, host: &str) {
        run(Command::new(self.root.join("scripts/lab")).args([what, host])).success();
    }

    /// Names of the lab's hosts with a role.
    pub fn hosts(&self, role: &str) -> Vec<String> {
        let printed = run(Command::new(self.root.join("scripts/lab")).arg("status")).success();
        let rows = printed.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        rows.filter(|r| r.get(1) == Some(&role)).map(|r| r[0].to_owned()).collect()
    }

    /// A GET on the Mesos master. The credentials go through standard input, as they would for an operator.
    pub fn mesos_get(&self, path: &str) -> Value {
        let printed = self.curl(&format!("{}{path}", self.mesos));
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{path} is no JSON: {e}: {printed:.200}"))
    }

    pub fn curl(&self, url: &str) -> String {
        self.curl_with(&["--max-time", "10", "--location", url]).success()
    }

    /// curl, with the credentials through standard input.
    fn curl_with(&self, arguments: &[&str]) -> Finished {
        let mut child = Command::new("curl")
            .args(["-sS", "-K", "-"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl starts");
        let config = format!("user = \"{}\"\n", self.credentials);
        child.stdin.take().expect("piped").write_all(config.as_bytes()).expect("curl reads");
        Finished::of(child.wait_with_output().expect("curl ends"), &format!("curl {arguments:?}"))
    }

    /// This cluster's framework in the master's state.
    pub fn framework(&self) -> Value {
        let state = self.mesos_get("/state");
        let all = state["frameworks"].as_array().cloned().unwrap_or_default();
        let ours = all.into_iter().find(|f| f["name"].as_str().is_some_and(|n| n.starts_with("kubernetes-")));
        ours.expect("the framework is registered")
    }

    /// This framework's tasks that have not ended, by name.
    pub fn tasks(&self) -> Vec<Value> {
        self.framework()["tasks"].as_array().cloned().unwrap_or_default()
    }

    pub fn task(&self, name: &str) -> Option<Value> {
        self.tasks().into_iter().find(|t| t["name"] == name)
    }

    pub fn completed_task(&self, name: &str) -> Option<Value> {
        let all = self.framework()["completed_tasks"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|t| t["name"] == name)
    }

    /// Waits until no node and no executor is left.
    pub fn wait_for_zero_nodes(&self) {
        eventually(Duration::from_secs(180), "every idle node to go", || {
            (self.nodes().is_empty() && self.framework()["executors"].as_array().is_none_or(Vec::is_empty))
                .then_some(())
        });
    }

    /// Waits until every agent is registered with the master.
    pub fn wait_for_agents(&self, limit: Duration) {
        eventually(limit, "every agent to register", || {
            let agents = self.curl_maybe("/slaves")?;
            let active = agents["slaves"].as_array()?.iter().filter(|agent| agent["active"] == true).count();
            (active == self.hosts("agent").len()).then_some(())
        });
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<Value> {
        self.get(&["-n", namespace, "pod", name])
    }

    pub fn wait_for_pod(&self, namespace: &str, name: &str, limit: Duration) -> Value {
        eventually_or(
            limit,
            &format!("pod {namespace}/{name} to run"),
            || self.describe(namespace),
            || self.pod(namespace, name).filter(ready),
        )
    }

    /// Waits until `count` pods are ready.
    pub fn wait_for_pods(&self, namespace: &str, count: usize, limit: Duration) -> Vec<Value> {
        eventually_or(
            limit,
            &format!("{count} pods of {namespace} to run"),
            || self.describe(namespace),
            || {
                let pods: Vec<Value> = self.list(&["-n", namespace, "pods"]).into_iter().filter(ready).collect();
                (pods.len() == count).then_some(pods)
            },
        )
    }

    /// All events on an object, newest last, as one text.
    pub fn events(&self, namespace: &str, name: &str) -> String {
        let selector = format!("involvedObject.name={name}");
        let items = self.list(&["-n", namespace, "events", "--field-selector", &selector]);
        items.iter().filter_map(|e| e["message"].as_str().map(|m| format!("{m}\n"))).collect()
    }

    fn describe(&self, namespace: &str) -> String {
        let pods = self.kubectl(&["-n", namespace, "get", "pods", "-o", "wide"]).stdout;
        let events = self.kubectl(&["-n", namespace, "get", "events"]).stdout;
        let nodes = self.kubectl(&["get", "nodes"]).stdout;
        format!("{pods}\n{events}\n{nodes}")
    }
}

/// A namespace that goes with the test, also when it fails.
pub struct Namespace<'a> {
    pub lab: &'a Lab,
    pub name: String,
}

impl<'a> Namespace<'a> {
    pub fn new(lab: &'a Lab, name: &str) -> Namespace<'a> {
        let _ = lab.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=120s"]);
        lab.kubectl(&["create", "namespace", name]).success();
        // Pods need the default service account, which a controller makes a moment later.
        eventually(SETTLE, "the default service account", || lab.get(&["-n", name, "serviceaccount", "default"]));
        Namespace { lab, name: name.to_owned() }
    }

    /// Applies a pod that sleeps, with the given requests.
    pub fn sleeper(&self, name: &str, cpu: &str, memory: &str) {
        self.pod(name, cpu, memory, "", "sleep 100000");
    }

    /// Applies a busybox pod; `extra` is YAML at the indentation of `spec`'s keys.
    pub fn pod(&self, name: &str, cpu: &str, memory: &str, extra: &str, script: &str) {
        let namespace = &self.name;
        let script = serde_json::to_string(script).expect("a string");
        self.lab.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 2
{extra}
  containers:
  - name: main
    image: docker.io/library/busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, {script}]
    resources: {{requests: {{cpu: {cpu}, memory: {memory}}}}}
"
        ));
    }

    /// Applies a Deployment of sleepers.
    pub fn deployment(&self, name: &str, replicas: usize, cpu: &str, memory: &str) {
        let namespace = &self.name;
        self.lab.apply(&format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: docker.io/library/busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, sleep 100000]
        resources: {{requests: {{cpu: {cpu}, memory: {memory}}}}}
"
        ));
    }

    pub fn wait(&self, name: &str, limit: Duration) -> Value {
        self.lab.wait_for_pod(&self.name, name, limit)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = self.lab.kubectl(&["delete", "namespace", &self.name, "--wait", "--timeout=120s"]);
    }
}

/// Bounds of nodes as the lab's other tests expect them, also when a test fails.
pub struct Bounds<'a>(pub &'a Lab);

impl Drop for Bounds<'_> {
    fn drop(&mut self) {
        let _ = self.0.kmctl(&["up", "--yes", "--reset-scale"]);
    }
}

/// A host without power, until this is dropped.
pub struct PowerCut<'a> {
    lab: &'a Lab,
    name: String,
}

impl<'a> PowerCut<'a> {
    pub fn of(lab: &'a Lab, name: &str) -> PowerCut<'a> {
        lab.change("kill", name);
        PowerCut { lab, name: name.to_owned() }
    }
}

impl Drop for PowerCut<'_> {
    fn drop(&mut self) {
        let started = run(Command::new(self.lab.root.join("scripts/lab")).args(["start", &self.name]));
        assert!(started.ok() || std::thread::panicking(), "{} does not start: {}", self.name, started.stderr);
    }
}

/// A PodDisruptionBudget for the pods with the label `app`.
pub fn disruption_budget(namespace: &str, app: &str, available: u32) -> String {
    format!(
        "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {app}, namespace: {namespace}}}
spec:
  minAvailable: {available}
  selector: {{matchLabels: {{app: {app}}}}}
"
    )
}

/// A child that is ended with the test: SIGTERM first, so that it can clean up.
pub struct Background(pub Child);

impl Background {
    pub fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// A command's end, kept for messages.
pub struct Finished {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    what: String,
}

impl Finished {
    pub fn of(output: Output, what: &str) -> Finished {
        Finished {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            what: what.to_owned(),
        }
    }

    pub fn ok(&self) -> bool {
        self.status == 0
    }

    /// Standard output of a command that must have succeeded.
    pub fn success(self) -> String {
        assert!(self.ok(), "{} ended with {}\n{}\n{}", self.what, self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command that reads `input`.
pub fn run_with(command: &mut Command, input: &str) -> Finished {
    let what = format!("{command:?}");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
    // A command that ends before it has read everything says why itself.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    Finished::of(child.wait_with_output().expect("it ends"), &what)
}

pub fn run(command: &mut Command) -> Finished {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{what}: {e}"));
    Finished::of(output, &what)
}

/// Asks until there is an answer; the deadline names what was waited for.
pub fn eventually<T>(limit: Duration, what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_or(limit, what, String::new, ask)
}

pub fn eventually_or<T>(
    limit: Duration,
    what: &str,
    explain: impl Fn() -> String,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}\n{}", explain());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A pod's Ready condition.
pub fn ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null()
        && pod["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// A pod's first container: id and start time, which change when it is restarted.
pub fn container_identity(pod: &Value) -> (String, String) {
    let status = &pod["status"]["containerStatuses"][0];
    (
        status["containerID"].as_str().unwrap_or_default().to_owned(),
        status["state"]["running"]["startedAt"].as_str().unwrap_or_default().to_owned(),
    )
}

pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// Numbers that are the same in every run (a linear congruential generator).
pub struct Random(pub u64);

impl Random {
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + ((self.0 >> 33) as u32) % (high - low)
    }
}

/// Decimal number of a JSON field.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

pub fn temporary_folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

impl Lab {
    /// A GET on the master that may fail, as while it is restarting.
    pub fn curl_maybe(&self, path: &str) -> Option<Value> {
        let finished = self.curl_with(&["--max-time", "5", &format!("{}{path}", self.mesos)]);
        finished.ok().then(|| serde_json::from_str(&finished.stdout).ok()).flatten()
    }

    /// A call of the master's v1 operator API without arguments, its answer as text.
    pub fn mesos_call(&self, kind: &str) -> String {
        self.mesos_post(&serde_json::json!({ "type": kind }))
    }

    /// A call of the master's v1 operator API, its answer as text.
    pub fn mesos_post(&self, call: &Value) -> String {
        let body = call.to_string();
        let url = format!("{}/api/v1", self.mesos);
        let json = ["-H", "Content-Type: application/json", "-H", "Accept: application/json"];
        self.curl_with(&[&["--fail", "--max-time", "20", "-d", &body, &url][..], &json].concat()).success()
    }

    /// A lab host's address.
    pub fn address(&self, host: &str) -> String {
        let printed = run(Command::new(self.root.join("scripts/lab")).arg("status")).success();
        let rows = printed.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        rows.filter(|r| r.first() == Some(&host)).map(|r| r[2].to_owned()).next().expect("a lab host")
    }

    /// What is on a host, as `tests/residue` prints it there.
    pub fn residue(&self, host: &str) -> String {
        let script = std::fs::read_to_string(self.root.join("tests/residue")).expect("tests/residue");
        self.ssh_with(host, "bash -s", &script).success()
    }

    /// Another team's framework, which holds on every agent what `km mesos hold` is told to.
    pub fn foreign_framework(&self, name: &str, wanted: &[&str]) -> Background {
        let (principal, secret) = self.credentials.split_once(':').expect("principal:secret");
        let folder = temporary_folder();
        let secret_file = folder.path().join("secret");
        std::fs::write(&secret_file, secret).expect("written");
        // Agents fetch the program from km scheduler, which serves the very same file to nodes.
        let km = self.program("km");
        let sum = run(Command::new("sha256sum").arg(&km)).success();
        let uri = format!(
            "http://{}:10271/artifacts/{}",
            self.address(&self.hosts("control-plane")[0]),
            sum.split_whitespace().next().expect("a hash")
        );
        let child = Command::new(&km)
            .args(["mesos", "hold", "--name", name, "--role", name])
            .args(wanted)
            .args(["--master", self.mesos.trim_start_matches("http://"), "--principal", principal, "--km-uri", &uri])
            .arg("--secret-file")
            .arg(&secret_file)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("km starts");
        let background = Background(child);
        eventually(SETTLE, "the other framework to be registered", || {
            self.mesos_get("/state")["frameworks"].as_array()?.iter().any(|one| one["name"] == name).then_some(())
        });
        background
    }
}
