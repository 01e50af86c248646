//! `kmctl check`: are the hosts and Mesos fit? Looks, and touches nothing. It needs no bundle, and makes none: what it says
//! of hosts and agents does not depend on the files in it.
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::context::{Context, OutputFormat};
use super::failure::{Code, Failure};
use super::reach;
use crate::host::Host;
use crate::inventory::machine::{self, Machine};
use crate::inventory::mesos::Master;
use crate::plan::preflight::{
    AgentGroup, Finding, Level, group, judge_clocks, judge_machine, judge_mesos, judge_routes, reason_against,
};
use kmctl_core::cluster::{Cluster, Loaded};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Everything that was looked at.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cluster: String,
    hosts: Vec<HostReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mesos: Option<MesosReport>,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostReport {
    name: String,
    address: String,
    /// None where the host could not be looked at; a finding says why.
    machine: Option<Machine>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MesosReport {
    #[serde(flatten)]
    master: Master,
    groups: Vec<AgentGroup>,
    /// How many agents could become nodes.
    fit: usize,
}

/// Looks at everything and tells what was found.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let loaded = context.cluster()?;
    let report = look(context, &loaded).await;
    match context.settings.output {
        OutputFormat::Text => context.data(&text(&report))?,
        OutputFormat::Json => context.json(&report)?,
    }
    Ok(code(&report))
}

fn code(report: &Report) -> Code {
    if report.hosts.iter().any(|host| host.machine.is_none()) {
        Code::SomeHosts
    } else if report.findings.iter().any(|finding| finding.level == Level::Error) {
        Code::Failed
    } else {
        Code::Ok
    }
}

async fn look(context: &Context, loaded: &Loaded) -> Report {
    let specs = &loaded.cluster.spec.control_plane.hosts;
    let looks = futures::future::join_all(specs.iter().map(|spec| look_at(context, loaded, spec))).await;
    let mut findings = Vec::new();
    let mut hosts = Vec::new();
    let mut first: Option<Arc<dyn Host>> = None;
    for (spec, look) in specs.iter().zip(looks) {
        let machine = match look {
            Ok((host, machine)) => {
                findings.extend(judge_machine(&spec.name, &machine));
                findings.extend(judge_routes(&loaded.cluster, &spec.name, &machine));
                first.get_or_insert(host);
                Some(machine)
            }
            Err(failure) => {
                let (text, hint) = failure.summary();
                let cure = hint.unwrap_or_else(|| format!("try `ssh {}` from here", spec.address));
                findings.push(Finding::error(&spec.name, text, cure));
                None
            }
        };
        hosts.push(HostReport { name: spec.name.clone(), address: spec.address.clone(), machine });
    }
    let seen: Vec<_> = hosts.iter().filter_map(|host| Some((host.name.as_str(), host.machine.as_ref()?))).collect();
    findings.extend(judge_clocks(&seen));
    let mesos = match first {
        Some(host) => match ask_mesos(context, loaded, host).await {
            Ok(master) => {
                findings.extend(judge_mesos(&loaded.cluster, &master));
                Some(mesos_report(&loaded.cluster, master))
            }
            Err(failure) => {
                let (text, hint) = failure.summary();
                let cure = hint.unwrap_or_else(|| "look at spec.mesos in cluster.yaml".to_owned());
                findings.push(Finding::error("mesos", text, cure));
                None
            }
        },
        None => None,
    };
    findings.sort_by_key(|finding| finding.level);
    Report { cluster: loaded.cluster.metadata.name.clone(), hosts, mesos, findings }
}

async fn look_at(
    context: &Context,
    loaded: &Loaded,
    spec: &kmctl_core::cluster::HostSpec,
) -> Result<(Arc<dyn Host>, Machine), Failure> {
    let step = context.progress.step(&spec.name, "look at the host");
    let looked = async {
        let host = context.connect(loaded, spec).await?;
        let machine = machine::look(&host).await?;
        Ok::<_, Failure>((Arc::new(host) as Arc<dyn Host>, machine))
    }
    .await;
    match &looked {
        Ok(_) => step.done(""),
        Err(_) => step.failed("failed"),
    }
    looked
}

async fn ask_mesos(context: &Context, loaded: &Loaded, host: Arc<dyn Host>) -> Result<Master, Failure> {
    let step = context.progress.step("mesos", "ask the master and the agents");
    let asked = reach::master(host, loaded).await;
    match &asked {
        Ok(master) => step.done(&format!("{} agents", master.agents.len())),
        Err(_) => step.failed("failed"),
    }
    asked
}

