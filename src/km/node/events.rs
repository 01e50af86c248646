//! The vocabulary of [`decide`](super::decide): the events of a node agent, and its effects.
use std::time::Duration;

use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// An order from Mesos.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Launch a pod's task.
    LaunchPod {
        task_id: String,
        pod: PodLaunch,
        /// The task's resources.
        grant: Grant,
    },
    /// Kill a task. Killing the node task stops the node.
    Kill {
        task_id: String,
        /// How long the task may take to end.
        grace: Option<Duration>,
    },
    /// Shut down the executor.
    Shutdown {
        /// How long the shutdown may take.
        grace: Option<Duration>,
    },
}

/// Task states that are reported to Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Accepted, with its resources in place.
    Starting,
    Running,
    /// Being stopped.
    Killing,
    /// Ended on its own, successfully.
    Finished,
    /// Ended on its own with a failure, or never started.
    Failed,
    /// Stopped on request.
    Killed,
}

/// A status of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub task_id: String,
    pub state: TaskState,
    /// Human-readable reason.
    pub message: String,
}

/// A pod's phase in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended successfully.
    Succeeded,
    /// A container failed.
    Failed,
}

/// The state of a pod on this node, from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub phase: PodPhase,
    /// Reason and message of the phase.
    pub message: String,
    /// Whether the pod has a deletion timestamp.
    pub terminating: bool,
    /// Whether all its containers have ended, as reported by the kubelet.
    pub stopped: bool,
    /// The grace period in the pod's own specification.
    pub grace: Option<Duration>,
}

/// The outcome of a deletion request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The pod is being deleted, or is deleted.
    Accepted,
    /// There is no pod of this name with this UID.
    Absent,
    /// This node may not delete it: as far as the API server knows, it is bound to no node or to another one.
    Foreign,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An order from Mesos.
    Order(Order),
    /// Everything that must exist before the first child was set up, or why not.
    Prepared(Result<(), String>),
    /// A pod's task was admitted, or why not.
    Admitted {
        task_id: String,
        /// Why the task was not admitted.
        result: Result<(), String>,
    },
    /// A child was started.
    ServiceStarted {
        /// Position in the start order.
        index: usize,
    },
    /// A child works.
    ServiceReady {
        /// Position in the start order.
        index: usize,
    },
    /// A child has ended, or could not be started.
    ServiceEnded {
        /// Position in the start order.
        index: usize,
        /// How it ended.
        why: String,
        /// Whether another attempt would fail the same way.
        fatal: bool,
    },
    /// A pod appeared or changed.
    PodSeen(PodView),
    /// A pod's object was removed.
    PodGone {
        /// The pod's UID.
        uid: String,
    },
    /// The list of this node's pods is complete: a pod that was not seen does not exist.
    PodsListed,
    /// The answer to [`Effect::DeletePod`], or why there is none.
    PodDeleted {
        /// The pod's UID.
        uid: String,
        result: Result<Deletion, String>,
    },
    /// No process of the pod is left.
    PodEmpty {
        /// The pod's UID.
        uid: String,
    },
    /// The bound of all pods was set, or why not.
    Resized(Result<(), String>),
    /// Nothing of the node is left, or a description of what is.
    TornDown(Result<(), String>),
    /// Time passed.
    Tick,
}

/// An effect that [`run`](super::run) carries out.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Set up everything that must exist before the first child; answered by [`Event::Prepared`].
    Prepare,
    /// Start a child after a delay.
    StartService {
        /// Position in the start order.
        index: usize,
        /// The delay.
        after: Duration,
    },
    /// Start watching this node's pods.
    WatchPods,
    /// Raise the bound of all pods and assign the pod's ports; answered by [`Event::Admitted`].
    Admit {
        task_id: String,
        pod: PodLaunch,
        /// The new bound.
        total: Grant,
    },
    /// Release a pod's ports.
    ReleasePorts {
        /// The pod's UID.
        uid: String,
    },
    /// Set the bound of all pods; answered by [`Event::Resized`].
    Resize {
        /// The new bound.
        total: Grant,
    },
    /// Report a task's state to Mesos.
    Report(Report),
    /// Request the deletion of a pod's object, once; answered by [`Event::PodDeleted`].
    DeletePod {
        pod: PodLaunch,
        /// How long its containers may take; none means as long as its own specification says.
        grace: Option<Duration>,
    },
    /// Remove the object of a pod whose containers have ended.
    ForgetPod {
        /// The pod, with the UID that must match.
        pod: PodLaunch,
    },
    /// Wait until no process of the pod is left; answered by [`Event::PodEmpty`].
    AwaitEmpty {
        /// The pod's UID.
        uid: String,
    },
    /// Stop children and pods, remove what the node left; answered by [`Event::TornDown`].
    TearDown {
        /// How long pods may take.
        grace: Duration,
    },
    /// Log a warning about a changed condition.
    Warn(String),
    /// The agent is done.
    Exit,
}
