//! `KubeletDeps`: the injected objects that a node agent uses. Three sets exist: [real](super::real) ones, recorded
//! ones in the unit tests of [`run`](super::run), and [hollow](super::hollow) ones. Each is built in one place from a
//! [`DepsSpec`](kmctl_core::node::spec::DepsSpec), so the agent itself reads no environment, flag or file.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::decide::{Deletion, Event, Order, Report};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// Everything that a node agent uses.
pub struct KubeletDeps {
    /// The node task's id in Mesos.
    pub node_task: String,
    /// The Mesos side: receives orders, reports task states.
    pub executor: Arc<dyn Executor>,
    /// The API server, with this node's credentials.
    pub api: Arc<dyn ApiClient>,
    /// Fetches and verifies binaries and images.
    pub artifacts: Arc<dyn ArtifactFetcher>,
    /// The directories and mount points of this run, and the ledger that lists them.
    pub mounter: Arc<dyn Mounter>,
    /// The bound of all pods.
    pub cgroups: Arc<dyn Cgroups>,
    /// Host ports.
    pub ports: Arc<dyn PortAllocator>,
    /// The pods' DNS.
    pub names: Arc<dyn Names>,
    /// Starts processes.
    pub launcher: Arc<dyn ProcessLauncher>,
    /// The supervised services in their start order: container runtime, kubelet, kube-proxy.
    pub services: Vec<Arc<dyn Service>>,
    pub clock: Arc<dyn Clock>,
}

/// Why an injected object failed.
#[derive(Debug, thiserror::Error)]
pub enum DepError {
    /// A system call failed.
    #[error("failed to {what}")]
    Io {
        /// The failed operation.
        what: String,
        #[source]
        source: std::io::Error,
    },
    /// Another operation failed.
    #[error("failed to {what}")]
    Other {
        /// The failed operation.
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot work here; a retry would not help.
    #[error("{0}")]
    Refused(String),
    /// It fails now, but a retry may succeed.
    #[error("{0}")]
    NotNow(String),
}

impl DepError {
    /// For `map_err`: names the failed operation.
    pub fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> DepError {
        let what = what.into();
        move |source| DepError::Io { what, source: source.into() }
    }

    /// For `map_err`: names the failed operation.
    pub fn other<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> DepError {
        let what = what.into();
        move |source| DepError::Other { what, source: source.into() }
    }

    /// The whole chain of causes in one line, for a task's message.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// The Mesos side of the agent.
#[async_trait]
pub trait Executor: Send + Sync {
    /// The next order; none when there will be no more.
    async fn next(&self) -> Option<Order>;
    /// Sends a task's state, and repeats it until Mesos acknowledges it. Returns at once.
    fn report(&self, report: Report);
    /// Returns when Mesos has acknowledged every state, or after a few seconds.
    async fn flush(&self);
}

/// The API server, with the node's own credentials.
#[async_trait]
pub trait ApiClient: Send + Sync {
    /// Sends [`Event::PodSeen`] and [`Event::PodGone`] for this node's pods, and [`Event::PodsListed`] after each
    /// complete list, until the channel closes. Reconnects on its own.
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>);
    /// Lets the pod start: its task has its resources. An API server does not need this call; only other sources of
    /// pods implement it.
    async fn admit(&self, _pod: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }
    /// Requests the deletion of the pod with exactly this UID, once. It must not read the pod first: a node may read
    /// only pods that are bound to it. For a pod that is gone or was never bound, a read would only be forbidden.
    async fn delete_pod(&self, pod: &PodLaunch, grace: Option<Duration>) -> Result<Deletion, DepError>;
    /// Removes the object of the pod with exactly this UID. The pod is already deleted, and its containers have ended.
    async fn forget_pod(&self, _pod: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }
}

/// Fetches binaries and images.
#[async_trait]
pub trait ArtifactFetcher: Send + Sync {
    /// Installs every artifact, verified, where the run expects it. Retries failures that may be temporary.
    async fn fetch(&self) -> Result<(), DepError>;
}

/// Directories and mount points.
#[async_trait]
pub trait Mounter: Send + Sync {
    /// Removes what dead runs left here, writes the ledger, creates the run's directories and mounts.
    async fn open(&self) -> Result<(), DepError>;
    /// Unmounts and removes what [`Mounter::open`] created, and everything else that the ledger lists, then the ledger.
    async fn close(&self) -> Result<(), DepError>;
}

/// The cgroups of the node.
#[async_trait]
pub trait Cgroups: Send + Sync {
    /// Creates the cgroup of all pods, with the bound that was set last, and returns the kubelet's `cgroupRoot`.
    async fn create(&self) -> Result<String, DepError>;
    /// Sets the bound of all pods together. Before [`Cgroups::create`] the value is only stored.
    async fn resize(&self, total: Grant) -> Result<(), DepError>;
    /// Whether no process of the pod is left.
    async fn is_empty(&self, uid: &str) -> bool;
    /// Sends SIGTERM to every container, and kills what is left after `grace`.
    async fn stop(&self, grace: Duration) -> Result<(), DepError>;
}

/// Host ports.
pub trait PortAllocator: Send + Sync {
    /// `preferred`, or another free port if a process already listens there.
    fn own(&self, preferred: u16) -> Result<u16, DepError>;
    /// Assigns these ports to the pod; refuses a port that another pod has.
    fn assign(&self, pod: &PodLaunch) -> Result<(), DepError>;
    /// Releases the pod's ports.
    fn release(&self, uid: &str);
}

/// The pods' DNS.
#[async_trait]
pub trait Names: Send + Sync {
    /// Creates the gateway's address and starts answering there; the API's data arrive later. Refuses if pods could not
    /// have the network that they need.
    async fn open(&self) -> Result<(), DepError>;
}

/// How a process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Names its log.
    pub name: String,
    /// Absolute path and arguments. Never a secret.
    pub argv: Vec<String>,
    /// The complete environment; nothing is inherited.
    pub environment: Vec<(String, String)>,
}

/// Starts processes that end with the agent, however the agent ends.
#[async_trait]
pub trait ProcessLauncher: Send + Sync {
    /// Starts a process.
    async fn start(&self, program: Program) -> Result<Box<dyn Child>, DepError>;
}

/// A started process.
#[async_trait]
pub trait Child: Send + Sync {
    /// Returns when the process has ended, with the reason.
    async fn wait(&mut self) -> String;
    /// Sends SIGTERM, kills the process after `grace`, and returns when it has ended.
    async fn stop(&mut self, grace: Duration);
}

/// One of the services that make up a node.
#[async_trait]
pub trait Service: Send + Sync {
    /// The service's name, for logs and task messages.
    fn name(&self) -> &'static str;
    /// Writes the process's configuration and returns how to start it.
    async fn program(&self, configuration: &KubeletConfiguration) -> Result<Program, DepError>;
    /// Returns when the service works. Retries failures that may be temporary.
    async fn ready(&self) -> Result<(), DepError>;
}

#[async_trait]
pub trait Clock: Send + Sync {
    /// Time since a fixed moment; never decreases.
    fn monotonic(&self) -> Duration;
    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration);
}
