//! What blocks the drain of a node.
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::diagnose::{Kind, Reason};
use crate::inventory::workloads::{Budget, PodView, Workloads};

/// What keeps the pods of a leaving node on it. Reasons that need intervention are first.
pub(crate) fn keeping(node: &str, seen: &Workloads, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut blocked: BTreeMap<(String, String), (&Budget, Vec<String>)> = BTreeMap::new();
    let mut next = Vec::new();
    for pod in seen.keeping(node) {
        let (name, budgets) = (pod.facts.full_name(), seen.budgets_of(&pod.facts).collect::<Vec<_>>());
        match budgets.as_slice() {
            _ if pod.facts.deleting => reasons.push(ending(pod, now)),
            _ if !pod.facts.controlled => reasons.push(without_controller(pod)),
            [_, _, ..] => reasons.push(too_many_budgets(&name, &budgets)),
            [budget] if budget.allowed <= 0 => {
                let key = (budget.namespace.clone(), budget.name.clone());
                blocked.entry(key).or_insert((budget, Vec::new())).1.push(name);
            }
            _ => next.push(name),
        }
    }
    reasons.extend(blocked.into_values().map(|(budget, pods)| by_budget(budget, &pods)));
    if !next.is_empty() {
        reasons.push(Reason::passing(Kind::Pods, format!("{} to be evicted: {}", pods(next.len()), next.join(", "))));
    }
    reasons.sort_by_key(|reason| reason.cure.is_empty());
    reasons
}

/// Formats a number of pods: `1 pod`, `2 pods`.
pub(crate) fn pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn by_budget(budget: &Budget, pods: &[String]) -> Reason {
    let Budget { namespace, name, healthy, wanted, .. } = budget;
    Reason::new(
        Kind::Budget,
        format!(
            "PodDisruptionBudget {namespace}/{name} allows no eviction now: {healthy} pods are healthy and {wanted} have \
             to be; it keeps {}",
            pods.join(", ")
        ),
        format!(
            "see why others of its pods are not ready (`kubectl -n {namespace} get pods`), run more of them, or ask for \
             fewer: `kubectl -n {namespace} edit poddisruptionbudget {name}`"
        ),
    )
}

fn too_many_budgets(pod: &str, budgets: &[&Budget]) -> Reason {
    let names: Vec<&str> = budgets.iter().map(|budget| budget.name.as_str()).collect();
    Reason::new(
        Kind::Budget,
        format!(
            "pod {pod} is under {} PodDisruptionBudgets ({}), and Kubernetes evicts no such pod",
            names.len(),
            names.join(", ")
        ),
        "leave one of them that selects the pod",
    )
}

fn without_controller(pod: &PodView) -> Reason {
    let (namespace, name) = (&pod.facts.namespace, &pod.facts.name);
    Reason::new(
        Kind::NoController,
        format!("pod {namespace}/{name} has no controller: nobody would make it again, so it is not evicted"),
        format!("delete it when it may go: `kubectl -n {namespace} delete pod {name}`"),
    )
}

pub(super) fn ending(pod: &PodView, now: Timestamp) -> Reason {
    let name = pod.facts.full_name();
    let left = pod.ends.map_or(0, |ends| ends.as_second() - now.as_second());
    if left > 0 {
        return Reason::passing(Kind::Ending, format!("pod {name} is ending, and has {left} s left for it"));
    }
    if pod.finalizers.is_empty() {
        let text = format!("pod {name} should have ended {} s ago", -left);
        return Reason::new(Kind::Ending, text, "look at the node's log: `kmctl logs node NAME`");
    }
    let text = format!("pod {name} has ended, but its object is kept by the finalizers {}", pod.finalizers.join(", "));
    Reason::new(Kind::Ending, text, "see whether the controller that owns the finalizer runs")
}
