//! Watches the API and turns changes into events of the core.
use std::pin::pin;

use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as Watched, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::decide::{Bounds, Event};
use kmctl_core::k8s::names::{FRAMEWORK_CONFIG_MAP, NAMESPACE, SETTINGS_CONFIG_MAP};
use kmctl_core::k8s::relist::KnownKeys;
use kmctl_core::model::nodes::NodeFacts;
use kmctl_core::model::pods::PodFacts;
use kmctl_core::model::resources::Amount;

/// Watches pods, nodes and the two ConfigMaps until the receiver is dropped.
pub async fn watch_all(client: Client, pod_defaults: Amount, default_bounds: Bounds, events: mpsc::Sender<Event>) {
    let config = watcher::Config::default;
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let pods = watcher(Api::<Pod>::all(client.clone()), config());
    let nodes = watcher(Api::<Node>::all(client.clone()), config());
    let maps = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let settings = watcher(maps.clone(), named(SETTINGS_CONFIG_MAP));
    let framework = watcher(maps, named(FRAMEWORK_CONFIG_MAP));
    tokio::join!(
        follow(
            pods,
            &events,
            Some(Event::PodsSynced),
            |pod: Pod, gone| {
                let facts = PodFacts::new(&pod, pod_defaults)?;
                let key = facts.uid.clone();
                Some((key.clone(), if gone { Event::PodGone(key) } else { Event::Pod(Box::new(facts)) }))
            },
            |uid| Some(Event::PodGone(uid))
        ),
        follow(
            nodes,
            &events,
            Some(Event::NodesSynced),
            |node: Node, gone| {
                let facts = NodeFacts::new(&node)?;
                let key = facts.name.clone();
                Some((key.clone(), if gone { Event::NodeGone(key) } else { Event::Node(Box::new(facts)) }))
            },
            |name| Some(Event::NodeGone(name))
        ),
        follow(
            settings,
            &events,
            Some(Event::Bounds(default_bounds)),
            |map: ConfigMap, gone| {
                Some((
                    SETTINGS_CONFIG_MAP.to_owned(),
                    Event::Bounds(if gone { default_bounds } else { bounds(&map, default_bounds) }),
                ))
            },
            |_| Some(Event::Bounds(default_bounds))
        ),
        follow(
            framework,
            &events,
            None,
            |map: ConfigMap, gone| {
                Some((
                    FRAMEWORK_CONFIG_MAP.to_owned(),
                    Event::KnownAgents(if gone { Vec::new() } else { known_agents(&map) }),
                ))
            },
            |_| None
        ),
    );
}

/// The live settings. A missing or unreadable value is taken from the configuration file: a typing error must not lift a
/// limit. `none` as `max` means no maximum.
pub fn bounds(map: &ConfigMap, default: Bounds) -> Bounds {
    let text = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).map(|text| text.trim());
    let purge = text("purge").unwrap_or_default();
    Bounds {
        min: text("min").and_then(|text| text.parse().ok()).unwrap_or(default.min),
        max: match text("max") {
            Some("none") => None,
            Some(text) => text.parse().map_or(default.max, Some),
            None => default.max,
        },
        purge: purge == "true" || purge == "done",
        purged: purge == "done",
    }
}

/// Agents that ever had a node.
pub fn known_agents(map: &ConfigMap) -> Vec<String> {
    let text = map.data.as_ref().and_then(|data| data.get("agents"));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Turns one watch into events. A relist does not name the objects deleted in between, so the keys are compared.
/// `synced` is sent after the first complete list. Default bounds are not sent if that list contained the settings.
async fn follow<K: Send>(
    stream: impl Stream<Item = Result<Watched<K>, watcher::Error>> + Send,
    events: &mpsc::Sender<Event>,
    mut synced: Option<Event>,
    read: impl Fn(K, bool) -> Option<(String, Event)>,
    gone: impl Fn(String) -> Option<Event>,
) {
    let mut stream = pin!(stream.default_backoff());
    let mut known = KnownKeys::default();
    loop {
        let watched = match stream.try_next().await {
            Ok(Some(watched)) => watched,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "watch of the API failed, restarting");
                continue;
            }
        };
        let mut out = Vec::new();
        match watched {
            Watched::Init => known.begin(),
            Watched::InitApply(object) => {
                if let Some((key, event)) = read(object, false) {
                    known.insert(key);
                    out.push(event);
                }
            }
            Watched::InitDone => {
                out.extend(known.end().into_iter().filter_map(&gone));
                let settings_read = matches!(synced, Some(Event::Bounds(_))) && !known.is_empty();
                out.extend(synced.take().filter(|_| !settings_read));
            }
            Watched::Apply(object) => {
                if let Some((key, event)) = read(object, false) {
                    known.insert(key);
                    out.push(event);
                }
            }
            Watched::Delete(object) => {
                if let Some((key, event)) = read(object, true) {
                    known.remove(&key);
                    out.push(event);
                }
            }
        }
        for event in out {
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn live_settings_fall_back_to_the_file() {
        let default = Bounds { min: 1, max: Some(9), purge: false, purged: false };
        let cases = [
            (json!({}), default),
            (json!({"min": "2", "max": "3"}), Bounds { min: 2, max: Some(3), ..default }),
            (json!({"max": "none"}), Bounds { max: None, ..default }),
            // A typing error lifts no limit.
            (json!({"max": ""}), default),
            (json!({"max": "1O"}), default),
            (json!({"min": "x"}), default),
            (json!({"purge": "true"}), Bounds { purge: true, ..default }),
            (json!({"purge": "done"}), Bounds { purge: true, purged: true, ..default }),
        ];
        for (data, expected) in cases {
            let map: ConfigMap = serde_json::from_value(json!({"data": data})).unwrap();
            assert_eq!(bounds(&map, default), expected, "{data}");
        }
    }

    #[tokio::test]
    async fn what_a_new_list_lacks_is_gone() {
        let (sender, mut receiver) = mpsc::channel(64);
        let node = |name: &str| {
            serde_json::from_value::<Node>(
                json!({"metadata": {"name": name, "annotations": {"kmctl.io/agent-id": "S0"}}}),
            )
            .unwrap()
        };
        let stream = futures::stream::iter(vec![
            Ok(Watched::Init),
            Ok(Watched::InitApply(node("a"))),
            Ok(Watched::InitApply(node("b"))),
            Ok(Watched::InitDone),
            Ok(Watched::Init),
            Ok(Watched::InitApply(node("b"))),
            Ok(Watched::InitDone),
        ]);
        let read = |node: Node, gone| {
            let facts = NodeFacts::new(&node)?;
            Some((facts.name.clone(), if gone { Event::NodeGone(facts.name) } else { Event::Node(Box::new(facts)) }))
        };
        follow(stream, &sender, Some(Event::NodesSynced), read, |name| Some(Event::NodeGone(name))).await;
        drop(sender);
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            seen.push(match event {
                Event::Node(facts) => format!("+{}", facts.name),
                Event::NodeGone(name) => format!("-{name}"),
                Event::NodesSynced => "synced".to_owned(),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(seen, ["+a", "+b", "synced", "+b", "-a"]);
    }
}
