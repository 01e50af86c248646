//! `kmctl check`: checks whether hosts and Mesos meet the requirements. It changes nothing.
use kmctl_core::text::count;
use std::fmt::Write as _;

use super::context::{Context, OutputFormat};
use crate::failure::{Code, Failure};
use crate::plan::preflight::{AgentGroup, Level};
use crate::provision::check::Report;
use crate::provision::phases;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `kmctl check`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let report = phases::check(&context.session, &context.cluster()?).await;
    match context.settings.output {
        OutputFormat::Text => context.stdout(&text(&report))?,
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

fn text(report: &Report) -> String {
    let mut out = String::new();
    let gib = |kib: u64| kib as f64 / f64::from(1 << 20);
    // Writing to a String cannot fail.
    for host in &report.hosts {
        let _ = match &host.machine {
            Some(machine) => writeln!(
                out,
                "host {} ({}): {}, {}, {} CPU, {:.1} GiB memory, {:.1} GiB free",
                host.name,
                host.address,
                machine.os,
                machine.architecture,
                machine.cpus,
                gib(machine.memory_kib),
                gib(machine.free_kib.get("/var/lib").copied().unwrap_or(0)),
            ),
            None => writeln!(out, "host {} ({}): Unreachable", host.name, host.address),
        };
    }
    if let Some(mesos) = &report.mesos {
        let region = mesos.master.region.as_ref().map(|region| format!(", region {region}")).unwrap_or_default();
        let _ = writeln!(out, "mesos {} at {}{region}", mesos.master.version, mesos.master.leader);
        for group in &mesos.groups {
            let _ = writeln!(out, "  {}", describe(group));
        }
        let all = mesos.master.agents.len();
        let _ = writeln!(out, "  {} of {all} agents eligible to run nodes", mesos.fit);
    }
    let (mut errors, mut warnings) = (0_usize, 0_usize);
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
        let _ = writeln!(out, "{sign} {}: {}\n    hint: {}", finding.about, finding.text, finding.cure);
    }
    let _ = match (errors, warnings) {
        (0, 0) => writeln!(out, "✓ All checks passed"),
        (0, _) => writeln!(out, "✓ All checks passed, {}", count(warnings, "warning")),
        _ => writeln!(out, "✗ {}, {}", count(errors, "error"), count(warnings, "warning")),
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
    let unfit = unfit.as_ref().map(|why| format!("; not eligible: {why}")).unwrap_or_default();
    format!("{who}: mesos {version}, {} CPU, {:.0} MiB, {ports}{isolation}{unfit}", resources.cpus, resources.mem)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
