//! `KubeletDeps`: the objects a node agent works through, injected. Three sets exist: [real](super::real) ones, recorded
//! ones in the unit tests of [`run`](super::run), and [hollow](super::hollow) ones. Each is built in one place from a
//! [`DepsSpec`](kmctl_core::node::spec::DepsSpec), so the agent itself reads no environment, flag or file.
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::decide::{Deletion, Event, Order, Report};
use kmctl_core::node::config::KubeletConfiguration;
use kmctl_core::protocol::launch::{Grant, PodLaunch};

/// Everything a node agent works through.
pub struct KubeletDeps {
    /// The node task's id in Mesos.
    pub node_task: String,
    /// The Mesos side: orders in, task states out.
    pub executor: Arc<dyn Executor>,
    /// The API server, as this node.
    pub api: Arc<dyn ApiClient>,
    /// Fetches and verifies programs and images.
    pub artifacts: Arc<dyn ArtifactFetcher>,
    /// The folders and mount points of this run, and the ledger that lists them.
    pub mounter: Arc<dyn Mounter>,
    /// The bound of all pods.
    pub cgroups: Arc<dyn Cgroups>,
    /// Host ports.
    pub ports: Arc<dyn PortAllocator>,
    /// The pods' DNS.
    pub names: Arc<dyn Names>,
    /// Starts programs.
    pub launcher: Arc<dyn ProcessLauncher>,
    /// Container runtime, kubelet, kube-proxy: what is supervised, in the order of start.
    pub services: Vec<Arc<dyn Service>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why an injected object could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DepError {
    /// The system said no.
    #[error("{what}")]
    Io {
        /// What was going on.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something else failed.
    #[error("{what}")]
    Other {
        /// What was going on.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It cannot work here; trying again would not help.
    #[error("{0}")]
    Refused(String),
    /// It does not work now.
    #[error("{0}")]
    NotNow(String),
}

impl DepError {
    /// For `map_err`: names what was going on.
    pub fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> DepError {
        let what = what.into();
        move |source| DepError::Io { what, source: source.into() }
    }

    /// For `map_err`: names what was going on.
    pub fn other<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> DepError {
        let what = what.into();
        move |source| DepError::Other { what, source: source.into() }
    }

    /// The whole chain in one line, for a task's message.
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
    /// Sends a task's state, again and again until Mesos has it. Returns at once.
    fn report(&self, report: Report);
    /// Returns when Mesos has every state, or after a few seconds.
    async fn flush(&self);
}

/// The API server, with the node's own credentials.
#[async_trait]
pub trait ApiClient: Send + Sync {
    /// Sends [`Event::PodSeen`] and [`Event::PodGone`] for this node's pods, and [`Event::PodsListed`] whenever all of
    /// them were told, until the channel closes. Survives lost connections by itself.
    async fn watch_pods(&self, events: mpsc::UnboundedSender<Event>);
    /// The pod's task has its resources: it may start. An API server knows without being told; only a source of pods
    /// that is none has something to do.
    async fn admit(&self, _pod: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }
    /// Asks for the deletion of the pod with this very UID, once. It must not read the pod first: a node may read only
    /// what is bound to it, so of a pod that is gone or was never bound it would hear no more than that it may not.
    async fn delete_pod(&self, pod: &PodLaunch, grace: Option<Duration>) -> Result<Deletion, DepError>;
    /// Removes the object of the pod with this very UID: it is deleted already, and its containers have ended.
    async fn forget_pod(&self, _pod: &PodLaunch) -> Result<(), DepError> {
        Ok(())
    }
}

/// Fetches programs and images.
#[async_trait]
pub trait ArtifactFetcher: Send + Sync {
    /// Puts every artifact, verified, where the run expects it; tries again by itself what may work later.
    async fn fetch(&self) -> Result<(), DepError>;
}

/// Folders and mount points.
#[async_trait]
pub trait Mounter: Send + Sync {
    /// Removes what dead runs left here, writes the ledger, makes the run's folders and mounts.
    async fn open(&self) -> Result<(), DepError>;
    /// Unmounts and removes what [`Mounter::open`] made, and everything else that the ledger lists, then the ledger.
    async fn close(&self) -> Result<(), DepError>;
}

/// The cgroups of the node.
#[async_trait]
pub trait Cgroups: Send + Sync {
    /// Makes the cgroup of all pods, bounded by what was set last, and returns the kubelet's `cgroupRoot`.
    async fn create(&self) -> Result<String, DepError>;
    /// Bounds all pods together; before [`Cgroups::create`] the value is only kept.
    async fn resize(&self, total: Grant) -> Result<(), DepError>;
    /// No process of the pod is left.
    async fn is_empty(&self, uid: &str) -> bool;
    /// Asks every container to end, and ends what is left after `grace`.
    async fn stop(&self, grace: Duration) -> Result<(), DepError>;
}

/// Host ports.
pub trait PortAllocator: Send + Sync {
    /// `preferred`, or another free port when something listens there.
    fn own(&self, preferred: u16) -> Result<u16, DepError>;
    /// Notes that these ports are the pod's; refuses one that another pod has.
    fn assign(&self, pod: &PodLaunch) -> Result<(), DepError>;
    /// The pod's ports are free.
    fn release(&self, uid: &str);
}

/// The pods' DNS.
#[async_trait]
pub trait Names: Send + Sync {
    /// Makes the gateway's address and answers there from now on; what the API says is known later. Refuses where pods could
    /// not have the network that they are to have.
    async fn open(&self) -> Result<(), DepError>;
}

/// How a program is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Names its log.
    pub name: String,
    /// Absolute path and arguments. Never a secret.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
}

/// Starts programs that end with the agent, whatever ends it.
#[async_trait]
pub trait ProcessLauncher: Send + Sync {
    /// Starts one.
    async fn start(&self, program: Program) -> Result<Box<dyn Child>, DepError>;
}

/// A started program.
#[async_trait]
pub trait Child: Send + Sync {
    /// Returns when it has ended, with how.
    async fn wait(&mut self) -> String;
    /// Asks it to end, ends it after `grace`, and returns when it has ended.
    async fn stop(&mut self, grace: Duration);
}

/// One of the programs that make a node.
#[async_trait]
pub trait Service: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Writes what the program reads and says how it is started.
    async fn program(&self, configuration: &KubeletConfiguration) -> Result<Program, DepError>;
    /// Returns when the program does its work; tries again by itself what may work later.
    async fn ready(&self) -> Result<(), DepError>;
}

/// Time.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration);
}
