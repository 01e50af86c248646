//! What blocks the drain of a node.
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::span;
use crate::diagnose::{Kind, Reason};
use crate::inventory::workloads::{Budget, PodView, Workloads};
use kmctl_core::text;

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
        reasons.push(Reason::passing(Kind::Pods, format!("{} to evict: {}", pods(next.len()), next.join(", "))));
    }
    reasons.sort_by_key(|reason| reason.cure.is_empty());
    reasons
}

/// Formats a number of pods: `1 pod`, `2 pods`.
pub(crate) fn pods(count: usize) -> String {
    text::count(count, "pod")
}

fn by_budget(budget: &Budget, pods: &[String]) -> Reason {
    let Budget { namespace, name, healthy, wanted, .. } = budget;
    Reason::new(
        Kind::Budget,
        format!(
            "PodDisruptionBudget {namespace}/{name} allows 0 disruptions ({healthy} healthy, {wanted} required); \
             blocked: {}",
            pods.join(", ")
        ),
        format!("add replicas, or lower minAvailable: kubectl -n {namespace} edit poddisruptionbudget {name}"),
    )
}

fn too_many_budgets(pod: &str, budgets: &[&Budget]) -> Reason {
    let names: Vec<&str> = budgets.iter().map(|budget| budget.name.as_str()).collect();
    Reason::new(
        Kind::Budget,
        format!(
            "pod {pod} has {} PodDisruptionBudgets ({}); Kubernetes evicts only pods with one",
            names.len(),
            names.join(", ")
        ),
        "remove all but one of them",
    )
}

fn without_controller(pod: &PodView) -> Reason {
    let (namespace, name) = (&pod.facts.namespace, &pod.facts.name);
    Reason::new(
        Kind::NoController,
        format!("pod {namespace}/{name} has no controller that would recreate it, so it is not evicted"),
        format!("delete it if it is no longer needed: kubectl -n {namespace} delete pod {name}"),
    )
}

pub(super) fn ending(pod: &PodView, now: Timestamp) -> Reason {
    let name = pod.facts.full_name();
    let left = pod.ends.map_or(0, |ends| ends.as_second() - now.as_second());
    if left > 0 {
        return Reason::passing(Kind::Ending, format!("pod {name} is terminating, {} left", span(left)));
    }
    if pod.finalizers.is_empty() {
        let text = format!("pod {name} is terminating, {} over its grace period", span(-left));
        return Reason::new(Kind::Ending, text, "check the log of the node: kmctl logs node NAME");
    }
    let text = format!("pod {name} has terminated, but finalizers block its removal: {}", pod.finalizers.join(", "));
    Reason::new(Kind::Ending, text, "check that the controller of the finalizer is running")
}
