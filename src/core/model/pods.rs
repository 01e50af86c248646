//! Pods, reduced to what the scheduler's decisions depend on.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, Toleration};

use super::requests;
use super::resources::{Amount, Ports, read_amount};
use super::selectors::{Labels, NodeDemand, Selector};
use crate::k8s::names::{GRANTED_ANNOTATION, PORTS_ANNOTATION, TASK_ANNOTATION};

/// The scheduler whose pods we place.
const SCHEDULER_NAME: &str = "default-scheduler";

pub type Uid = String;

/// Phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not finished.
    Alive,
    /// Succeeded or Failed: it no longer uses resources.
    Finished,
}

/// Pods that must (or must not) share a topology domain with this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// Node label that defines the domains.
    pub topology_key: String,
    /// Selects those pods.
    pub selector: Selector,
    /// Namespaces of those pods; empty means the pod's own.
    pub namespaces: Vec<String>,
}

/// A topology spread constraint with `DoNotSchedule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Node label that defines the domains.
    pub topology_key: String,
    /// Selects the pods that are counted.
    pub selector: Selector,
    /// Maximum difference between a domain and the emptiest one.
    pub max_skew: i64,
}

/// A declared port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Port in the pod.
    pub container_port: u16,
    /// Requested port of the node.
    pub host_port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    pub labels: Labels,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// Whether it is to be scheduled by the scheduler that this extender serves.
    pub ours: bool,
    /// Whether it belongs to a DaemonSet.
    pub daemon: bool,
    /// Whether it mirrors a static pod of a node.
    pub mirror: bool,
    /// Whether it has a controller, which recreates it after its removal.
    pub controlled: bool,
    pub phase: Phase,
    pub deleting: bool,
    /// Id of its Mesos task, as recorded with the Binding.
    pub task: Option<String>,
    /// Host ports recorded with the Binding (JSON).
    pub granted_ports: Option<String>,
    /// What it takes from Mesos; [`requests::SMALLEST`] if a quantity cannot be parsed, which the API server rules out.
    pub amount: Amount,
    /// What its task was granted, as recorded with the Binding: its specification may have changed since.
    pub granted: Option<Amount>,
    /// Requested resources that nothing grants.
    pub ungranted: BTreeSet<String>,
    pub ports: Vec<PodPort>,
    /// Uses its node's network namespace, where declared ports already are host ports.
    pub host_network: bool,
    /// nodeSelector and required node affinity.
    pub demand: NodeDemand,
    pub tolerations: Vec<Toleration>,
    /// Required pod affinity.
    pub near: Vec<Neighbours>,
    /// Required pod anti-affinity.
    pub apart: Vec<Neighbours>,
    /// Topology spread constraints with `DoNotSchedule`.
    pub spread: Vec<Spread>,
}

impl PodFacts {
    /// Keeps what was recorded with the Binding, even if the object differs now: a client that replaces a pod's
    /// annotations drops ours as well, and only km scheduler may set a pod's task. Returns whether the object differs.
    pub fn keep_record(&mut self, before: &PodFacts) -> bool {
        let bound = before.node.is_some() && before.node == self.node;
        if !bound || before.task.is_none() {
            return false;
        }
        let lost =
            (&self.task, &self.granted_ports, self.granted) != (&before.task, &before.granted_ports, before.granted);
        self.task.clone_from(&before.task);
        self.granted_ports.clone_from(&before.granted_ports);
        self.granted = before.granted;
        lost
    }

