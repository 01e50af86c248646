//! Parses the API's objects into [`super::model`]. Pure.
use serde::Deserialize;
use serde_json::{Value, json};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::model::{Key, NamedPort, Node, Pod, Seen, Service, ServicePort, TargetPort};
use super::wanted::{ENDPOINTS_MANAGER_LABEL, MANAGER, SLICE_MANAGER_LABEL, digest};
use kmctl_core::k8s::names::PORTS_ANNOTATION;

/// The fields of a Service's spec that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    selector: Option<std::collections::BTreeMap<String, String>>,
    ports: Option<Vec<ServicePortSpec>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePortSpec {
    name: Option<String>,
    protocol: Option<String>,
    port: i32,
    target_port: Option<IntOrString>,
    app_protocol: Option<String>,
}

/// The fields of a pod's spec that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    hostname: Option<String>,
    subdomain: Option<String>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    container_port: i32,
    protocol: Option<String>,
}

/// The fields of a pod's status that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// A spec or status of which no field is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Nothing {}

const TCP: &str = "TCP";

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn protocol(written: Option<String>) -> String {
    written.unwrap_or_else(|| TCP.to_owned())
}

fn key(metadata: &ObjectMeta) -> Key {
    Key::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

pub fn service(metadata: ObjectMeta, spec: ServiceSpec) -> Service {
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|spec| {
        let target = match spec.target_port {
            Some(IntOrString::String(name)) => match name.parse() {
                Ok(number) => TargetPort::Number(number),
                Err(_) => TargetPort::Name(name),
            },
            Some(IntOrString::Int(number)) if number != 0 => TargetPort::Number(port(number)?),
            _ => TargetPort::Number(port(spec.port)?),
        };
        Some(ServicePort {
            name: spec.name.unwrap_or_default(),
            protocol: protocol(spec.protocol),
            target,
            app_protocol: spec.app_protocol,
        })
    });
    Service {
        key: key(&metadata),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        selector: spec.selector.unwrap_or_default(),
        ports: ports.collect(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        external_name: spec.kind.as_deref() == Some("ExternalName"),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
    }
}

pub fn pod(metadata: ObjectMeta, spec: PodSpec, status: PodStatus) -> Pod {
    // An init container with restart policy Always is a sidecar, and its ports count.
    let sidecars =
        spec.init_containers.into_iter().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let named_ports =
        spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports).filter_map(|declared| {
            Some(NamedPort {
                name: declared.name?,
                number: port(declared.container_port)?,
                protocol: protocol(declared.protocol),
            })
        });
    let granted = metadata.annotations.as_ref().and_then(|annotations| annotations.get(PORTS_ANNOTATION));
    // A user who may edit a pod may break its annotation. The pod then has no ports.
    let granted = granted.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let has_address = status.pod_ip.is_some_and(|address| !address.is_empty());
    Pod {
        key: key(&metadata),
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        node: spec.node_name.unwrap_or_default(),
        node_address: status.host_ip.and_then(|address| address.parse().ok()).filter(|_| has_address),
        host_network: spec.host_network.unwrap_or_default(),
        ready: status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True"),
        terminating: metadata.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        hostname: spec.hostname.unwrap_or_default(),
        subdomain: spec.subdomain.unwrap_or_default(),
        named_ports: named_ports.collect(),
        granted,
    }
}

pub fn node(metadata: &ObjectMeta) -> (Key, Node) {
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name).cloned());
    let node = Node { zone: label("topology.kubernetes.io/zone") };
    (Key::new("", metadata.name.clone().unwrap_or_default()), node)
}

/// Reads an Endpoints object. Its fingerprint covers labels and subsets.
pub fn endpoints(metadata: &ObjectMeta, data: &Value) -> Seen {
    let mut body = json!({ "metadata": { "labels": metadata.labels } });
    copy(data, &mut body, "subsets");
    seen(metadata, ENDPOINTS_MANAGER_LABEL, &body)
}

/// Reads an EndpointSlice. Its fingerprint covers labels, owners and everything outside of metadata.
pub fn slice(metadata: &ObjectMeta, data: &Value) -> Seen {
    let mut body = json!({ "metadata": { "labels": metadata.labels } });
    if let Some(owners) = &metadata.owner_references {
        body["metadata"]["ownerReferences"] = json!(owners);
    }
    for field in ["addressType", "endpoints", "ports"] {
        copy(data, &mut body, field);
    }
    seen(metadata, SLICE_MANAGER_LABEL, &body)
}

/// An empty list, null and an absent field are equivalent. Our writes send a slice's empty `ports` as a list and omit
/// empty `subsets`.
fn copy(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) if !value.is_null() && *value != json!([]) => to[field] = value.clone(),
        _ if field == "ports" => to[field] = json!([]),
        _ => {}
    }
}

fn seen(metadata: &ObjectMeta, manager_label: &str, body: &Value) -> Seen {
    let manager = metadata.labels.as_ref().and_then(|labels| labels.get(manager_label));
    Seen {
        uid: metadata.uid.clone().unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        digest: digest(body),
        ours: manager.is_some_and(|manager| manager == MANAGER),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
