//! What a pod takes from Mesos: its effective requests by Kubernetes' rule, rounded to what Mesos can express.
//!
//! The rule is `PodRequests` of k8s.io/component-helpers (resource/helpers.go), which kube-scheduler uses for
//! accounting. The API server's defaults for omitted values (`SetDefaults_Pod`, `DefaultPodLevelResources`) are applied
//! here too, because the pods of `runonce` never pass through an API server. Ephemeral containers add nothing: they
//! cannot request resources.
//!
//! Containers that request neither processor nor memory count with `nodes.podDefaults`. Processor is rounded up to
//! thousandths, memory to whole megabytes (Mesos' memory isolator truncates), and no task is smaller than [`SMALLEST`].
//! `docs/scheduler.md` documents the same for users.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::Amount;
use crate::cluster::quantity::{Bytes, Millicores, ParseError};

/// The smallest task: Mesos' own minimum for a container (0.01 processors, 32 MB).
pub const SMALLEST: Amount = Amount::new(10, 32);

/// Resources of the task that represents a node.
pub const NODE_TASK: Amount = Amount::new(10, 1);

/// Kubernetes resources that a pod may request: Mesos grants the first two, the last one is the machine's.
pub const GRANTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The name that [`ungranted`] uses for resource claims, whose own names are chosen by the pod.
pub const CLAIMS: &str = "resource claims";

/// Thousandths of a processor, and bytes, before rounding to Mesos' units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Exact {
    millicpus: u64,
    bytes: u64,
}

impl Exact {
    fn plus(self, other: Exact) -> Exact {
        Exact {
            millicpus: self.millicpus.saturating_add(other.millicpus),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn max(self, other: Exact) -> Exact {
        Exact { millicpus: self.millicpus.max(other.millicpus), bytes: self.bytes.max(other.bytes) }
    }

    fn rounded(self) -> Amount {
        let megabytes = self.bytes.div_ceil(1 << 20);
        let most = i64::MAX / 1000;
        Amount::new(i64::try_from(self.millicpus).unwrap_or(most), i64::try_from(megabytes).unwrap_or(most).min(most))
    }
}

/// Parses `cpu` and `memory` quantities, as in `nodes.overhead`.
pub fn amount(cpu: &str, memory: &str) -> Result<Amount, ParseError> {
    Ok(Exact { millicpus: millicpus(cpu)?, bytes: bytes(memory)? }.rounded())
}

/// The Mesos resources of a pod with this specification.
pub fn effective(spec: &PodSpec, defaults: Amount) -> Result<Amount, ParseError> {
    let defaults = Exact { millicpus: defaults.cpus.unsigned_abs(), bytes: (defaults.mem / 1000).unsigned_abs() << 20 };
    let mut total = containers(spec, defaults)?;
    if let Some(whole) = spec.resources.as_ref().filter(|whole| whole.requests.is_some() || whole.limits.is_some()) {
        total = pod_level(spec, whole, total)?;
    }
    if let Some(overhead) = &spec.overhead {
        total = total.plus(exact(overhead)?);
    }
    Ok(total.rounded().max(SMALLEST))
}

/// The total of a pod's containers; `defaults` for each that requests nothing.
fn containers(spec: &PodSpec, defaults: Exact) -> Result<Exact, ParseError> {
    let mut running = Exact::default();
    for container in &spec.containers {
        let own = exact(&requests(container))?;
        running = running.plus(if own == Exact::default() { defaults } else { own });
    }
    // Init containers run one after the other, alongside the sidecars among them (restartPolicy Always).
    let (mut sidecars, mut peak) = (Exact::default(), Exact::default());
    for container in spec.init_containers.iter().flatten() {
        let own = exact(&requests(container))?;
        if keeps_running(container) {
            sidecars = sidecars.plus(own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(own));
        }
    }
    Ok(running.plus(sidecars).max(peak))
}

/// The total of a pod with pod-level resources: its requests, else the containers' requests, else its limits, else what
/// its containers count with.
fn pod_level(spec: &PodSpec, whole: &ResourceRequirements, counted: Exact) -> Result<Exact, ParseError> {
    let requested = containers(spec, Exact::default())?;
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let named: BTreeSet<String> = all.flat_map(|container| requests(container).into_keys()).collect();
    let of = |name: &str, amounts: &Option<BTreeMap<String, Quantity>>| {
        amounts.as_ref().and_then(|amounts| amounts.get(name)).map(|quantity| quantity.0.clone())
    };
    let choose = |name: &str, requested: u64, counted: u64, read: fn(&str) -> Result<u64, ParseError>| match (
        of(name, &whole.requests),
        of(name, &whole.limits),
    ) {
        (Some(request), _) => read(&request),
        _ if named.contains(name) => Ok(requested),
        (None, Some(limit)) => read(&limit),
        (None, None) => Ok(counted),
    };
    Ok(Exact {
        millicpus: choose("cpu", requested.millicpus, counted.millicpus, millicpus)?,
        bytes: choose("memory", requested.bytes, counted.bytes, bytes)?,
    })
}

/// Requested resources that nothing grants: devices and hugepages by their resource's name, and resource claims.
pub fn ungranted(spec: &PodSpec) -> BTreeSet<String> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = containers.filter_map(|container| container.resources.as_ref());
    let amounts = own.chain(&spec.resources).flat_map(|all| [&all.requests, &all.limits]).chain([&spec.overhead]);
    let mut found: BTreeSet<String> = amounts
        .flatten()
        .flat_map(|all| all.iter())
        .filter(|(name, amount)| !GRANTED.contains(&name.as_str()) && bytes(&amount.0) != Ok(0))
        .map(|(name, _)| name.clone())
        .collect();
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        found.insert(CLAIMS.to_owned());
    }
    found
}