    /// What was recorded with the Binding, as annotations.
    pub fn record(&self) -> BTreeMap<String, String> {
        let record = [
            (TASK_ANNOTATION, self.task.clone()),
            (GRANTED_ANNOTATION, self.granted.map(|granted| granted.to_string())),
            (PORTS_ANNOTATION, self.granted_ports.clone()),
        ];
        record.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Reads a pod; `None` without a UID, which every stored pod has.
    pub fn new(pod: &Pod, defaults: Amount) -> Option<PodFacts> {
        let meta = &pod.metadata;
        let spec = pod.spec.clone().unwrap_or_default();
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let affinity = spec.affinity.clone().unwrap_or_default();
        let terms = affinity.node_affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution);
        let near = affinity.pod_affinity.and_then(|near| near.required_during_scheduling_ignored_during_execution);
        let apart =
            affinity.pod_anti_affinity.and_then(|apart| apart.required_during_scheduling_ignored_during_execution);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let owners = || meta.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let spread = spec.topology_spread_constraints.iter().flatten();
        Some(PodFacts {
            uid: meta.uid.clone()?,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            ours: spec.scheduler_name.as_deref().unwrap_or(SCHEDULER_NAME) == SCHEDULER_NAME && !gated,
            daemon: owners().any(|owner| owner.kind == "DaemonSet"),
            controlled: owners().next().is_some(),
            mirror: annotation("kubernetes.io/config.mirror").is_some(),
            phase: if matches!(phase, Some("Succeeded" | "Failed")) { Phase::Finished } else { Phase::Alive },
            deleting: meta.deletion_timestamp.is_some(),
            task: annotation(TASK_ANNOTATION),
            granted_ports: annotation(PORTS_ANNOTATION),
            amount: requests::effective(&spec, defaults).unwrap_or(requests::SMALLEST),
            granted: annotation(GRANTED_ANNOTATION).and_then(|text| read_amount(&text)),
            ungranted: requests::ungranted(&spec),
            ports: ports(&spec),
            host_network: spec.host_network == Some(true),
            demand: NodeDemand::new(
                spec.node_selector.as_ref(),
                terms.as_ref().map(|terms| terms.node_selector_terms.as_slice()),
            ),
            near: neighbours(near),
            apart: neighbours(apart),
            spread: spread
                .filter(|each| each.when_unsatisfiable == "DoNotSchedule")
                .map(|each| Spread {
                    topology_key: each.topology_key.clone(),
                    selector: Selector::new(each.label_selector.as_ref()),
                    max_skew: each.max_skew.into(),
                })
                .collect(),
            node: spec.node_name.filter(|name| !name.is_empty()),
            tolerations: spec.tolerations.unwrap_or_default(),
        })
    }

    /// Whether it waits for a node and one should be found.
    pub fn pending(&self) -> bool {
        self.ours && self.node.is_none() && self.phase == Phase::Alive && !self.deleting
    }

    /// Whether it uses its node's resources.
    pub fn occupies(&self) -> bool {
        self.node.is_some() && self.phase == Phase::Alive
    }

    /// Whether its node is not idle because of it: true for everything except what every node has anyway.
    pub fn keeps_node(&self) -> bool {
        self.occupies() && !self.daemon && !self.mirror
    }

    /// Host ports requested in its specification.
    pub fn host_ports(&self) -> impl Iterator<Item = &PodPort> {
        self.ports.iter().filter(|port| port.host_port.is_some())
    }

    /// How many host ports must be granted in addition to those requested in its specification: one for every other
    /// declared port.
    pub fn ports_to_grant(&self) -> usize {
        if self.host_network { 0 } else { self.ports.iter().filter(|port| port.host_port.is_none()).count() }
    }

    /// How many of `ports` are left for those after the requested ones are removed.
    pub fn left_to_grant(&self, ports: &Ports) -> usize {
        let named: BTreeSet<u16> = self.host_ports().filter_map(|port| port.host_port).collect();
        ports.count() - named.into_iter().filter(|port| ports.contains(*port)).count()
    }

    /// `namespace/name`, for messages.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn neighbours(terms: Option<Vec<PodAffinityTerm>>) -> Vec<Neighbours> {
    let terms = terms.into_iter().flatten();
    terms
        .map(|term| Neighbours {
            selector: Selector::new(term.label_selector.as_ref()),
            topology_key: term.topology_key,
            namespaces: term.namespaces.unwrap_or_default(),
        })
        .collect()
}

fn ports(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<PodPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|each| requests::keeps_running(each));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port != 0);
    ports
        .filter_map(|port| {
            Some(PodPort {
                container_port: number(port.container_port)?,
                host_port: port.host_port.and_then(number),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            })
        })
        .collect()
}
