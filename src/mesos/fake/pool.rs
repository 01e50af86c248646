//! Exact amounts of resources: Mesos counts scalars in thousandths.
use std::collections::{BTreeMap, BTreeSet};

use crate::types::{Resource, ValueType};

/// Unreserved resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    scalars: BTreeMap<String, i64>,
    ranges: BTreeMap<String, BTreeSet<u64>>,
}

impl Pool {
    /// Sums up resources.
    pub(super) fn of(resources: &[Resource]) -> Self {
        let mut pool = Self::default();
        for resource in resources {
            match resource.kind {
                ValueType::Ranges => {
                    let values = resource.intervals().flat_map(|(begin, end)| begin..=end);
                    pool.ranges.entry(resource.name.clone()).or_default().extend(values);
                }
                _ => {
                    *pool.scalars.entry(resource.name.clone()).or_default() +=
                        (resource.amount() * 1000.0).round() as i64;
                }
            }
        }
        pool
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        let scalars = other.scalars.iter().all(|(name, amount)| self.scalars.get(name).unwrap_or(&0) >= amount);
        let nothing = BTreeSet::new();
        let ranges = other.ranges.iter().all(|(name, set)| self.ranges.get(name).unwrap_or(&nothing).is_superset(set));
        scalars && ranges
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.scalars {
            *self.scalars.entry(name.clone()).or_default() += amount;
        }
        for (name, set) in &other.ranges {
            self.ranges.entry(name.clone()).or_default().extend(set);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.scalars {
            *self.scalars.entry(name.clone()).or_default() -= amount;
        }
        for (name, set) in &other.ranges {
            if let Some(own) = self.ranges.get_mut(name) {
                own.retain(|value| !set.contains(value));
            }
        }
    }

    /// Whether there is enough for an offer: Mesos requires 0.01 CPUs or 32 MB.
    pub(super) fn is_allocatable(&self) -> bool {
        self.scalar("cpus") >= 10 || self.scalar("mem") >= 32_000
    }

    pub(super) fn scalar(&self, name: &str) -> i64 {
        self.scalars.get(name).copied().unwrap_or(0)
    }

    /// The resources as in an offer or, without a role, as in the operator API.
    pub(super) fn resources(&self, role: Option<&str>) -> Vec<Resource> {
        let scalars = self.scalars.iter().filter(|(_, amount)| **amount > 0);
        let scalars = scalars.map(|(name, amount)| Resource::scalar(name, *amount as f64 / 1000.0));
        let ranges = self.ranges.iter().filter(|(_, set)| !set.is_empty());
        let ranges = ranges.map(|(name, set)| Resource::ranges(name, intervals(set)));
        let all = scalars.chain(ranges);
        match role {
            Some(role) => all.map(|resource| resource.allocated_to(role)).collect(),
            None => all.collect(),
        }
    }
}

fn intervals(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut intervals: Vec<(u64, u64)> = Vec::new();
    for value in set {
        match intervals.last_mut() {
            Some((_, end)) if *end + 1 == *value => *end = *value,
            _ => intervals.push((*value, *value)),
        }
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_given_back_leaves_the_pool_as_it_was() {
        let whole = Pool::of(&[Resource::scalar("cpus", 2.0), Resource::ranges("ports", [(10, 20)])]);
        let part = Pool::of(&[Resource::scalar("cpus", 0.3), Resource::ranges("ports", [(12, 13), (20, 20)])]);
        let mut pool = whole.clone();
        assert!(pool.contains(&part));
        pool.subtract(&part);
        assert!(!pool.contains(&part));
        assert_eq!(pool.resources(None)[1], Resource::ranges("ports", [(10, 11), (14, 19)]));
        pool.add(&part);
        assert_eq!(pool, whole);
    }
}
