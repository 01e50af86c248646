//! A report as text.
use std::fmt::Write as _;

use jiff::Timestamp;

use super::status::{BoundsReport, HostReport, NodeReport, PodsReport, Report};
use crate::inventory::units::Unit;
use kmctl_core::model::nodes::shown_state;
use kmctl_core::pki::RENEW_DAYS;
use kmctl_core::text;

impl Report {
    /// Formats the report as text. With `all`, every certificate is listed.
    pub(crate) fn text(&self, now: Timestamp, all: bool) -> String {
        let mut out = format!("cluster {}, https://{}\n", self.cluster, self.endpoint);
        // Writing to a String cannot fail.
        for host in &self.hosts {
            let _ = writeln!(out, "host {} ({}): {}", host.name, host.address, describe(host.units.as_deref()));
            out.push_str(&certificates(host, now, all));
        }
        if let Some(api) = &self.api {
            let state = if api.ready { "ready".to_owned() } else { format!("not ready: {}", api.unready.join("; ")) };
            let _ = writeln!(out, "api {}: {state}", api.version);
        }
        if let Some(mesos) = &self.mesos {
            let framework = match &mesos.framework {
                Some(id) => {
                    let connected = if mesos.connected { "connected" } else { "disconnected" };
                    format!(
                        "framework {id} {connected}, {}, {} CPU, {} MiB",
                        text::count(mesos.tasks, "task"),
                        round(mesos.resources.cpus),
                        round(mesos.resources.mem)
                    )
                }
                None => "no framework of this cluster".to_owned(),
            };
            let _ = writeln!(out, "mesos {} at {}: {framework}", mesos.version, mesos.leader);
            if !mesos.not_running.is_empty() {
                let _ = writeln!(out, "  not running: {}", mesos.not_running.join(", "));
            }
        }
        if self.api.is_some() {
            out.push_str(&self.nodes_text());
            let PodsReport { running, starting, unscheduled } = self.pods;
            let _ = writeln!(out, "pods: {running} running, {starting} starting, {unscheduled} pending");
        }
        for warning in self.warnings(now) {
            let _ = writeln!(out, "! {warning}");
        }
        for problem in &self.problems {
            let _ = writeln!(out, "✗ {problem}");
        }
        out
    }

    /// What needs inspection though nothing is broken.
    fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut all = Vec::new();
        for host in &self.hosts {
            for certificate in host.certificates.iter().filter(|one| days(one.expires, now) < RENEW_DAYS) {
                let cure = if certificate.authority { "renew it manually" } else { "renew it with `kmctl up`" };
                let (name, path, left) = (&host.name, &certificate.path, days(certificate.expires, now));
                all.push(format!("{name}: {path} {}; {cure}", ends(left)));
            }
            if let Some(outdated) = host.outdated.as_ref().filter(|outdated| !outdated.is_empty()) {
                let what = outdated.join(", ");
                all.push(format!(
                    "{}: differs from cluster.yaml ({what}): preview with `kmctl plan`, apply with `kmctl up`",
                    host.name
                ));
            }
        }
        if let Some(BoundsReport { live, file }) = &self.bounds
            && live != file
        {
            all.push(format!(
                "node limits set with `kmctl scale`: {} (cluster.yaml: {}); reset with `kmctl up --reset-scale`",
                live.shown(),
                file.shown()
            ));
        }
        let old: Vec<&str> = self.nodes.iter().filter(|node| node.outdated).map(|node| node.name.as_str()).collect();
        if !old.is_empty() {
            all.push(format!("{}: runs an older km until the node is replaced", old.join(", ")));
        }
        all.extend(self.disagreements.iter().chain(&self.warnings).cloned());
        all
    }

    fn nodes_text(&self) -> String {
        let bounds = self.bounds.as_ref().map(|bounds| format!(" ({})", bounds.live.shown())).unwrap_or_default();
        if self.nodes.is_empty() {
            return format!("nodes: none{bounds} (a node starts when a pod needs one)\n");
        }
        let header = ["  NODE", "AGENT", "STATE", "READY", "ALLOCATION", "PODS", "PROXY"].map(str::to_owned);
        let rows = self.nodes.iter().map(|node| {
            let ready = if node.ready { "yes" } else { "no" };
            let name = format!("  {}", node.name);
            let NodeReport { agent, state, grant, proxy, .. } = node;
            let [agent, grant, proxy] = [agent, grant, proxy].map(Clone::clone);
            let state = shown_state(state).to_owned();
            [name, agent, state, ready.to_owned(), grant, node.pods.to_string(), proxy]
        });
        let table = table(std::iter::once(header).chain(rows).collect());
        let why: String = self.nodes.iter().map(reason).collect();
        format!("nodes: {}{bounds}\n{table}{why}", self.nodes.len())
    }
}

fn reason(node: &NodeReport) -> String {
    if node.why.is_empty() { String::new() } else { format!("  {}: {}\n", node.name, node.why) }
}

fn days(end: Timestamp, now: Timestamp) -> i64 {
    (end.as_second() - now.as_second()).div_euclid(24 * 3600)
}

fn certificates(host: &HostReport, now: Timestamp, all: bool) -> String {
    let Some(first) = host.certificates.iter().min_by_key(|certificate| certificate.expires) else {
        return String::new();
    };
    if all {
        let line = |certificate: &crate::inventory::certificates::CertificateFacts| {
            let (name, at, left) = (&certificate.name, certificate.expires, days(certificate.expires, now));
            format!("  certificate {} ({name}) {}, on {at}\n", certificate.path, ends(left))
        };
        return host.certificates.iter().map(line).collect();
    }
    let (count, left) = (host.certificates.len(), days(first.expires, now));
    format!("  certificates: {count}, first {}: {}\n", ends(left), first.path)
}

fn ends(days: i64) -> String {
    match days {
        ..0 => format!("expired {}d ago", -days),
        _ => format!("expires in {days}d"),
    }
}

fn describe(units: Option<&[Unit]>) -> String {
    let Some(units) = units else { return "Unreachable".to_owned() };
    if units.iter().all(|unit| unit.state == "missing") {
        return "not installed".to_owned();
    }
    let wrong: Vec<String> = units
        .iter()
        .filter(|unit| !unit.runs() || unit.restarts > 0)
        .map(|unit| {
            let state = match (unit.runs(), unit.detail.as_str()) {
                (true, _) => "running".to_owned(),
                (false, "") => unit.state.clone(),
                (false, detail) => format!("{} ({detail})", unit.state),
            };
            let restarts = match unit.restarts {
                0 => String::new(),
                count => format!(", restarted {count}x"),
            };
            format!("{} {state}{restarts}", unit.name)
        })
        .collect();
    let running = units.iter().filter(|unit| unit.runs()).count();
    let summary = format!(
        "{}, {running} of {} units running",
        if running == units.len() { "Ready" } else { "Degraded" },
        units.len()
    );
    if wrong.is_empty() { summary } else { format!("{summary}; {}", wrong.join("; ")) }
}

/// Rounds to three decimals, as Mesos does, so that no needless zeros are printed.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: Vec<[String; N]>) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        })
        .collect()
}
