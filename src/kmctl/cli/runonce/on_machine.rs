//! A run on one machine, without Mesos: `km runonce` there, with the pods on its standard input and events on its
//! standard output. It ends when its output is no longer read, so a killed kmctl leaves nothing behind.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::artifacts::{self, Chosen};
use super::output::Printer;
use super::{POD_NETWORK, Reach};
use crate::apply::km_beside_kmctl;
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::host::{Command, Host, LocalHost};
use kmctl_core::cluster::Loaded;
use kmctl_core::model::ids::IdSource;
use kmctl_core::model::requests;
use kmctl_core::protocol::launch::{FORMAT, PodLaunch, PortMapping, RunLaunch};
use kmctl_core::protocol::runonce::{FromNode, HostRun, HostTask, PodState, is_about_fetching};
use runonce::decide::exit;
use runonce::decide::framework::{Outcome, Wanted};
use runonce::run::Listener as _;

/// A run has no time limit of its own: `--timeout` is the operator's.
const NO_LIMIT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long the machine may take to end a run after it was signalled.
const END_LIMIT: Duration = Duration::from_secs(45);

/// Receives km, removes it as soon as it runs, and runs it. `$1` is its size in bytes.
const UPLOAD: &str = r#"umask 077; f=$(mktemp /run/km-runonce-XXXXXX) || exit 1
head -c "$1" >"$f" && chmod 700 "$f" && exec "$f" runonce --unlink "$f"; s=$?; rm -f "$f"; exit $s"#;

/// What to run, and how.
pub struct Run {
    pub pods: Vec<Wanted>,
    /// The time limit from the start of the run to its end.
    pub timeout: Option<Duration>,
    /// Whether to keep logs on the machine.
    pub keep: bool,
    /// The URL that the machine downloads from.
    pub artifacts: Option<String>,
    /// The address of kmctl's own server, if it serves.
    pub listen: Option<SocketAddr>,
    /// Cancelled when the operator interrupts the run.
    pub interrupted: CancellationToken,
}

/// Runs the pods on a control-plane host.
pub async fn on_host(name: &str, loaded: Loaded, run: Run, context: &Context) -> Result<Outcome, Failure> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    let Some(spec) = hosts.iter().find(|host| host.name == name || host.address == name).cloned() else {
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        let text = format!("host `{name}` not found in {}", loaded.path.display());
        let failure = Failure::message(Code::Runonce, text);
        return Err(if names.is_empty() { failure } else { failure.hint(format!("hosts: {}", names.join(", "))) });
    };
    let step = context.progress.step(&spec.name, "Connecting");
    let host: Arc<dyn Host> = Arc::new(
        context
            .session
            .connect(&loaded, &spec)
            .await
            .with_context(|| format!("failed to connect to {} over SSH", spec.name))?,
    );
    // A session runs one command at a time.
    let second: Arc<dyn Host> = Arc::new(
        context
            .session
            .connect(&loaded, &spec)
            .await
            .with_context(|| format!("failed to connect to {} over SSH", spec.name))?,
    );
    step.done("Connected");
    let (km, _) = km_beside_kmctl()?;
    let program = std::fs::read(&km).with_context(|| format!("failed to read {}", km.display()))?;
    let size = program.len().to_string();
    let command = Command::new(["sh", "-c", UPLOAD, "sh", &size]).stdin(program).privileged();
    let port = spec.ssh.as_ref().and_then(|ssh| ssh.port).unwrap_or(loaded.cluster.spec.ssh.port);
    let towards = format!("{}:{port}", spec.address);
    let reach = Reach { loaded, host: Some(host.clone()) };
    carry_out(reach, &towards, Machine::Host(&spec.name), (host, second), command, run, context).await
}

/// Runs the pods on this machine.
pub async fn here(loaded: Loaded, run: Run, context: &Context) -> Result<Outcome, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            Failure::message(Code::Runonce, "--local requires root").hint("run it with sudo, or without --local")
        );
    }
    let (km, _) = km_beside_kmctl()?;
    let command = Command::new([km.display().to_string().as_str(), "runonce"]);
    let reach = Reach { loaded, host: None };
    let host: Arc<dyn Host> = Arc::new(LocalHost);
    carry_out(reach, "127.0.0.1:1", Machine::Here, (host.clone(), host), command, run, context).await
}

