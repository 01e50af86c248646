//! Formats a plan.
use std::collections::BTreeMap;
use std::fmt::Write;

use super::decide::{Action, HostPlan, Plan, Step};
use super::etcd::EtcdRemoval;
use kmctl_core::text::count;

/// The whole plan, host by host, with the reasons and the diffs.
pub fn describe(plan: &Plan) -> String {
    let mut text = String::new();
    for host in &plan.hosts {
        describe_host(&mut text, host);
    }
    for host in &plan.unseen {
        let _ = writeln!(text, "{host}\n  ! unreachable: no changes planned");
    }
    for EtcdRemoval { member, peers: _, remove, arithmetic } in &plan.departures {
        let _ = match remove {
            true => writeln!(text, "etcd\n  - remove etcd member {member} (not in cluster.yaml): {arithmetic}"),
            false => writeln!(
                text,
                "etcd\n  ! {member} is an etcd member but not in cluster.yaml; remove it with `kmctl up \
                 --allow-remove` ({arithmetic})"
            ),
        };
    }
    text.push_str(&summary(plan));
    text.push('\n');
    text
}

fn describe_host(text: &mut String, host: &HostPlan) {
    let _ = writeln!(text, "{}", host.host);
    let mut steps = host.steps.iter().peekable();
    while let Some(step) = steps.next() {
        // There are dozens of binaries: their directory and total size are enough.
        let folder = step.size.and_then(|_| bundle_folder(&step.subject));
        if let (Some(folder), Some(first)) = (folder, step.size) {
            let (mut count, mut bytes) = (1, first);
            while let Some(next) = steps.next_if(|next| {
                next.action == step.action && next.why == step.why && bundle_folder(&next.subject) == Some(folder)
            }) {
                count += 1;
                bytes += next.size.unwrap_or_default();
            }
            if count > 1 {
                let _ = writeln!(
                    text,
                    "  {} {} {count} files in {folder} ({} MiB)",
                    sign(step.action),
                    verb(step.action),
                    bytes >> 20
                );
                continue;
            }
        }
        describe_step(text, step);
    }
    for note in &host.notes {
        let _ = writeln!(text, "  = {note}");
    }
    if host.unchanged > 0 {
        let _ = writeln!(text, "  = {} unchanged", host.unchanged);
    }
}

/// `/usr/local/lib/kmctl/v1.37.2` of `/usr/local/lib/kmctl/v1.37.2/bin/etcd`.
fn bundle_folder(path: &str) -> Option<&str> {
    let (folder, _) = path.rsplit_once('/')?;
    folder.rsplit_once('/').map(|(folder, _)| folder)
}

fn describe_step(text: &mut String, step: &Step) {
    let Step { action, subject, size: _, why, diff, interrupts } = step;
    let _ = write!(text, "  {} {} {subject}", sign(*action), verb(*action));
    if !why.is_empty() {
        let _ = write!(text, ": {}", why.join("; "));
    }
    // A new text is summarized by its length. The plan's file has all of it.
    if let (Action::Create, Some(diff)) = (action, diff) {
        let lines = diff.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).count();
        let _ = write!(text, " ({lines} lines)");
    }
    text.push('\n');
    if let Some(interrupts) = interrupts {
        let _ = writeln!(text, "      {interrupts}");
    }
    for line in diff.iter().filter(|_| *action != Action::Create).flat_map(|diff| diff.lines()) {
        let _ = writeln!(text, "      {line}");
    }
}

fn sign(action: Action) -> char {
    match action {
        Action::Install | Action::Create | Action::Start | Action::Join => '+',
        Action::Update | Action::Restart => '~',
        Action::Compare => '~',
        Action::Await => ' ',
    }
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Install => "install",
        Action::Create => "create",
        Action::Update => "update",
        Action::Compare => "compare",
        Action::Start => "start",
        Action::Restart => "restart",
        Action::Await => "wait until",
        Action::Join => "join",
    }
}

/// One line with the number of steps per action.
pub fn summary(plan: &Plan) -> String {
    let hosts = count(plan.hosts.len() + plan.unseen.len(), "host");
    if plan.is_empty() {
        return format!("{hosts}: no changes");
    }
    let mut counts: BTreeMap<Action, usize> = BTreeMap::new();
    for step in plan.hosts.iter().flat_map(|host| &host.steps).filter(|step| step.action != Action::Await) {
        *counts.entry(step.action).or_default() += 1;
    }
    let removals = plan.departures.iter().filter(|one| one.remove).count();
    let mut parts: Vec<String> = counts.iter().map(|(action, count)| format!("{count} to {}", verb(*action))).collect();
    if removals > 0 {
        parts.push(format!("{removals} to remove"));
    }
    if parts.is_empty() {
        format!("{hosts}: no changes, waiting until components are healthy")
    } else {
        format!("{hosts}: {}", parts.join(", "))
    }
}
