//! The bounds of nodes: as flags, in cluster.yaml, and live in the API.
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use crate::failure::{Code, Failure};
use kmctl_core::cluster::NodesSpec;
use kmctl_core::k8s::names::{MANAGED_BY_LABEL, NAMESPACE, SETTINGS_CONFIG_MAP};

/// How a missing upper bound is written.
const NONE: &str = "none";

/// An upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Max(pub(crate) Option<u32>);

/// Parses `--max`.
pub(crate) fn parse_max(text: &str) -> Result<Max, String> {
    if text == NONE {
        return Ok(Max(None));
    }
    text.parse().map(|value| Max(Some(value))).map_err(|_| "must be a number or `none`".to_owned())
}

/// Bounds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bounds {
    pub(crate) min: u32,
    pub(crate) max: Option<u32>,
}

impl Bounds {
    /// The bounds in cluster.yaml.
    pub(crate) fn of(nodes: &NodesSpec) -> Bounds {
        Bounds { min: nodes.min, max: nodes.max }
    }

    /// The live bounds. A bound that is not set live is that of cluster.yaml.
    pub(crate) fn read(found: Option<&ConfigMap>, nodes: &NodesSpec) -> Result<Bounds, Failure> {
        let value = |key: &str| found.and_then(|map| map.data.as_ref()?.get(key)).map(|text| text.trim());
        let number = |key: &str, text: &str| {
            let what = || format!("invalid {key} in ConfigMap {NAMESPACE}/{SETTINGS_CONFIG_MAP}");
            text.parse::<u32>().map_err(|error| Failure::new(Code::Failed, error).context(what()))
        };
        Ok(Bounds {
            min: value("min").map_or(Ok(nodes.min), |text| number("min", text))?,
            max: match value("max") {
                None => nodes.max,
                Some(NONE) => None,
                Some(text) => Some(number("max", text)?),
            },
        })
    }

    /// The bounds that the flags request.
    pub(crate) fn asked(self, nodes: Option<u32>, min: Option<u32>, max: Option<Max>) -> Result<Bounds, Failure> {
        let after = match nodes {
            Some(nodes) => Bounds { min: nodes, max: Some(nodes) },
            None => Bounds { min: min.unwrap_or(self.min), max: max.map_or(self.max, |Max(max)| max) },
        };
        if after.max.is_some_and(|max| max < after.min) {
            let text = format!("max ({}) is less than min ({})", after.shown_max(), after.min);
            return Err(Failure::message(Code::Usage, text).hint("set both: kmctl scale --min N --max N"));
        }
        Ok(after)
    }

    /// Whether the number of nodes follows the demand.
    pub(crate) fn automatic(self) -> bool {
        self.max != Some(self.min)
    }

    pub(crate) fn shown_max(self) -> String {
        self.max.map_or(NONE.to_owned(), |max| max.to_string())
    }

    /// Formats the bounds: `min 1, max none`.
    pub(crate) fn shown(self) -> String {
        format!("min {}, max {}", self.min, self.shown_max())
    }

    /// A merge patch, so that other keys are kept.
    pub(crate) fn change(self) -> serde_json::Value {
        serde_json::json!({ "data": { "min": self.min.to_string(), "max": self.shown_max() } })
    }

    /// The object to create if there is none.
    pub(crate) fn created(self) -> ConfigMap {
        let data = [("min".to_owned(), self.min.to_string()), ("max".to_owned(), self.shown_max())].into();
        let labels = [(MANAGED_BY_LABEL.to_owned(), "kmctl".to_owned())].into();
        let name = Some(SETTINGS_CONFIG_MAP.to_owned());
        ConfigMap {
            metadata: ObjectMeta { name, labels: Some(labels), ..ObjectMeta::default() },
            data: Some(data),
            ..ConfigMap::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn live_bounds_win_over_the_file_as_km_scheduler_reads_them() {
        let nodes = NodesSpec { min: 1, max: Some(5), ..NodesSpec::default() };
        let read = |data: &[(&str, &str)]| Bounds::read(Some(&stored(data)), &nodes).unwrap();
        assert_eq!(Bounds::read(None, &nodes).unwrap(), Bounds { min: 1, max: Some(5) });
        assert_eq!(read(&[("min", "2"), ("max", "3")]), Bounds { min: 2, max: Some(3) });
        assert_eq!(read(&[("min", "0"), ("max", "none")]), Bounds { min: 0, max: None });
        assert_eq!(read(&[("min", "0")]), Bounds { min: 0, max: Some(5) });
        assert!(Bounds::read(Some(&stored(&[("min", "two")])), &nodes).is_err());
    }

    #[test]
    fn what_is_written_is_read_back_and_other_keys_are_not_touched() {
        for bounds in [Bounds { min: 3, max: None }, Bounds { min: 3, max: Some(3) }] {
            let created = bounds.created();
            assert_eq!(Bounds::read(Some(&created), &NodesSpec::default()).unwrap(), bounds);
            let patch = serde_json::json!({ "data": created.data });
            assert_eq!(bounds.change(), patch);
        }
    }

    #[test]
    fn flags_change_what_they_name() {
        let before = Bounds { min: 1, max: Some(5) };
        let flags = |nodes, min, max| (nodes, min, max);
        let cases = [
            (flags(None, None, None), Some(before)),
            (flags(None, Some(2), None), Some(Bounds { min: 2, max: Some(5) })),
            (flags(None, None, Some(Max(None))), Some(Bounds { min: 1, max: None })),
            (flags(Some(3), None, None), Some(Bounds { min: 3, max: Some(3) })),
            (flags(None, Some(6), None), None),
            (flags(None, None, Some(Max(Some(0)))), None),
        ];
        for ((nodes, min, max), expected) in cases {
            assert_eq!(before.asked(nodes, min, max).ok(), expected);
        }
        assert!(before.automatic() && !Bounds { min: 3, max: Some(3) }.automatic());
    }

    #[test]
    fn a_bound_is_a_number_or_none() {
        assert_eq!(parse_max("none"), Ok(Max(None)));
        assert_eq!(parse_max("7"), Ok(Max(Some(7))));
        assert!(parse_max("-1").is_err());
    }
}