async fn carry_out(
    reach: Reach,
    towards: &str,
    machine: Machine<'_>,
    (host, second): (Arc<dyn Host>, Arc<dyn Host>),
    mut command: Command,
    run: Run,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Run { pods, timeout, keep, artifacts, listen, interrupted } = run;
    let Chosen { offered, server: _server } =
        artifacts::choose(&reach, artifacts.as_deref(), listen, Some(towards), context).await?;
    let spec = &reach.loaded.cluster.spec;
    let overhead = requests::amount(&spec.nodes.overhead.cpu, &spec.nodes.overhead.memory)?;
    let id = IdSource::new(rand::random()).next_id();
    let launch = RunLaunch {
        format: FORMAT,
        run: format!("once-{id}"),
        node_name: machine.node_name(),
        node_ip: None,
        kubernetes_version: offered.kubernetes,
        root_dir: spec.nodes.root_dir.clone().into(),
        pod_cidr: POD_NETWORK.to_owned(),
        cluster_domain: spec.kubernetes.cluster_domain.clone(),
        artifacts: offered.files,
        overhead: overhead.grant(),
        keep,
    };
    let tasks = pods.iter().map(task).collect();
    let given = pods.iter().map(|pod| pod.given.clone()).collect();
    let input = serde_json::to_vec(&HostRun { launch, tasks, pods: given }).context("failed to serialize the run")?;
    command.stdin.extend(input);
    let outcome = follow(host, second, command.timeout(NO_LIMIT), &pods, timeout, interrupted, context).await?;
    if keep {
        let kept = format!("{}/kept/once.{id}", spec.nodes.root_dir);
        context.progress.note(machine.label(), &format!("pod and node logs are in {kept} (readable by root)"));
    }
    Ok(outcome)
}

/// Where the pods run.
#[derive(Clone, Copy)]
enum Machine<'a> {
    /// On a control-plane host of this name.
    Host(&'a str),
    Here,
}

impl<'a> Machine<'a> {
    /// In messages.
    fn label(self) -> &'a str {
        match self {
            Machine::Host(name) => name,
            Machine::Here => "this machine",
        }
    }

    /// A node's name. A host's name in cluster.yaml may be an address, which is valid as a node's name, too.
    fn node_name(self) -> String {
        let Machine::Host(name) = self else { return "localhost".to_owned() };
        name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-")
    }
}

fn task(pod: &Wanted) -> HostTask {
    // Without Mesos no ports are granted: only explicitly named host ports are mapped.
    let named = pod.ports.iter().filter_map(|port| {
        let (container_port, protocol) = (port.container_port, port.protocol.clone());
        port.host_port.map(|host_port| PortMapping { container_port, host_port, protocol })
    });
    HostTask {
        pod: PodLaunch {
            format: FORMAT,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.given.uid.clone(),
            ports: named.collect(),
        },
        grant: pod.amount.grant(),
    }
}

/// The state of each pod.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Waiting,
    Running,
    Ended(u8),
    Stopped(String),
}

async fn follow(
    host: Arc<dyn Host>,
    second: Arc<dyn Host>,
    command: Command,
    pods: &[Wanted],
    timeout: Option<Duration>,
    interrupted: CancellationToken,
    context: &Context,
) -> Result<Outcome, Failure> {
    let (lines, mut arriving) = mpsc::channel(64);
    let name = host.name().to_owned();
    let working = tokio::spawn({
        let host = host.clone();
        async move { host.run_lines(command, lines).await }
    });
    let mut printer = Printer::new(pods, context.progress.clone());
    let mut stages = vec![Stage::Waiting; pods.len()];
    let (mut pid, mut told, mut notes) = (None, None, Vec::new());
    let mut deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = interrupted.cancelled(), if told.is_none() => {
                told = Some(Outcome::Interrupted);
                deadline = Some(Instant::now() + END_LIMIT);
                stop(&second, pid).await;
            }
            () = time_up => {
                if let Some(outcome) = told {
                    context.stderr(&format!("warning: {name} has not stopped the run yet; it stops when kmctl exits\n"));
                    return Ok(outcome);
                }
                told = Some(Outcome::TimeUp);
                deadline = Some(Instant::now() + END_LIMIT);
                stop(&second, pid).await;
            }
            line = arriving.recv() => {
                let Some(line) = line else { break };
                let Ok(what) = serde_json::from_str::<FromNode>(&line) else { continue };
                let place = |uid: &str| pods.iter().position(|pod| pod.given.uid == uid);
                match what {
                    FromNode::Alive { pid: own } => {
                        // The stop was requested before the process was known.
                        if pid.replace(own).is_none() && told.is_some() {
                            stop(&second, pid).await;
                        }
                    }
                    FromNode::Note { text } => {
                        printer.note(&text);
                        notes.push(text);
                    }
                    FromNode::Output { uid, container, error, data, .. } => {
                        if let Some(pod) = place(&uid) {
                            printer.output(pod, &container, error, &data.0);
                        }
                    }
                    FromNode::State { uid, state, message, exit_code } => {
                        let Some(pod) = place(&uid) else { continue };
                        stages[pod] = match (state, exit_code) {
                            (PodState::Running, _) if stages[pod] == Stage::Waiting => {
                                printer.note(&format!("pod {} is running on {name}", pods[pod].name));
                                Stage::Running
                            }
                            (PodState::Ended, Some(code)) => Stage::Ended(code),
                            (PodState::Ended | PodState::Stopped, _) => Stage::Stopped(message),
                            _ => continue,
                        };
                    }
                    FromNode::Wants { .. } => {}
                }
            }
        }
    }
    let output = working.await?.with_context(|| format!("failed to run the pods on {name}"))?;
    if let Some(outcome) = told {
        return Ok(outcome);
    }
    if !output.success() {
        return Err(anyhow::anyhow!("km runonce on {name}: {}", output.last_words()).into());
    }
    Ok(judge(pods, &stages, &notes))
}