/// Whether an init container is a sidecar: started in its order, and running alongside the containers from then on.
pub fn keeps_running(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A container's requests; where it has only a limit, the limit.
fn requests(container: &Container) -> BTreeMap<String, Quantity> {
    let Some(resources) = &container.resources else { return BTreeMap::new() };
    let limits = resources.limits.iter().flatten();
    // Requests are last, so that they override limits.
    let amounts = limits.chain(resources.requests.iter().flatten());
    amounts.map(|(name, amount)| (name.clone(), amount.clone())).collect()
}

fn exact(quantities: &BTreeMap<String, Quantity>) -> Result<Exact, ParseError> {
    Ok(Exact {
        millicpus: quantities.get("cpu").map_or(Ok(0), |quantity| millicpus(&quantity.0))?,
        bytes: quantities.get("memory").map_or(Ok(0), |quantity| bytes(&quantity.0))?,
    })
}

fn millicpus(text: &str) -> Result<u64, ParseError> {
    text.parse().map(|Millicores(number)| number)
}

fn bytes(text: &str) -> Result<u64, ParseError> {
    text.parse().map(|Bytes(number)| number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn effective_of(spec: &serde_json::Value) -> String {
        let spec: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        effective(&spec, Amount::new(250, 64)).unwrap().to_string()
    }

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    #[test]
    fn memory_rounds_up_to_whole_megabytes_and_defaults_stand_in_for_what_is_not_requested() {
        let cases = [
            (json!({"containers": [container("500m", "128Mi")]}), "cpus:0.5;mem:128"),
            (json!({"containers": [container("500m", "100M"), container("1", "1")]}), "cpus:1.5;mem:96"),
            (json!({"containers": [{"name": "a"}]}), "cpus:0.25;mem:64"),
            (json!({"containers": [{"name": "a"}, container("1", "1Gi")]}), "cpus:1.25;mem:1088"),
            (json!({"containers": [container("1m", "1Mi")]}), "cpus:0.01;mem:32"),
            (
                json!({"containers": [container("100m", "64Mi")], "initContainers": [container("1", "32Mi"), {"name": "b"}]}),
                "cpus:1;mem:64",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(effective_of(&spec), expected, "{spec}");
        }
    }

    /// The same pods are created in the lab, where they are compared with the accounting of kube-scheduler and Mesos.
    #[test]
    fn twelve_pods_take_what_kubernetes_accounts_for_them() {
        let text = include_str!("../../../tests/lab/sizes.yaml");
        let mut seen = BTreeSet::new();
        for pod in crate::k8s::manifests("sizes.yaml", text).unwrap() {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let mut spec = pod["spec"].clone();
            if pod["spec"]["runtimeClassName"] == "sizes-overhead" {
                // As set by the RuntimeClass admission.
                spec["overhead"] = json!({"cpu": "50m", "memory": "16Mi"});
            }
            if name == "debugged" {
                spec["ephemeralContainers"] = json!([{"name": "debugger", "image": "busybox"}]);
            }
            assert_eq!(effective_of(&spec), pod["metadata"]["annotations"]["task"].as_str().unwrap(), "{name}");
            seen.insert(name.to_owned());
        }
        assert_eq!(seen.len(), 12, "{seen:?}");
    }

    #[test]
    fn what_nothing_grants_is_found_wherever_a_pod_asks_for_it() {
        let asking = |amounts: serde_json::Value| json!({"name": "a", "resources": amounts});
        let plain = || vec![container("1", "1Gi")];
        let cases = [
            (json!({"containers": plain()}), vec![]),
            (json!({"containers": [asking(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}))]}), vec![]),
            (json!({"containers": [asking(json!({"limits": {"nvidia.com/gpu": "1"}}))]}), vec!["nvidia.com/gpu"]),
            (json!({"containers": [asking(json!({"limits": {"nvidia.com/gpu": "0"}}))]}), vec![]),
            (
                json!({"containers": plain(), "initContainers": [asking(json!({"limits": {"hugepages-2Mi": "4Mi"}}))]}),
                vec!["hugepages-2Mi"],
            ),
            (
                json!({"containers": plain(), "resources": {"requests": {"hugepages-1Gi": "1Gi", "cpu": "1"}}}),
                vec!["hugepages-1Gi"],
            ),
            (
                json!({"containers": plain(), "resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}]}),
                vec![CLAIMS],
            ),
        ];
        for (spec, expected) in cases {
            let read: PodSpec = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(ungranted(&read).into_iter().collect::<Vec<_>>(), expected, "{spec}");
        }
    }
}
