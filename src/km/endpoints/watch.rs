//! Watches the API and turns changes into events.
use std::fmt::Debug;

use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, Object as Narrow, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::decide::{Event, Kind, Object};
use super::model::Key;
use super::read::{self, Nothing, PodSpec, PodStatus, ServiceSpec};

type ServiceObject = Narrow<ServiceSpec, Nothing>;
type PodObject = Narrow<PodSpec, PodStatus>;

pub fn endpoints_resource() -> ApiResource {
    core("Endpoints", "endpoints")
}

fn core(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

pub fn slice_resource() -> ApiResource {
    ApiResource {
        group: "discovery.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "discovery.k8s.io/v1".to_owned(),
        kind: "EndpointSlice".to_owned(),
        plural: "endpointslices".to_owned(),
    }
}

/// Watches all five kinds indefinitely and sends the changes to `events`.
pub async fn watch_all(client: Client, slices: ApiResource, events: mpsc::Sender<Event>) {
    let services = Api::<ServiceObject>::all_with(client.clone(), &core("Service", "services"));
    let pods = Api::<PodObject>::all_with(client.clone(), &core("Pod", "pods"));
    let nodes = Api::<PartialObjectMeta<k8s_openapi::api::core::v1::Node>>::all(client.clone());
    let endpoints = Api::<DynamicObject>::all_with(client.clone(), &endpoints_resource());
    let slices = Api::<DynamicObject>::all_with(client, &slices);
    let config = watcher::Config::default;
    tokio::join!(
        follow(Kind::Service, watcher(services, config()), &events, |object, gone| {
            let service = read::service(object.metadata, object.spec);
            if gone { Event::Gone(Kind::Service, service.key) } else { Event::Service(service) }
        }),
        follow(Kind::Pod, watcher(pods, config()), &events, |object, gone| {
            let status = object.status.unwrap_or_default();
            let pod = read::pod(object.metadata, object.spec, status);
            if gone { Event::Gone(Kind::Pod, pod.key) } else { Event::Pod(Box::new(pod)) }
        }),
        // Nodes are large and change often. Only their metadata is read.
        follow(Kind::Node, watcher(nodes, config()), &events, |object, gone| {
            let (key, node) = read::node(&object.metadata);
            if gone { Event::Gone(Kind::Node, key) } else { Event::Node(key, node) }
        }),
        follow(Kind::Endpoints, watcher(endpoints, config()), &events, |object, gone| {
            let seen = read::endpoints(&object.metadata, &object.data);
            let name = Object::Endpoints(key(&object.metadata));
            if gone { Event::ObjectGone(name, seen.uid) } else { Event::Object(name, seen) }
        }),
        follow(Kind::Slice, watcher(slices, config()), &events, |object, gone| {
            let seen = read::slice(&object.metadata, &object.data);
            let name = Object::Slice(key(&object.metadata));
            if gone { Event::ObjectGone(name, seen.uid) } else { Event::Object(name, seen) }
        }),
    );
}

fn key(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

async fn follow<K>(
    kind: Kind,
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    events: &mpsc::Sender<Event>,
    event: impl Fn(K, bool) -> Event,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = std::pin::pin!(stream.default_backoff());
    while let Some(change) = stream.next().await {
        let event = match change {
            Ok(watcher::Event::Init) => Event::Listing(kind),
            Ok(watcher::Event::InitDone) => Event::Listed(kind),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => event(object, false),
            Ok(watcher::Event::Delete(object)) => event(object, true),
            Err(error) => {
                tracing::warn!(?kind, error = &error as &dyn std::error::Error, "watch ended, retrying");
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