fn judge(pods: &[Wanted], stages: &[Stage], notes: &[String]) -> Outcome {
    let failed = pods.iter().zip(stages).filter_map(|(pod, stage)| {
        let why = match stage {
            Stage::Ended(_) => return None,
            Stage::Stopped(why) => why,
            Stage::Waiting | Stage::Running => notes.last().map_or("the run ended before the pod", String::as_str),
        };
        Some((format!("pod {}: {why}", pod.name), is_about_fetching(why)))
    });
    let (why, fetch): (Vec<String>, Vec<bool>) = failed.unzip();
    if !why.is_empty() {
        return Outcome::Failed { why, fetch: fetch.contains(&true) };
    }
    Outcome::Exit(exit::of_all(stages.iter().filter_map(|stage| match stage {
        Stage::Ended(code) => Some(*code),
        _ => None,
    })))
}

/// Sends SIGTERM to the run. If that fails, the run ends with the connection.
async fn stop(host: &Arc<dyn Host>, pid: Option<u32>) {
    if let Some(pid) = pid {
        let _ = host.run(Command::new(["kill".to_owned(), "-TERM".to_owned(), pid.to_string()]).privileged()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmctl_core::model::resources::Amount;

    fn pods(names: &[&str]) -> Vec<Wanted> {
        names
            .iter()
            .map(|name| Wanted {
                given: serde_json::from_value(serde_json::json!({"uid": name, "pod": {}})).unwrap(),
                namespace: "default".into(),
                name: (*name).to_owned(),
                amount: Amount::new(100, 64),
                ports: Vec::new(),
            })
            .collect()
    }

    fn runs(script: &str, timeout: Option<Duration>, interrupted: bool) -> Result<Outcome, Failure> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let settings = crate::cli::Settings {
            file: "x".into(),
            output: Default::default(),
            out: None,
            yes: false,
            verbose: false,
            quiet: true,
            accept_new_host_keys: false,
            log_format: Default::default(),
        };
        let context = Context::new(settings);
        let token = CancellationToken::new();
        if interrupted {
            token.cancel();
        }
        let host: Arc<dyn Host> = Arc::new(LocalHost);
        let command = Command::new(["sh", "-c", script]).timeout(NO_LIMIT);
        runtime.block_on(follow(host.clone(), host, command, &pods(&["a", "b"]), timeout, token, &context))
    }

    #[test]
    fn the_nodes_name_does_not_depend_on_how_the_machine_is_called_in_messages() {
        assert_eq!(Machine::Here.node_name(), "localhost");
        assert_eq!(Machine::Host(Machine::Here.label()).node_name(), "this-machine");
        assert_eq!(Machine::Host("CP_1").node_name(), "cp-1");
    }

    /// A machine that reports these states and exits.
    fn says(states: &[&str]) -> String {
        states.iter().map(|state| format!("echo '{{\"kind\":\"state\",{state}}}';")).collect()
    }

    #[test]
    fn a_run_has_the_first_code_that_is_not_zero_in_the_order_of_the_file() {
        let script = says(&[
            r#""uid":"b","state":"running""#,
            r#""uid":"b","state":"ended","exitCode":9"#,
            r#""uid":"a","state":"ended","exitCode":3"#,
        ]);
        assert_eq!(runs(&script, None, false).unwrap(), Outcome::Exit(3));
    }

    #[test]
    fn a_pod_that_could_not_be_run_makes_the_run_fail() {
        let script =
            says(&[r#""uid":"a","state":"ended","exitCode":0"#, r#""uid":"b","state":"stopped","message":"no image""#]);
        assert_eq!(
            runs(&script, None, false).unwrap(),
            Outcome::Failed { why: vec!["pod b: no image".into()], fetch: false }
        );
        let ended = runs("echo '{\"kind\":\"note\",\"text\":\"no disk\"}'", None, false).unwrap();
        let why = vec!["pod a: no disk".into(), "pod b: no disk".into()];
        assert_eq!(ended, Outcome::Failed { why, fetch: false });
    }

    #[test]
    fn what_km_says_when_it_fails_is_told() {
        let failure = runs("echo 'error: prepare the run' >&2; exit 1", None, false).unwrap_err();
        assert!(
            failure.render().contains("km runonce on this machine: error: prepare the run"),
            "{}",
            failure.render()
        );
    }

    #[test]
    fn time_and_the_operator_end_the_machines_run_in_order() {
        // Ends only on SIGTERM, after its cleanup.
        let script = r#"trap 'exit 0' TERM; while :; do echo "{\"kind\":\"alive\",\"pid\":$$}"; sleep 0.05; done"#;
        let started = std::time::Instant::now();
        assert_eq!(runs(script, Some(Duration::from_millis(300)), false).unwrap(), Outcome::TimeUp);
        assert_eq!(runs(script, None, true).unwrap(), Outcome::Interrupted);
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
