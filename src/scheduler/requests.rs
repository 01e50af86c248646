//! What a pod takes from Mesos: its effective requests by Kubernetes' rule, rounded to what Mesos can express.
//!
//! Containers that request neither processor nor memory count with `nodes.podDefaults`. Processor is rounded up to
//! thousandths, memory to whole megabytes (Mesos' memory isolator truncates), and no task is smaller than
//! [`SMALLEST`]. `docs/scheduler.md` tells users the same.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::Amount;

/// The smallest task: Mesos' own minimum for a container (0.01 processors, 32 MB).
pub const SMALLEST: Amount = Amount::new(10, 32);

/// A quantity that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a quantity")]
pub struct QuantityError(pub String);

/// Processors in thousandths, and bytes, before rounding to Mesos' units.
#[derive(Clone, Copy, Default)]
struct Exact {
    millicpus: i128,
    bytes: i128,
}

impl Exact {
    fn plus(self, other: Exact) -> Exact {
        Exact { millicpus: self.millicpus + other.millicpus, bytes: self.bytes + other.bytes }
    }

    fn max(self, other: Exact) -> Exact {
        Exact { millicpus: self.millicpus.max(other.millicpus), bytes: self.bytes.max(other.bytes) }
    }

    fn rounded(self) -> Amount {
        let megabytes = (self.bytes + (1 << 20) - 1) >> 20;
        Amount::new(i64::try_from(self.millicpus).unwrap_or(i64::MAX), i64::try_from(megabytes).unwrap_or(i64::MAX / 1000))
    }
}

/// Reads `cpu` and `memory` settings, as in `nodes.overhead`.
pub fn amount(cpu: &str, memory: &str) -> Result<Amount, QuantityError> {
    Ok(Exact { millicpus: parse(cpu, 1000)?, bytes: parse(memory, 1)? }.rounded())
}

/// The Mesos resources of a pod with this specification.
pub fn effective(spec: &PodSpec, defaults: Amount) -> Result<Amount, QuantityError> {
    let defaults = Exact { millicpus: defaults.cpus.into(), bytes: i128::from(defaults.mem / 1000) << 20 };
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
            total.millicpus = parse(&cpu.0, 1000)?;
        }
        if let Some(memory) = whole.get("memory") {
            total.bytes = parse(&memory.0, 1)?;
        }
    }
    if let Some(overhead) = &spec.overhead {
        total = total.plus(exact(overhead)?);
    }
    Ok(total.rounded().max(SMALLEST))
}

/// None where the container requests neither processor nor memory.
fn requests(container: &Container) -> Result<Option<Exact>, QuantityError> {
    let Some(requests) = container.resources.as_ref().and_then(|resources| resources.requests.as_ref()) else {
        return Ok(None);
    };
    let exact = exact(requests)?;
    Ok((exact.millicpus != 0 || exact.bytes != 0).then_some(exact))
}

fn exact(quantities: &BTreeMap<String, Quantity>) -> Result<Exact, QuantityError> {
    let of = |name: &str, unit: i128| quantities.get(name).map_or(Ok(0), |quantity| parse(&quantity.0, unit));
    Ok(Exact { millicpus: of("cpu", 1000)?, bytes: of("memory", 1)? })
}

/// A Kubernetes quantity times `unit`, rounded up.
pub fn parse(text: &str, unit: i128) -> Result<i128, QuantityError> {
    let wrong = || QuantityError(text.to_owned());
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (multiplier, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E']).ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
            let ten = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18).ok_or_else(wrong)?;
            if power < 0 { (1, ten) } else { (ten, 1) }
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 12 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    let decimals = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let value: i128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    let numerator = value.checked_mul(multiplier).and_then(|value| value.checked_mul(unit)).ok_or_else(wrong)?;
    let denominator = divisor * decimals;
    Ok(numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0))
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
    fn quantities_are_rounded_up() {
        let cases: [(&str, i128, i128); 12] = [
            ("500m", 1000, 500),
            ("0.5", 1000, 500),
            ("100u", 1000, 1),
            ("2", 1000, 2000),
            ("1e3", 1, 1000),
            ("128Mi", 1, 128 << 20),
            ("1.5Gi", 1, 3 << 29),
            ("100M", 1, 100_000_000),
            ("1k", 1, 1000),
            ("1E", 1, 1_000_000_000_000_000_000),
            (".5", 1000, 500),
            ("12e-1", 1000, 1200),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(parse(text, unit), Ok(expected), "{text}");
        }
        for text in ["", "x", "1.2.3", "5 Mi", "1e99", "m", "-"] {
            assert_eq!(parse(text, 1), Err(QuantityError(text.to_owned())));
        }
    }

    #[test]
    fn a_pod_takes_what_its_containers_request_and_memory_rounds_up_to_whole_megabytes() {
        let container = |cpu: &str, memory: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}});
        let cases = [
            (json!({"containers": [container("500m", "128Mi")]}), "cpus:0.5;mem:128"),
            (json!({"containers": [container("500m", "100M"), container("1", "1")]}), "cpus:1.5;mem:96"),
            (json!({"containers": [{"name": "a"}]}), "cpus:0.25;mem:64"),
            (json!({"containers": [{"name": "a"}, container("1", "1Gi")]}), "cpus:1.25;mem:1088"),
            (json!({"containers": [container("1m", "1Mi")]}), "cpus:0.01;mem:32"),
            (json!({"containers": [container("100m", "64Mi")], "initContainers": [container("1", "32Mi"), {"name": "b"}]}), "cpus:1;mem:64"),
            (json!({"containers": [container("100m", "64Mi")], "overhead": {"cpu": "50m", "memory": "16Mi"}}), "cpus:0.15;mem:80"),
            (
                json!({"containers": [container("100m", "64Mi")],
                    "initContainers": [
                        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}},
                        container("50m", "200Mi")]}),
                "cpus:0.3;mem:264",
            ),
            (json!({"containers": [{"name": "a"}], "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}), "cpus:2;mem:1024"),
        ];
        for (spec, expected) in cases {
            assert_eq!(effective_of(spec.clone()), expected, "{spec}");
        }
    }
}
