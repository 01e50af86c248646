//! What a pod takes from Mesos: its effective requests by Kubernetes' rule, rounded to what Mesos can express.
//!
//! Containers that request neither processor nor memory count with `nodes.podDefaults`. Processor is rounded up to
//! thousandths, memory to whole megabytes (Mesos' memory isolator truncates), and no task is smaller than
//! [`SMALLEST`]. `docs/scheduler.md` tells users the same.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::Amount;
use crate::cluster::quantity::{Bytes, Millicores, ParseError};

/// The smallest task: Mesos' own minimum for a container (0.01 processors, 32 MB).
pub const SMALLEST: Amount = Amount::new(10, 32);

/// What the task that stands for a node takes.
pub const NODE_TASK: Amount = Amount::new(10, 1);

/// Processors in thousandths, and bytes, before rounding to Mesos' units.
#[derive(Clone, Copy, Default)]
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

/// Reads `cpu` and `memory` settings, as in `nodes.overhead`.
pub fn amount(cpu: &str, memory: &str) -> Result<Amount, ParseError> {
    Ok(Exact { millicpus: millicpus(cpu)?, bytes: bytes(memory)? }.rounded())
}

/// The Mesos resources of a pod with this specification.
pub fn effective(spec: &PodSpec, defaults: Amount) -> Result<Amount, ParseError> {
    let defaults = Exact { millicpus: defaults.cpus.unsigned_abs(), bytes: (defaults.mem / 1000).unsigned_abs() << 20 };
    let mut running = Exact::default();
    for container in &spec.containers {
        let requests = requests(container)?;
        running = running.plus(if requests.is_none() { defaults } else { requests.unwrap_or_default() });
    }
    // Init containers run one after the other, next to those among them that keep running (restartPolicy Always).
    let (mut sidecars, mut peak) = (Exact::default(), Exact::default());
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container)?.unwrap_or_default();
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.plus(own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(own));
        }
    }
    let mut total = running.plus(sidecars).max(peak);
    // Requests of the pod as a whole replace the containers'.
    if let Some(whole) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
        if let Some(cpu) = whole.get("cpu") {
            total.millicpus = millicpus(&cpu.0)?;
        }
        if let Some(memory) = whole.get("memory") {
            total.bytes = bytes(&memory.0)?;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total = total.plus(exact(overhead)?);
    }
    Ok(total.rounded().max(SMALLEST))
}

/// None where the container requests neither processor nor memory.
fn requests(container: &Container) -> Result<Option<Exact>, ParseError> {
    let Some(requests) = container.resources.as_ref().and_then(|resources| resources.requests.as_ref()) else {
        return Ok(None);
    };
    let exact = exact(requests)?;
    Ok((exact.millicpus != 0 || exact.bytes != 0).then_some(exact))
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

    fn effective_of(spec: serde_json::Value) -> String {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        effective(&spec, Amount::new(250, 64)).unwrap().to_string()
    }

    #[test]
    fn a_pod_takes_what_its_containers_request_and_memory_rounds_up_to_whole_megabytes() {
        let container =
            |cpu: &str, memory: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
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
            (
                json!({"containers": [container("100m", "64Mi")], "overhead": {"cpu": "50m", "memory": "16Mi"}}),
                "cpus:0.15;mem:80",
            ),
            (
                json!({"containers": [container("100m", "64Mi")],
                    "initContainers": [
                        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}},
                        container("50m", "200Mi")]}),
                "cpus:0.3;mem:264",
            ),
            (
                json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}),
                "cpus:2;mem:1024",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(effective_of(spec.clone()), expected, "{spec}");
        }
    }
}
