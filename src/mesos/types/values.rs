//! Resources, attributes and their values.
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ReservationType, ResourceProviderId, ValueType};

/// A number. Mesos keeps three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scalar {
    /// The number.
    pub value: f64,
}

/// An interval, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First value.
    pub begin: u64,
    /// Last value.
    pub end: u64,
}

/// A list of intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// The intervals.
    #[serde(default)]
    pub range: Vec<Range>,
}

/// A set of words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// The words.
    #[serde(default)]
    pub item: Vec<String>,
}

/// A word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The word.
    pub value: String,
}

/// A property of a machine, set by the agent's operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// Name of the attribute; may repeat.
    pub name: String,
    /// Which of the values is set.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Value of kind SCALAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalar: Option<Scalar>,
    /// Value of kind RANGES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
    /// Value of kind SET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Set>,
    /// Value of kind TEXT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

impl Attribute {
    /// An attribute whose value is a word.
    pub fn text(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: ValueType::Text,
            scalar: None,
            ranges: None,
            set: None,
            text: Some(Text { value: value.into() }),
        }
    }

    /// An attribute whose value is a number.
    pub fn scalar(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            kind: ValueType::Scalar,
            scalar: Some(Scalar { value }),
            ranges: None,
            set: None,
            text: None,
        }
    }
}

/// The role that an offer's resources are allocated to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationInfo {
    /// Name of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// One level of reservation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReservationInfo {
    /// Static (by the agent's operator) or dynamic (at run time).
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ReservationType>,
    /// Role that the resource is reserved for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Principal that reserved the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Labels, returned to Mesos unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// A share of an agent. Fields that this project does not interpret (`disk`, `revocable`, `shared`) are returned to
/// Mesos unchanged, because a resource is accepted only if it equals the offered one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// `cpus`, `mem`, `disk`, `ports`, `gpus` or a name that the operator defined.
    pub name: String,
    /// Which of the values is set.
    #[serde(rename = "type")]
    pub kind: ValueType,
    /// Amount, for kind SCALAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scalar: Option<Scalar>,
    /// Intervals, for kind RANGES; ports, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
    /// Words, for kind SET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Set>,
    /// Legacy form of a static reservation; absent for frameworks with RESERVATION_REFINEMENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The role that the resource is offered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_info: Option<AllocationInfo>,
    /// Reservations, outermost first; empty means unreserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<ReservationInfo>,
    /// The resource provider, for resources that are not the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<ResourceProviderId>,
    /// Volumes and disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<serde_json::Value>,
    /// Present if Mesos may revoke the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocable: Option<serde_json::Value>,
    /// Present if several tasks may use the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<serde_json::Value>,
}

impl Resource {
    fn of(name: impl Into<String>, kind: ValueType) -> Self {
        Self {
            name: name.into(),
            kind,
            scalar: None,
            ranges: None,
            set: None,
            role: None,
            allocation_info: None,
            reservations: Vec::new(),
            provider_id: None,
            disk: None,
            revocable: None,
            shared: None,
        }
    }

    /// An unreserved amount.
    pub fn scalar(name: impl Into<String>, value: f64) -> Self {
        Self { scalar: Some(Scalar { value }), ..Self::of(name, ValueType::Scalar) }
    }

    /// Unreserved intervals, both ends included.
    pub fn ranges(name: impl Into<String>, ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let range = ranges.into_iter().map(|(begin, end)| Range { begin, end }).collect();
        Self { ranges: Some(Ranges { range }), ..Self::of(name, ValueType::Ranges) }
    }

    /// The same resource, allocated to a role.
    #[must_use]
    pub fn allocated_to(mut self, role: impl Into<String>) -> Self {
        self.allocation_info = Some(AllocationInfo { role: Some(role.into()) });
        self
    }

    /// The amount of a scalar; 0 for any other kind.
    pub fn amount(&self) -> f64 {
        self.scalar.map_or(0.0, |scalar| scalar.value)
    }

    /// The intervals, both ends included; empty for any other kind.
    pub fn intervals(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().flat_map(|ranges| ranges.range.iter().map(|range| (range.begin, range.end)))
    }

    /// The role that the resource is offered to.
    pub fn allocation_role(&self) -> Option<&str> {
        self.allocation_info.as_ref().and_then(|info| info.role.as_deref())
    }

    /// Whether the resource is a plain share that any task of the role may use: not a volume, not revocable, not
    /// shared, and not from a resource provider.
    pub fn is_plain(&self) -> bool {
        self.disk.is_none() && self.revocable.is_none() && self.shared.is_none() && self.provider_id.is_none()
    }
}

/// A key with an optional value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Not necessarily unique: a list of labels may repeat it.
    pub key: String,
    /// None for a label that has a key only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A list of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The labels, in order; a key may repeat.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// A span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DurationInfo {
    /// Length in nanoseconds, a JSON number.
    pub nanoseconds: i64,
}

impl From<Duration> for DurationInfo {
    fn from(duration: Duration) -> Self {
        Self { nanoseconds: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

impl DurationInfo {
    /// The span as a duration; a negative span counts as zero.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or(0))
    }
}

/// Parses a duration as Mesos writes it: a number, optionally with a fraction, and one unit. Returns none for other
/// text.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        "days" => 86_400.0,
        "weeks" => 604_800.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeInfo {
    /// Nanoseconds since 1970, a JSON number.
    pub nanoseconds: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_mesos_writes_them() {
        let cases = [
            ("15mins", Some(Duration::from_secs(900))),
            ("2secs", Some(Duration::from_secs(2))),
            ("1.5hrs", Some(Duration::from_secs(5400))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1weeks", Some(Duration::from_secs(604_800))),
            ("15", None),
            ("x", None),
            ("mins", None),
            ("-1secs", None),
            ("3 fortnights", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_resource_is_handed_back_as_it_came() {
        let offered = serde_json::json!({
            "name": "disk", "type": "SCALAR", "scalar": {"value": 10.5},
            "allocation_info": {"role": "kubernetes"},
            "reservations": [{"type": "DYNAMIC", "role": "kubernetes", "principal": "p",
                              "labels": {"labels": [{"key": "k", "value": "v"}]}}],
            "provider_id": {"value": "rp"},
            "disk": {"persistence": {"id": "volume"}, "volume": {"container_path": "x", "mode": "RW"}},
            "revocable": {}, "shared": {}
        });
        let resource: Resource = serde_json::from_value(offered.clone()).unwrap();
        assert!(!resource.is_plain());
        assert_eq!(serde_json::to_value(&resource).unwrap(), offered);
    }

    #[test]
    fn ports_are_read_with_both_ends() {
        let resource: Resource = serde_json::from_str(
            r#"{"name":"ports","type":"RANGES","ranges":{"range":[{"begin":31000,"end":31005},{"begin":31007,"end":31007}]}}"#,
        )
        .unwrap();
        assert_eq!(resource.intervals().collect::<Vec<_>>(), [(31000, 31005), (31007, 31007)]);
    }

    #[test]
    fn whole_numbers_are_amounts_too() {
        let resource: Resource =
            serde_json::from_str(r#"{"name":"cpus","type":"SCALAR","scalar":{"value":2}}"#).unwrap();
        assert_eq!(resource.amount(), 2.0);
    }
}
