//! The events that this project writes into the Kubernetes API. What the scheduler reacts to are other events, in
//! `src/km/scheduler/decide/event.rs`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKind {
    /// `reason` of the event: stable, for scripts and alerts.
    pub reason: &'static str,
    /// Kind of the object that it is about.
    pub object: &'static str,
    /// `source.component`.
    pub component: &'static str,
    /// When it is written, and what its message says.
    pub about: &'static str,
}

/// No node can take a pod.
pub const FAILED_SCHEDULING: EventKind = EventKind {
    reason: "FailedScheduling",
    object: "Pod",
    component: super::names::MANAGER,
    about: "No node can take the pod: figures of the pod, of agents and of offers. Repeated with the same text after 30 minutes, \
            with another text after a pause that doubles from 10 s to 5 min.",
};

/// kube-proxy does not run in the mode that was asked for.
pub const PROXY_MODE_UNAVAILABLE: EventKind = EventKind {
    reason: "ProxyModeUnavailable",
    object: "Node",
    component: "km-node",
    about: "The node's kube-proxy does not run in the mode of `network.proxyMode`, and why.",
};

/// km scheduler does nothing, since the API's store is not the one that it knows.
pub const HELD: EventKind = EventKind {
    reason: "Held",
    object: "ConfigMap",
    component: super::names::MANAGER,
    about: "km-scheduler does not connect to Mesos, because the API has no record of the framework that this host knows: its store \
            is empty or older. Written to `kube-system/kmctl-framework` once per start.",
};

/// All of them.
pub const EVENTS: [EventKind; 3] = [FAILED_SCHEDULING, PROXY_MODE_UNAVAILABLE, HELD];
