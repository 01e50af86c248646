//! The vocabulary of [`decide`](super::decide): what may happen to a node agent, and what it may do.
use std::time::Duration;

use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// What the Mesos side asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// A pod's task.
    LaunchPod {
        /// Its id.
        task_id: String,
        /// The pod.
        pod: PodLaunch,
        /// Its resources.
        grant: Grant,
    },
    /// A task is to end; the node task's end is the node's.
    Kill {
        /// Its id.
        task_id: String,
        /// How long it may take.
        grace: Option<Duration>,
    },
    /// The executor is to end.
    Shutdown {
        /// How long it may take.
        grace: Option<Duration>,
    },
}

/// States that are reported to Mesos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Accepted, resources in place.
    Starting,
    /// Runs.
    Running,
    /// Is being ended.
    Killing,
    /// Ended by itself, well.
    Finished,
    /// Ended by itself, badly, or never began.
    Failed,
    /// Ended on request.
    Killed,
}

/// A status of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The task.
    pub task_id: String,
    /// Its state.
    pub state: TaskState,
    /// For people.
    pub message: String,
}

/// A pod's phase in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started.
    Pending,
    /// At least one runs.
    Running,
    /// All ended well.
    Succeeded,
    /// One ended badly.
    Failed,
}

/// What the API says of a pod on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: PodPhase,
    /// Reason and message of the phase.
    pub message: String,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// All its containers have ended, by the kubelet's word.
    pub stopped: bool,
    /// How long its own specification lets it take to end.
    pub grace: Option<Duration>,
}

/// What came of asking for a pod's deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is being deleted, or is deleted.
    Accepted,
    /// There is no pod of this name with this UID.
    Absent,
    /// It is not this node's to delete: it is bound to no node or to another one, as far as the API server knows.
    Foreign,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Mesos asks.
    Order(Order),
    /// Everything that must exist before the first child does, or why not.
    Prepared(Result<(), String>),
    /// A pod's task has its resources, or why not.
    Admitted {
        /// The task.
        task_id: String,
        /// Why not.
        result: Result<(), String>,
    },
    /// A child runs.
    ServiceStarted {
        /// Its place in the order of start.
        index: usize,
    },
    /// A child does its work.
    ServiceReady {
        /// Its place in the order of start.
        index: usize,
    },
    /// A child has ended, or could not be started.
    ServiceEnded {
        /// Its place in the order of start.
        index: usize,
        /// How it ended.
        why: String,
        /// Another attempt would end the same way.
        fatal: bool,
    },
    /// A pod appeared or changed.
    PodSeen(PodView),
    /// A pod's object is no more.
    PodGone {
        /// Its UID.
        uid: String,
    },
    /// Every pod of this node has been told: what was not seen is not there.
    PodsListed,
    /// What came of [`Effect::DeletePod`], or why nothing came of it.
    PodDeleted {
        /// Its UID.
        uid: String,
        /// The outcome.
        result: Result<Deletion, String>,
    },
    /// No process of the pod is left.
    PodEmpty {
        /// Its UID.
        uid: String,
    },
    /// The bound of all pods was set, or why not.
    Resized(Result<(), String>),
    /// Nothing of the node is left, or what is.
    TornDown(Result<(), String>),
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make what must exist before the first child; answered by [`Event::Prepared`].
    Prepare,
    /// Start a child after a wait.
    StartService {
        /// Its place in the order of start.
        index: usize,
        /// The wait.
        after: Duration,
    },
    /// Begin to watch this node's pods.
    WatchPods,
    /// Raise the bound of all pods and take the pod's ports; answered by [`Event::Admitted`].
    Admit {
        /// The task.
        task_id: String,
        /// The pod.
        pod: PodLaunch,
        /// The new bound.
        total: Grant,
    },
    /// Give a pod's ports back.
    ReleasePorts {
        /// The pod.
        uid: String,
    },
    /// Set the bound of all pods; answered by [`Event::Resized`].
    Resize {
        /// The new bound.
        total: Grant,
    },
    /// Tell Mesos.
    Report(Report),
    /// Ask for the deletion of a pod's object, once; answered by [`Event::PodDeleted`].
    DeletePod {
        /// The pod.
        pod: PodLaunch,
        /// How long its containers may take; none means as long as its own specification says.
        grace: Option<Duration>,
    },
    /// Remove the object of a pod whose containers have ended.
    ForgetPod {
        /// The pod.
        pod: PodLaunch,
    },
    /// Answer with [`Event::PodEmpty`] when no process of the pod is left.
    AwaitEmpty {
        /// The pod.
        uid: String,
    },
    /// Stop children and pods, remove what the node left; answered by [`Event::TornDown`].
    TearDown {
        /// How long pods may take.
        grace: Duration,
    },
    /// Something to look into has changed: a line for the log.
    Warn(String),
    /// The agent's work is done.
    Exit,
}
