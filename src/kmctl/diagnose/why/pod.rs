//! Why a pod does not run.
use super::places::{figures, places, summarize, ungranted};
use super::{Facts, empty_node, span};
use crate::diagnose::{Answer, Kind, Reason};
use crate::inventory::workloads::{PodView, Trouble};
use kmctl_core::model::nodes::NodePhase;
use kmctl_core::model::resources::{decimal, to_thousandths};

/// The kubelet's reasons for an image that cannot be pulled.
const IMAGE: [&str; 6] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
];

/// How many events are printed.
const SAID: usize = 2;

/// Why a pod does not run, or that it does.
pub(crate) fn pod(view: &PodView, facts: &Facts<'_>) -> Answer {
    let about = format!("pod {}", view.facts.full_name());
    let answer =
        |state: String, reasons: Vec<Reason>, said: Vec<String>| Answer { about: about.clone(), state, reasons, said };
    match (&view.facts.node, view.phase.as_str()) {
        (_, "Succeeded" | "Failed") => {
            let message = if view.message.is_empty() { String::new() } else { format!(" ({})", view.message) };
            answer(format!("has {}{message}", view.phase), troubles(view), Vec::new())
        }
        (Some(node), _) if view.facts.deleting => {
            let reasons = vec![super::drain::ending(view, facts.now)];
            answer(format!("is terminating on node {node}"), reasons, Vec::new())
        }
        (Some(node), "Running") if view.ready => answer(format!("is Running on node {node}"), Vec::new(), Vec::new()),
        (Some(node), _) => {
            let reasons = on_node(view, node, facts);
            let state = format!("is bound to node {node}, not Ready after {}", facts.since(view.created));
            answer(state, reasons, said(facts, &["FailedScheduling", "Scheduled"]))
        }
        (None, _) => {
            let reasons = unbound(view, facts);
            let state = format!("is Pending: no node for {}", facts.since(view.created));
            answer(state, reasons, only(facts, "FailedScheduling"))
        }
    }
}

/// The newest events with this reason, each text once.
fn only(facts: &Facts<'_>, reason: &str) -> Vec<String> {
    tell(facts, |seen| seen == reason)
}

/// The newest events except those with these reasons.
fn said(facts: &Facts<'_>, without: &[&str]) -> Vec<String> {
    tell(facts, |seen| !without.contains(&seen))
}

fn tell(facts: &Facts<'_>, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for event in facts.events.iter().rev().filter(|event| wanted(&event.reason)) {
        let ago =
            event.at.map_or(String::new(), |at| format!(", {} ago", span(facts.now.as_second() - at.as_second())));
        let text = format!("{} ({}{ago}): {}", event.reason, event.source, event.message);
        let same = |other: &String| other.ends_with(&format!("): {}", event.message));
        if !texts.iter().any(same) {
            texts.push(text);
        }
        if texts.len() == SAID {
            break;
        }
    }
    texts
}

fn on_node(view: &PodView, name: &str, facts: &Facts<'_>) -> Vec<Reason> {
    let mut reasons = troubles(view);
    match facts.seen.node(name) {
        None => reasons.push(Reason::passing(
            Kind::Node,
            format!("node {name} does not exist anymore; the pod will be deleted and recreated by its controller"),
        )),
        Some(node) if node.facts.phase == NodePhase::Starting => reasons.push(Reason::new(
            Kind::Node,
            format!("node {name} is starting, {} elapsed", facts.since(node.created)),
            format!("kmctl why node {name}"),
        )),
        Some(node) if !node.facts.ready => {
            let why = node.complaint.as_deref().unwrap_or("no reason reported");
            let text = format!("node {name} is not Ready: {why}");
            reasons.push(Reason::new(Kind::Node, text, format!("kmctl why node {name}, kmctl logs node {name}")));
        }
        Some(_) => {}
    }
    if view.facts.task.is_none() && !view.facts.mirror {
        reasons.push(Reason::new(
            Kind::NotOurs,
            "no Mesos task: it was bound without kube-scheduler, and nodes start only pods with a task",
            "remove spec.nodeName and spec.schedulerName",
        ));
    }
    reasons
}

fn troubles(view: &PodView) -> Vec<Reason> {
    view.troubles.iter().map(|trouble| trouble_reason(view, trouble)).collect()
}

fn trouble_reason(view: &PodView, trouble: &Trouble) -> Reason {
    let Trouble { container, image, reason, message, restarts, exit } = trouble;
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    if IMAGE.contains(&reason.as_str()) {
        return Reason::new(
            Kind::ImagePull,
            format!("image {image} of container {container} cannot be pulled ({reason}){message}"),
            "check the image name, the registry and imagePullSecrets; images of the bundle need imagePullPolicy \
             IfNotPresent",
        );
    }
    let ended = exit.map_or(String::new(), |exit| format!(", exit code {exit}"));
    let again = if *restarts > 0 { format!(", restarted {restarts}x") } else { String::new() };
    let (namespace, name) = (&view.facts.namespace, &view.facts.name);
    let previous = if *restarts > 0 { " --previous" } else { "" };
    Reason::new(
        Kind::Container,
        format!("container {container} is not running ({reason}{ended}{again}){message}"),
        format!("kubectl -n {namespace} logs {name} -c {container}{previous}"),
    )
}

