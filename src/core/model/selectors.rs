//! Kubernetes' matching rules, as far as they are needed to choose the agents to start: labels, node affinity, taints.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// One requirement on a label (or a field).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Requirement {
    fn new(key: &str, operator: &str, values: Option<&Vec<String>>) -> Requirement {
        Requirement { key: key.to_owned(), operator: operator.to_owned(), values: values.cloned().unwrap_or_default() }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
        match self.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => number(value) > number(self.values.first()) && number(value).is_some(),
            "Lt" => number(value) < number(self.values.first()) && number(value).is_some(),
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self.operator.as_str() {
            "Exists" | "DoesNotExist" => format!("{} {}", self.key, self.operator),
            "In" if self.values.len() == 1 => format!("{}={}", self.key, self.values[0]),
            operator => format!("{} {operator} [{}]", self.key, self.values.join(", ")),
        }
    }
}

/// A label selector of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(Option<Vec<Requirement>>);

impl Selector {
    /// From the API's form; `None` selects nothing, an empty selector everything.
    pub fn new(selector: Option<&LabelSelector>) -> Selector {
        Selector(selector.map(|selector| {
            let exact = selector.match_labels.iter().flatten();
            let mut all: Vec<Requirement> =
                exact.map(|(key, value)| Requirement::new(key, "In", Some(&vec![value.clone()]))).collect();
            let expressions = selector.match_expressions.iter().flatten();
            all.extend(expressions.map(|each| Requirement::new(&each.key, &each.operator, each.values.as_ref())));
            all
        }))
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|requirement| requirement.matches(labels)))
    }
}

/// What a pod requires of its node: nodeSelector and required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDemand {
    selector: Vec<Requirement>,
    /// Alternatives; `None` matches any node, an empty list matches none.
    terms: Option<Vec<Term>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    labels: Vec<Requirement>,
    names: Vec<Requirement>,
}

impl NodeDemand {
    /// From the pod's specification.
    pub fn new(selector: Option<&Labels>, terms: Option<&[NodeSelectorTerm]>) -> NodeDemand {
        let selector = selector.into_iter().flatten();
        let read = |list: Option<&Vec<k8s_openapi::api::core::v1::NodeSelectorRequirement>>| {
            list.into_iter()
                .flatten()
                .map(|each| Requirement::new(&each.key, &each.operator, each.values.as_ref()))
                .collect()
        };
        NodeDemand {
            selector: selector.map(|(key, value)| Requirement::new(key, "In", Some(&vec![value.clone()]))).collect(),
            terms: terms.map(|terms| {
                let terms = terms.iter().map(|term| Term {
                    labels: read(term.match_expressions.as_ref()),
                    names: read(term.match_fields.as_ref()),
                });
                // An empty term matches nothing.
                terms.filter(|term| !term.labels.is_empty() || !term.names.is_empty()).collect()
            }),
        }
    }

    /// Whether a node with this name and these labels meets the requirements.
    pub fn accepts(&self, name: &str, labels: &Labels) -> bool {
        let fields = Labels::from([("metadata.name".to_owned(), name.to_owned())]);
        self.selector.iter().all(|requirement| requirement.matches(labels))
            && self.terms.as_ref().is_none_or(|terms| {
                terms.iter().any(|term| {
                    term.labels.iter().all(|requirement| requirement.matches(labels))
                        && term.names.iter().all(|requirement| requirement.matches(&fields))
                })
            })
    }

    /// The one node that the only alternative names, as for the pods of a DaemonSet.
    pub fn pinned(&self) -> Option<&str> {
        let [term] = self.terms.as_deref()? else { return None };
        let name = term.names.iter().find(|field| field.key == "metadata.name" && field.operator == "In")?;
        name.values.first().map(String::as_str)
    }

