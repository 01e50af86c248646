//! Amounts in Mesos' units, as integers: Mesos keeps three decimals of a scalar, and so does this module.
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use crate::protocol::launch::Grant;

/// Processors and memory, in thousandths of a processor and of a megabyte (2^20 bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Thousandths of a processor.
    pub cpus: i64,
    /// Thousandths of a megabyte.
    pub mem: i64,
}

impl Amount {
    /// From thousandths of a processor and whole megabytes.
    pub const fn new(millicpus: i64, megabytes: i64) -> Amount {
        Amount { cpus: millicpus, mem: megabytes * 1000 }
    }

    /// Whether this amount is enough for `need`.
    pub fn covers(self, need: Amount) -> bool {
        self.cpus >= need.cpus && self.mem >= need.mem
    }

    /// The larger value of each resource.
    pub fn max(self, other: Amount) -> Amount {
        Amount { cpus: self.cpus.max(other.cpus), mem: self.mem.max(other.mem) }
    }

    /// The smaller value of each resource.
    pub fn min(self, other: Amount) -> Amount {
        Amount { cpus: self.cpus.min(other.cpus), mem: self.mem.min(other.mem) }
    }

    /// For messages: `0.5 CPU, 64 MiB`.
    pub fn shown(self) -> String {
        format!("{} CPU, {} MiB", decimal(self.cpus), decimal(self.mem))
    }

    /// The amount as a node agent receives it.
    pub fn grant(self) -> Grant {
        Grant { cpus: from_thousandths(self.cpus), mem: from_thousandths(self.mem) }
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount { cpus: self.cpus + other.cpus, mem: self.mem + other.mem }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Amount;

    fn sub(self, other: Amount) -> Amount {
        Amount { cpus: self.cpus - other.cpus, mem: self.mem - other.mem }
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::default(), Add::add)
    }
}

/// `cpus:0.75;mem:644`, Mesos' format for resources.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpus:{};mem:{}", decimal(self.cpus), decimal(self.mem))
    }
}

/// Parses the [`fmt::Display`] format of [`Amount`]; `None` for anything else.
pub fn read_amount(text: &str) -> Option<Amount> {
    let (cpus, mem) = text.strip_prefix("cpus:")?.split_once(";mem:")?;
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    Some(Amount { cpus: to_thousandths(number(cpus)?), mem: to_thousandths(number(mem)?) })
}

/// Formats a number of thousandths as a decimal without trailing zeros: `1500` is `1.5`.
pub fn decimal(thousandths: i64) -> String {
    let (whole, rest) = (thousandths / 1000, (thousandths % 1000).abs());
    if rest == 0 {
        return whole.to_string();
    }
    let sign = if thousandths < 0 && whole == 0 { "-" } else { "" };
    format!("{sign}{whole}.{}", format!("{rest:03}").trim_end_matches('0'))
}

/// A Mesos scalar in thousandths; Mesos itself rounds to that.
#[allow(clippy::cast_possible_truncation)]
pub fn to_thousandths(scalar: f64) -> i64 {
    (scalar * 1000.0).round() as i64
}

/// Thousandths as a Mesos scalar.
#[allow(clippy::cast_precision_loss)]
pub fn from_thousandths(thousandths: i64) -> f64 {
    thousandths as f64 / 1000.0
}

/// Port ranges, both ends included, sorted and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// From ranges in any order; ports outside 0…65535 are left out.
    pub fn new(ranges: impl IntoIterator<Item = (u64, u64)>) -> Ports {
        let mut all = Ports::default();
        for (begin, end) in ranges {
            if let (Ok(begin), Ok(end)) = (u16::try_from(begin), u16::try_from(end.min(u64::from(u16::MAX))))
                && begin <= end
            {
                all.0.push((begin, end));
            }
        }
        all.0.sort_unstable();
        all
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a range contains `port`.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|&(begin, end)| begin <= port && port <= end)
    }

    /// Number of ports.
    pub fn count(&self) -> usize {
        self.0.iter().map(|&(begin, end)| usize::from(end - begin) + 1).sum()
    }

    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// All ports, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|&(begin, end)| begin..=end)
    }

    /// Adds the ranges of `other`.
    pub fn extend(&mut self, other: &Ports) {
        self.0.extend_from_slice(&other.0);
        self.0.sort_unstable();
    }

    /// Removes this many ports, no matter which.
    pub fn take_any(&mut self, count: usize) {
        let any: Vec<u16> = self.iter().take(count).collect();
        for port in any {
            self.remove(port);
        }
    }

    /// Removes one port; returns whether it was included.
    pub fn remove(&mut self, port: u16) -> bool {
        let Some(index) = self.0.iter().position(|&(begin, end)| begin <= port && port <= end) else { return false };
        let (begin, end) = self.0.remove(index);
        if port < end {
            self.0.insert(index, (port + 1, end));
        }
        if begin < port {
            self.0.insert(index, (begin, port - 1));
        }
        true
    }
}

/// `31000-31005, 31010`.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (begin, end)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if begin == end {
                write!(f, "{comma}{begin}")?;
            } else {
                write!(f, "{comma}{begin}-{end}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_are_written_without_trailing_zeros() {
        for (thousandths, text) in [(0, "0"), (1500, "1.5"), (10, "0.01"), (644_000, "644"), (-250, "-0.25")] {
            assert_eq!(decimal(thousandths), text);
        }
    }

    #[test]
    fn an_amount_is_read_as_it_is_written() {
        for amount in [Amount::new(250, 96), Amount { cpus: 1, mem: 1 }, Amount::default()] {
            assert_eq!(read_amount(&amount.to_string()), Some(amount));
        }
        for wrong in ["", "cpus:1", "cpus:x;mem:1", "cpus:-1;mem:1", "cpus:inf;mem:1", "mem:1;cpus:1"] {
            assert_eq!(read_amount(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scalar_survives_the_way_through_thousandths() {
        for scalar in [0.1, 0.25, 1.001, 3999.999] {
            assert!((from_thousandths(to_thousandths(scalar)) - scalar).abs() < 1e-9);
        }
    }

    #[test]
    fn taking_a_port_splits_its_range() {
        let cases: [(u16, &str); 4] =
            [(31000, "31001-31005"), (31005, "31000-31004"), (31002, "31000-31001, 31003-31005"), (9, "31000-31005")];
        for (port, left) in cases {
            let mut ports = Ports::new([(31000, 31005)]);
            assert_eq!(ports.remove(port), port != 9);
            assert_eq!(ports.to_string(), left);
        }
    }
}
