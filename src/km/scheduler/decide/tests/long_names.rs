//! Agents whose names and attributes are longer than labels may be.
use super::bench::*;
use crate::scheduler::decide::{ApiRequest, Effect, Event};
use mesos::types::Attribute;

#[test]
fn an_attribute_that_makes_no_label_is_left_out_and_named() {
    let mut bench = Bench::new();
    bench.pod(&pod("web"));
    let mut offer = bench.offer_of("agent1", 2.0, 2048.0);
    let long = "a".repeat(60);
    offer.attributes.push(Attribute::text(long.clone(), "x"));
    let effects = bench.on(Event::Offers(vec![offer]));
    let labels = effects.iter().find_map(|effect| match effect {
        Effect::Api(ApiRequest::CreateNode(spec)) => Some(&spec.labels),
        _ => None,
    });
    let labels = labels.unwrap();
    assert_eq!(labels["k8s.mesosphere.io/attribute-rack"], "rack-agent1");
    assert!(labels.keys().all(|key| !key.contains("aaa")), "{labels:?}");
    let report = effects.iter().find_map(|effect| match effect {
        Effect::Report(text) if text.contains(&long) => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(report, Some(format!("node agent1 has no labels for these attributes of its agent: {long}").as_str()));
}

#[test]
fn nodes_of_agents_with_long_names_have_names_that_are_labels() {
    let mut bench = Bench::new();
    let (one, two) = (format!("{}1", "a".repeat(70)), format!("{}2", "a".repeat(70)));
    for (number, agent) in [&one, &two].into_iter().enumerate() {
        let spec = serde_json::json!({"spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "1500m", "memory": "64Mi"}}}]}});
        bench.pod(&pod_with(&format!("web{number}"), spec));
        bench.offer(agent, 2.0, 2048.0);
    }
    let names: Vec<String> = created(&bench.log);
    assert_eq!(names.len(), 2);
    assert_ne!(names[0], names[1]);
    for effect in &bench.log {
        if let Effect::Api(ApiRequest::CreateNode(spec)) = effect {
            assert_eq!(spec.labels["kubernetes.io/hostname"], spec.name, "as the kubelet will write it");
            assert!(spec.name.len() <= 63 && spec.name.starts_with("aaa"), "{}", spec.name);
        }
    }
}