fn unbound(view: &PodView, facts: &Facts<'_>) -> Vec<Reason> {
    if let Some(other) = &view.other_scheduler {
        let text = format!("assigned to another scheduler: spec.schedulerName is {other}");
        return vec![Reason::new(Kind::NotOurs, text, "remove spec.schedulerName, or start that scheduler")];
    }
    if !view.gates.is_empty() {
        let text = format!("blocked by scheduling gates: {}", view.gates.join(", "));
        return vec![Reason::new(Kind::NotOurs, text, "check the controllers that remove the gates")];
    }
    if let Some(names) = ungranted(view) {
        let text = format!("requests {names}, which are not supported yet: docs/scheduler.md, \"What is refused\"");
        return vec![Reason::new(Kind::Ungranted, text, "request only cpu, memory and ephemeral-storage")];
    }
    let mut reasons: Vec<Reason> = facts.scheduler_trouble().into_iter().collect();
    let master = match facts.master {
        Ok(master) => master,
        Err(why) => {
            reasons.push(Reason::new(Kind::Mesos, format!("Mesos query failed: {why}"), "kmctl check"));
            return reasons;
        }
    };
    if !master.frameworks.iter().any(|framework| framework.connected) {
        let name = &facts.cluster.spec.mesos.framework_name;
        let text = format!("framework {name} is not connected to Mesos, so it gets no offers");
        reasons.push(Reason::new(Kind::Mesos, text, "kmctl logs km-scheduler"));
    }
    reasons.extend(quota(view, facts));
    reasons.extend(role_list(facts));
    let places = places(view, facts);
    if places.is_empty() {
        reasons.push(Reason::new(Kind::Agents, "Mesos has no agents", "start a Mesos agent, then run kmctl check"));
    }
    let summary = summarize(view, &places, facts);
    // If an agent has room and no other reason was found, the obstacle is outside of Mesos.
    let rules =
        facts.events.iter().rev().find(|event| event.reason == "FailedScheduling" && event.source != "km-scheduler");
    match rules {
        Some(event) if reasons.is_empty() && summary.iter().all(|reason| reason.kind == Kind::Time) => {
            reasons.push(Reason::new(
                Kind::Rules,
                format!("an agent fits, but kube-scheduler reports: {}", event.message),
                "compare tolerations, affinity and topology spread with the nodes: kubectl describe nodes",
            ));
        }
        // An agent with room does not help while something else blocks the pod.
        _ if reasons.is_empty() => reasons = summary,
        _ => reasons.extend(summary.into_iter().filter(|reason| reason.kind != Kind::Time)),
    }
    reasons
}

/// Whether the role's quota allows this pod.
fn quota(view: &PodView, facts: &Facts<'_>) -> Option<Reason> {
    let role = facts.cluster.spec.mesos.roles.first()?;
    let used = facts.master.ok()?.roles.as_ref()?.get(role)?;
    // Without a node it also takes what a node takes.
    let launched = facts.seen.nodes.iter().any(|node| node.facts.phase != NodePhase::Candidate);
    let need = if launched { view.facts.amount } else { view.facts.amount + empty_node(facts.cluster) };
    let parts = [
        ("cpus", "CPU", to_thousandths(used.held.cpus), need.cpus),
        ("mem", "MiB", to_thousandths(used.held.mem), need.mem),
    ];
    let over: Vec<String> = parts
        .into_iter()
        .filter_map(|(name, unit, held, need)| {
            let limit = to_thousandths(*used.limit.get(name)?);
            (held + need > limit)
                .then(|| format!("{} of {} {unit} used, {} more needed", decimal(held), decimal(limit), decimal(need)))
        })
        .collect();
    (!over.is_empty()).then(|| {
        Reason::new(
            Kind::Quota,
            format!("quota of role {role} exceeded: {}", over.join("; ")),
            format!("raise the quota of {role} in Mesos (/quota), or free resources: {} needed", figures(need)),
        )
    })
}

/// A master may admit only listed roles.
fn role_list(facts: &Facts<'_>) -> Option<Reason> {
    let allowed = facts.master.ok()?.flags.get("roles")?;
    let missing = |role: &&String| !allowed.split(',').any(|one| one.trim() == **role);
    let role = facts.cluster.spec.mesos.roles.iter().find(missing)?;
    Some(Reason::new(
        Kind::Role,
        format!("the master's --roles is `{allowed}` without {role}, so there are no offers for it"),
        format!("add {role} to the master's --roles, or change spec.mesos.roles"),
    ))
}
