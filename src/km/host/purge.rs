//! Stopping all nodes and sweeping the agents, before a cluster is purged.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::AgentError;
use super::api::Api;
use super::events::Reporter;
use super::files::Root;
use kmctl_core::k8s::names;
use kmctl_core::protocol::host::{ADMIN, Change, Event};

/// How long draining the nodes and sweeping the agents may take.
const PURGE: Duration = Duration::from_secs(600);

/// Sets the live setting that makes km scheduler stop every node and sweep every agent that ever had one, and waits
/// until the scheduler reports that it is done.
pub(crate) fn purge_nodes(root: &Root, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let item = "nodes and what they left on agents".to_owned();
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", names::NAMESPACE, names::SETTINGS_CONFIG_MAP);
    let failed = |answer| AgentError::Object { object: "ConfigMap kmctl-settings".to_owned(), answer };
    let Some(api) = Api::open(root, ADMIN)? else {
        return Err(AgentError::Refused(format!("{ADMIN} cannot be read")));
    };
    reporter.send(&Event::Started { item: item.clone() })?;
    api.merge(&path, &json!({"data": {"purge": "true", names::UNCLEANED_KEY: null}})).map_err(failed)?;
    let started = Instant::now();
    let mut told = Instant::now();
    loop {
        let settings = api.get(&path).map_err(failed)?.unwrap_or_default();
        if settings["data"]["purge"] == "done" {
            let remains = uncleaned(&settings);
            if remains.is_empty() {
                return reporter.done(item, Change::Removed);
            }
            return reporter.send(&Event::Incomplete { item, remains });
        }
        let seconds = started.elapsed().as_secs();
        if started.elapsed() >= PURGE {
            let last = "km scheduler has not finished".to_owned();
            return Err(AgentError::Unhealthy { what: item, seconds, last });
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            reporter.send(&Event::Waiting {
                item: item.clone(),
                seconds,
                last: "nodes end, agents are swept".to_owned(),
            })?;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Agents that the purge could not clean. A scheduler of an older release names none.
fn uncleaned(settings: &Value) -> Vec<String> {
    let text = settings["data"][names::UNCLEANED_KEY].as_str().unwrap_or_default();
    let agents: BTreeMap<String, String> = serde_json::from_str(text).unwrap_or_default();
    agents.into_iter().map(|(agent, why)| format!("agent {agent} is not cleaned: {why}")).collect()
}

/// Removes the setting after a drain, so that a cluster that is started again has nodes.
pub(crate) fn forget_purge(root: &Root) -> Result<(), AgentError> {
    let path = format!("/api/v1/namespaces/{}/configmaps/{}", names::NAMESPACE, names::SETTINGS_CONFIG_MAP);
    let failed = |answer| AgentError::Object { object: "ConfigMap kmctl-settings".to_owned(), answer };
    let Some(api) = Api::open(root, ADMIN)? else {
        return Err(AgentError::Refused(format!("{ADMIN} cannot be read")));
    };
    api.merge(&path, &json!({"data": {"purge": null, names::UNCLEANED_KEY: null}})).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_a_purge_could_not_clean_are_named() {
        let settings =
            json!({"data": {"purge": "done", "uncleaned": r#"{"a1 (S1)": "it made no offer within 300s"}"#}});
        assert_eq!(uncleaned(&settings), ["agent a1 (S1) is not cleaned: it made no offer within 300s"]);
        for none in [json!({"data": {"purge": "done"}}), json!({"data": {"purge": "done", "uncleaned": "{}"}})] {
            assert!(uncleaned(&none).is_empty(), "{none}");
        }
    }
}