    /// For messages: `rack=r1 and zone In [a, b]`.
    pub fn describe(&self) -> String {
        let mut parts: Vec<String> = self.selector.iter().map(Requirement::describe).collect();
        let terms = self.terms.iter().flatten();
        let terms: Vec<String> = terms
            .map(|term| {
                term.labels.iter().chain(&term.names).map(Requirement::describe).collect::<Vec<_>>().join(" and ")
            })
            .collect();
        if !terms.is_empty() {
            parts.push(terms.join(" or "));
        }
        parts.join(" and ")
    }
}

/// Whether every taint that repels pods (NoSchedule, NoExecute) is tolerated.
pub fn tolerates(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    taints.iter().filter(|taint| taint.effect != "PreferNoSchedule").all(|taint| {
        tolerations.iter().any(|toleration| {
            let effect = toleration.effect.as_deref().unwrap_or("");
            let key = toleration.key.as_deref().unwrap_or("");
            let any = toleration.operator.as_deref() == Some("Exists");
            (effect.is_empty() || effect == taint.effect)
                && ((key.is_empty() && any) || key == taint.key)
                && (any || toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels() -> Labels {
        Labels::from([("rack".to_owned(), "r1".to_owned()), ("disks".to_owned(), "4".to_owned())])
    }

    #[test]
    fn node_affinity_follows_the_rules_of_kubernetes() {
        let cases = [
            (json!([{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r1", "r2"]}]}]), true),
            (json!([{"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["r1"]}]}]), false),
            (json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]), false),
            (json!([{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]), true),
            (json!([{"matchExpressions": [{"key": "disks", "operator": "Gt", "values": ["3"]}]}]), true),
            (json!([{"matchExpressions": [{"key": "disks", "operator": "Lt", "values": ["3"]}]}]), false),
            (json!([{"matchExpressions": [{"key": "gpu", "operator": "Lt", "values": ["3"]}]}]), false),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]), true),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]), false),
            (json!([{}]), false),
            (json!([{}, {"matchExpressions": [{"key": "rack", "operator": "Exists"}]}]), true),
        ];
        for (terms, expected) in cases {
            let terms: Vec<NodeSelectorTerm> = serde_json::from_value(terms).unwrap();
            assert_eq!(NodeDemand::new(None, Some(&terms)).accepts("n1", &labels()), expected, "{terms:?}");
        }
        let wanted = Labels::from([("rack".to_owned(), "r9".to_owned())]);
        let demand = NodeDemand::new(Some(&wanted), None);
        assert!(!demand.accepts("n1", &labels()));
        assert_eq!(demand.describe(), "rack=r9");
    }

    #[test]
    fn a_daemon_pod_is_pinned_to_its_node() {
        let terms: Vec<NodeSelectorTerm> = serde_json::from_value(
            json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]),
        )
        .unwrap();
        assert_eq!(NodeDemand::new(None, Some(&terms)).pinned(), Some("n2"));
        assert_eq!(NodeDemand::default().pinned(), None);
    }

    #[test]
    fn taints_need_a_toleration_unless_they_only_prefer() {
        let taint =
            |effect: &str| Taint { key: "k".into(), value: Some("v".into()), effect: effect.into(), time_added: None };
        let cases = [
            (json!([]), "NoSchedule", false),
            (json!([]), "PreferNoSchedule", true),
            (json!([{"operator": "Exists"}]), "NoExecute", true),
            (json!([{"key": "k", "value": "v"}]), "NoSchedule", true),
            (json!([{"key": "k", "value": "w"}]), "NoSchedule", false),
            (json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), "NoSchedule", false),
        ];
        for (tolerations, effect, expected) in cases {
            let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
            assert_eq!(tolerates(&tolerations, &[taint(effect)]), expected, "{tolerations:?} {effect}");
        }
    }

    #[test]
    fn an_absent_pod_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!Selector::new(None).matches(&labels()));
        assert!(Selector::new(Some(&LabelSelector::default())).matches(&labels()));
    }
}