fn mesos_report(cluster: &Cluster, master: Master) -> MesosReport {
    let groups = group(cluster, &master.agents);
    let fit = master.agents.iter().filter(|agent| reason_against(cluster, agent).is_none()).count();
    MesosReport { master, groups, fit }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    let gib = |kib: u64| kib as f64 / f64::from(1 << 20);
    // Writing to a String cannot fail.
    for host in &report.hosts {
        let _ = match &host.machine {
            Some(machine) => writeln!(
                out,
                "host {} ({}): {}, {}, {} cpus, {:.1} GiB memory, {:.1} GiB free in /var/lib",
                host.name,
                host.address,
                machine.os,
                machine.architecture,
                machine.cpus,
                gib(machine.memory_kib),
                gib(machine.free_kib.get("/var/lib").copied().unwrap_or(0)),
            ),
            None => writeln!(out, "host {} ({}): not seen", host.name, host.address),
        };
    }
    if let Some(mesos) = &report.mesos {
        let region = mesos.master.region.as_ref().map(|region| format!(", region {region}")).unwrap_or_default();
        let _ = writeln!(out, "mesos {} at {}{region}", mesos.master.version, mesos.master.leader);
        for group in &mesos.groups {
            let _ = writeln!(out, "  {}", describe(group));
        }
        let all = mesos.master.agents.len();
        let _ = writeln!(out, "  {} of {all} agents can become nodes", mesos.fit);
    }
    let (mut errors, mut warnings) = (0, 0);
    for finding in &report.findings {
        let sign = match finding.level {
            Level::Error => {
                errors += 1;
                "✗"
            }
            Level::Warning => {
                warnings += 1;
                "!"
            }
        };
        let _ = writeln!(out, "{sign} {}: {}\n    cure: {}", finding.about, finding.text, finding.cure);
    }
    let _ = match (errors, warnings) {
        (0, 0) => writeln!(out, "✓ nothing stands in the way of `kmctl up`"),
        (0, _) => writeln!(out, "✓ nothing stands in the way of `kmctl up`; warnings: {warnings}"),
        _ => writeln!(out, "✗ errors: {errors}, warnings: {warnings}"),
    };
    out
}

fn describe(group: &AgentGroup) -> String {
    let AgentGroup { agents, version, resources, ports, launcher, isolation, unfit } = group;
    let who =
        if agents.len() == 1 { agents[0].clone() } else { format!("{} agents ({})", agents.len(), agents.join(", ")) };
    let ports = if ports.is_empty() { "no ports".to_owned() } else { format!("ports {ports}") };
    let isolation = match (launcher, isolation) {
        (Some(launcher), Some(isolation)) => format!(", launcher {launcher}, isolation {isolation}"),
        _ => ", flags not visible".to_owned(),
    };
    let unfit = unfit.as_ref().map(|why| format!("; cannot become nodes: {why}")).unwrap_or_default();
    format!("{who}: mesos {version}, {} cpus, {:.0} MB, {ports}{isolation}{unfit}", resources.cpus, resources.mem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::mesos::{Agent, AgentFlags, Pressure};

    fn cluster() -> Cluster {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "kmctl.io/v1alpha1", "kind": "Cluster", "metadata": { "name": "demo" },
            "spec": {
                "mesos": { "master": "10.0.0.5:5050" },
                "controlPlane": { "endpoint": "10.0.0.11:6443", "hosts": [{ "address": "10.0.0.11" }] }
            }
        }))
        .unwrap()
    }

    fn agent(name: &str, ports: &str) -> Agent {
        let flags = [("launcher", "linux"), ("isolation", "cgroups/cpu,cgroups/mem")];
        Agent {
            hostname: name.to_owned(),
            address: format!("{name}:5051"),
            version: "1.11.0".to_owned(),
            active: true,
            resources: Pressure { cpus: 4.0, mem: 8192.0 },
            ports: ports.to_owned(),
            flags: Some(AgentFlags {
                flags: flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                ..AgentFlags::default()
            }),
            ..Agent::default()
        }
    }

    fn report(machine: Option<Machine>, agents: Vec<Agent>) -> Report {
        let cluster = cluster();
        let master = Master {
            version: "1.11.0".to_owned(),
            leader: "10.0.0.5:5050".to_owned(),
            region: Some("eu".to_owned()),
            agents,
            ..Master::default()
        };
        let mut findings = judge_mesos(&cluster, &master);
        match &machine {
            Some(machine) => findings.extend(judge_machine("cp1", machine)),
            None => findings.push(Finding::error("cp1", "no answer within 10s", "try `ssh 10.0.0.11` from here")),
        }
        findings.sort_by_key(|finding| finding.level);
        let host = HostReport { name: "cp1".to_owned(), address: "10.0.0.11".to_owned(), machine };
        let mesos = Some(mesos_report(&cluster, master));
        Report { cluster: "demo".to_owned(), hosts: vec![host], mesos, findings }
    }

    fn machine() -> Machine {
        Machine {
            uid: Some(0),
            architecture: "x86_64".to_owned(),
            os: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            init: "systemd".to_owned(),
            systemd: "systemd 252".to_owned(),
            cpus: 4,
            memory_kib: 8 << 20,
            free_kib: [("/var/lib".to_owned(), 40 << 20)].into(),
            ..Machine::default()
        }
    }

    #[test]
    fn a_fit_cluster_is_told_in_a_few_lines() {
        let agents = vec![agent("agent1", "[31000-32000]"), agent("agent2", "[31000-32000]")];
        let report = report(Some(machine()), agents);
        insta::assert_snapshot!(text(&report));
        assert_eq!(code(&report), Code::Ok);
    }

    #[test]
    fn every_finding_comes_with_its_cure_and_errors_come_first() {
        let mut machine = machine();
        machine.memory_kib = 1 << 20;
        machine.ports.insert(6443, "nginx".to_owned());
        let agents = vec![agent("agent1", "[28000-32000]"), agent("agent2", "")];
        let report = report(Some(machine), agents);
        insta::assert_snapshot!(text(&report));
        assert_eq!(code(&report), Code::Failed);
    }

    #[test]
    fn a_host_that_does_not_answer_has_an_exit_code_of_its_own() {
        let report = report(None, vec![agent("agent1", "[31000-32000]")]);
        insta::assert_snapshot!(text(&report));
        assert_eq!(code(&report), Code::SomeHosts);
    }
}
