//! `kmctl scale`: the bounds of nodes, while the cluster lives.
use std::sync::Arc;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde::Serialize;

use super::context::{Context, OutputFormat};
use super::failure::{Code, Failure};
use super::reach;
use crate::cluster::NodesSpec;
use crate::k8s::names::{MANAGED_BY_LABEL, NAMESPACE, SETTINGS_CONFIG_MAP};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Nodes that are kept even when idle
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// Most nodes; `none` for every agent that fits
    #[arg(long, value_name = "N|none", value_parser = bound)]
    max: Option<Max>,
}

/// An upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Max(Option<u32>);

fn bound(text: &str) -> Result<Max, String> {
    if text == "none" {
        return Ok(Max(None));
    }
    text.parse().map(|value| Max(Some(value))).map_err(|_| "a number, or `none`".to_owned())
}

/// Bounds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Bounds {
    min: u32,
    max: Option<u32>,
}

/// Shows the bounds, and sets those that were given.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { min, max } = args;
    let loaded = context.cluster()?;
    let host = Arc::new(context.connect_any(&loaded).await?);
    let api: Api<ConfigMap> = Api::namespaced(reach::kube(host).await?, NAMESPACE);
    let found = reach::answered("read the live settings", api.get_opt(SETTINGS_CONFIG_MAP)).await?;
    let before = read(found.as_ref(), &loaded.cluster.spec.nodes)?;
    let after = Bounds { min: min.unwrap_or(before.min), max: max.map_or(before.max, |Max(max)| max) };
    if after.max.is_some_and(|max| max < after.min) {
        let text = format!("max ({}) would be less than min ({})", show(after.max), after.min);
        return Err(Failure::message(Code::Usage, text).hint("give both --min and --max"));
    }
    if after == before && found.is_some() {
        if min.is_some() || max.is_some() {
            context.progress.note("", "unchanged");
        }
    } else if min.is_some() || max.is_some() {
        if found.is_some() {
            let patch = Patch::Merge(change(after));
            let parameters = PatchParams::default();
            reach::answered("set the live settings", api.patch(SETTINGS_CONFIG_MAP, &parameters, &patch)).await?;
        } else {
            let parameters = PostParams::default();
            reach::answered("set the live settings", api.create(&parameters, &created(after))).await?;
        }
        let written = Bounds { min: loaded.cluster.spec.nodes.min, max: loaded.cluster.spec.nodes.max };
        if written != after {
            context
                .progress
                .note("", "cluster.yaml says otherwise under nodes; these bounds hold until they are changed again");
        }
    }
    match context.settings.output {
        OutputFormat::Text => context.data(&format!("min {}\nmax {}\n", after.min, show(after.max)))?,
        OutputFormat::Json => context.json(&after)?,
    }
    Ok(Code::Ok)
}

fn show(max: Option<u32>) -> String {
    max.map_or("none (every agent that fits)".to_owned(), |max| max.to_string())
}

/// The live bounds; what is not set live is as in cluster.yaml.
fn read(found: Option<&ConfigMap>, nodes: &NodesSpec) -> Result<Bounds, Failure> {
    let Some(data) = found.and_then(|found| found.data.as_ref()) else {
        return Ok(Bounds { min: nodes.min, max: nodes.max });
    };
    let number = |key: &str| {
        let parsed = data.get(key).map(|text| text.trim().parse::<u32>()).transpose();
        parsed.with_context(|| format!("read {key} of ConfigMap {NAMESPACE}/{SETTINGS_CONFIG_MAP}"))
    };
    Ok(Bounds { min: number("min")?.unwrap_or(nodes.min), max: number("max")? })
}

/// A merge patch: other keys stay, and no bound means no key, whoever wrote it.
fn change(bounds: Bounds) -> serde_json::Value {
    serde_json::json!({ "data": { "min": bounds.min.to_string(), "max": bounds.max.map(|max| max.to_string()) } })
}

fn created(bounds: Bounds) -> ConfigMap {
    let max = bounds.max.map(|max| ("max".to_owned(), max.to_string()));
    let data = max.into_iter().chain([("min".to_owned(), bounds.min.to_string())]).collect();
    let labels = [(MANAGED_BY_LABEL.to_owned(), "kmctl".to_owned())].into();
    let name = Some(SETTINGS_CONFIG_MAP.to_owned());
    ConfigMap {
        metadata: ObjectMeta { name, labels: Some(labels), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
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
    fn live_bounds_win_over_the_file_and_an_absent_max_means_none() {
        let nodes = NodesSpec { min: 1, max: Some(5), ..NodesSpec::default() };
        assert_eq!(read(None, &nodes).unwrap(), Bounds { min: 1, max: Some(5) });
        assert_eq!(
            read(Some(&stored(&[("min", "2"), ("max", "3")])), &nodes).unwrap(),
            Bounds { min: 2, max: Some(3) }
        );
        assert_eq!(read(Some(&stored(&[("min", "0")])), &nodes).unwrap(), Bounds { min: 0, max: None });
        assert!(read(Some(&stored(&[("min", "two")])), &nodes).is_err());
    }

    #[test]
    fn a_bound_that_is_given_up_is_removed_and_other_keys_are_not_touched() {
        let patch = change(Bounds { min: 3, max: None });
        assert_eq!(patch, serde_json::json!({ "data": { "min": "3", "max": null } }));
        let created = created(Bounds { min: 3, max: None });
        assert_eq!(read(Some(&created), &NodesSpec::default()).unwrap(), Bounds { min: 3, max: None });
    }

    #[test]
    fn a_bound_is_a_number_or_none() {
        assert_eq!(bound("none"), Ok(Max(None)));
        assert_eq!(bound("7"), Ok(Max(Some(7))));
        assert!(bound("-1").is_err());
    }
}
