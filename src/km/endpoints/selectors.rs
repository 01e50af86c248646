//! Finds the Services that may select a pod without checking every Service of its namespace. Pure.
use std::collections::{BTreeMap, BTreeSet};

use super::model::{Key, Labels, Service};

/// Services by one label of their selector.
#[derive(Debug, Default)]
pub struct Selectors {
    /// By namespace and `label=value`. A label's name has no `=`.
    by_term: BTreeMap<Key, BTreeSet<Key>>,
}

fn term(namespace: &str, (label, value): (&String, &String)) -> Key {
    Key::new(namespace, format!("{label}={value}"))
}

impl Selectors {
    /// Adds a Service. An earlier version of it has to be removed first.
    pub fn insert(&mut self, service: &Service) {
        if let Some(first) = service.selector.first_key_value() {
            self.by_term.entry(term(&service.key.namespace, first)).or_default().insert(service.key.clone());
        }
    }

    pub fn remove(&mut self, service: &Service) {
        let Some(first) = service.selector.first_key_value() else { return };
        let term = term(&service.key.namespace, first);
        if let Some(services) = self.by_term.get_mut(&term) {
            services.remove(&service.key);
            if services.is_empty() {
                self.by_term.remove(&term);
            }
        }
    }

    /// The Services of the namespace that may select a pod with these labels. Includes all that do select it.
    pub fn candidates(&self, namespace: &str, labels: &Labels) -> impl Iterator<Item = &Key> {
        labels.iter().filter_map(move |label| self.by_term.get(&term(namespace, label))).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    fn service(namespace: &str, name: &str, selector: &[(&str, &str)]) -> Service {
        Service {
            key: Key::new(namespace, name),
            uid: String::new(),
            labels: Labels::new(),
            selector: labels(selector),
            ports: Vec::new(),
            headless: false,
            external_name: false,
            publish_not_ready: false,
        }
    }

    fn names(selectors: &Selectors, namespace: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        selectors.candidates(namespace, &labels(pairs)).map(|key| key.name.clone()).collect()
    }

    #[test]
    fn whoever_selects_a_pod_is_among_the_candidates() {
        let mut selectors = Selectors::default();
        let all = [
            service("ns", "one", &[("app", "web")]),
            service("ns", "two", &[("app", "web"), ("tier", "front")]),
            service("ns", "tier", &[("tier", "front")]),
            service("other", "elsewhere", &[("app", "web")]),
            service("ns", "manual", &[]),
        ];
        all.iter().for_each(|service| selectors.insert(service));
        assert_eq!(names(&selectors, "ns", &[("app", "web"), ("tier", "front")]), ["one", "two", "tier"]);
        assert_eq!(names(&selectors, "ns", &[("app", "api")]), Vec::<String>::new());
        assert_eq!(names(&selectors, "other", &[("app", "web")]), ["elsewhere"]);
        all.iter().for_each(|service| selectors.remove(service));
        assert!(selectors.by_term.is_empty());
    }
}
