//! Metrics for Prometheus.
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::decide::Effect;
use kmctl_core::protocol::Summary;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

pub struct Metrics {
    registry: Registry,
    effects: Family<Kind, Counter<u64, AtomicU64>>,
    failures: Family<Kind, Counter<u64, AtomicU64>>,
    questions: Family<Kind, Counter<u64, AtomicU64>>,
    nodes: Family<State, Gauge>,
    pods: Family<State, Gauge>,
    tasks: Gauge,
    offers: Gauge,
    agents: Gauge,
    suppressed: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("km_scheduler");
        let (effects, failures, questions) = (Family::default(), Family::default(), Family::default());
        let (nodes, pods) = (Family::default(), Family::default());
        let (tasks, offers, agents, suppressed) =
            (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("effects", "Decisions carried out, by kind", Family::clone(&effects));
        registry.register(
            "effect_failures",
            "Decisions that could not be carried out, by kind",
            Family::clone(&failures),
        );
        registry.register("questions", "Requests of kube-scheduler, by kind", Family::clone(&questions));
        registry.register("nodes", "Nodes by state", Family::clone(&nodes));
        registry.register("pods", "Pods that wait, by state", Family::clone(&pods));
        registry.register("tasks", "Mesos tasks that are not over", tasks.clone());
        registry.register("offers", "Offers held", offers.clone());
        registry.register("agents", "Mesos agents known", agents.clone());
        registry.register("suppressed", "1 while no offers are wanted", suppressed.clone());
        Metrics { registry, effects, failures, questions, nodes, pods, tasks, offers, agents, suppressed }
    }

    /// Counts a request of kube-scheduler.
    pub fn question(&self, kind: &str) {
        self.questions.get_or_create(&Kind { kind: kind.to_owned() }).inc();
    }

    /// Counts a decision.
    pub fn effect(&self, effect: &Effect) {
        self.effects.get_or_create(&Kind { kind: effect.kind().to_owned() }).inc();
    }

    /// Counts a decision that could not be executed.
    pub fn failure(&self, kind: &str) {
        self.failures.get_or_create(&Kind { kind: kind.to_owned() }).inc();
    }

    /// Encodes the metrics as text, with the current state.
    pub fn encode(&self, summary: &Summary) -> String {
        let Summary {
            nodes,
            pending_pods,
            pods_in_flight,
            tasks,
            offers,
            agents,
            suppressed,
            acting: _,
            held: _,
            min: _,
            max: _,
        } = summary;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in nodes {
            self.nodes.get_or_create(&State { state: state.clone() }).set(number(*count));
        }
        self.pods.get_or_create(&State { state: "pending".to_owned() }).set(number(*pending_pods));
        self.pods.get_or_create(&State { state: "in_flight".to_owned() }).set(number(*pods_in_flight));
        self.tasks.set(number(*tasks));
        self.offers.set(number(*offers));
        self.agents.set(number(*agents));
        self.suppressed.set(i64::from(*suppressed));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::decide::MesosCall;

    #[test]
    fn figures_are_encoded_with_their_labels() {
        let metrics = Metrics::new();
        metrics.effect(&Effect::Mesos(MesosCall::Suppress));
        metrics.question("filter");
        let mut summary = Summary { suppressed: true, ..Summary::default() };
        summary.nodes.insert("ready".to_owned(), 3);
        let text = metrics.encode(&summary);
        for line in [
            "km_scheduler_effects_total{kind=\"suppress\"} 1",
            "km_scheduler_questions_total{kind=\"filter\"} 1",
            "km_scheduler_nodes{state=\"ready\"} 3",
            "km_scheduler_suppressed 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
