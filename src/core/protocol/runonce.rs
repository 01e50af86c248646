//! The messages between kmctl and km in a run. They are JSON, sent either as messages between framework and executor,
//! or as lines between kmctl and `km runonce`. Messages may get lost, so a node repeats its requests until they are
//! answered, and numbers everything that must not be lost.
//!
//! Pods, ConfigMaps and Secrets are only sent this way: Mesos stores no message, but checkpoints what a task carries.
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde::{Deserialize, Serialize};

use crate::protocol::launch::{PodLaunch, RunLaunch};
use mesos::types::Bytes;

/// A pod, with every ConfigMap and Secret in the file that it refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenPod {
    /// UID of the pod.
    pub uid: String,
    /// The pod as defined in the file.
    pub pod: Pod,
    /// ConfigMaps that it refers to.
    #[serde(default)]
    pub config_maps: Vec<ConfigMap>,
    /// Secrets that it refers to.
    #[serde(default)]
    pub secrets: Vec<Secret>,
}

/// From kmctl to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ToNode {
    /// The pods that the node requested.
    Given {
        /// Their definitions.
        pods: Vec<GivenPod>,
    },
    /// Acknowledges everything up to this number.
    #[serde(rename_all = "camelCase")]
    Heard {
        /// Number of the last piece received.
        sequence: u64,
    },
}

/// From a node to kmctl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum FromNode {
    /// Requests pods for which the node has a task but no definition.
    Wants {
        /// UIDs of the pods.
        uids: Vec<String>,
    },
    /// A piece of a container's output. On Mesos, pieces are numbered from 1 and repeated until they are acknowledged.
    #[serde(rename_all = "camelCase")]
    Output {
        /// Number of the piece; 0 if messages cannot get lost.
        #[serde(default)]
        sequence: u64,
        /// The pod's UID.
        uid: String,
        /// Name of the container.
        container: String,
        /// Whether it is from standard error.
        #[serde(default)]
        error: bool,
        data: Bytes,
    },
    /// Reports what the node is doing, for humans.
    Note {
        /// The description.
        text: String,
    },
    /// A sign of life, used without Mesos, which otherwise monitors the node.
    Alive {
        /// Process id of the node.
        pid: u32,
    },
    /// A pod's state, used without Mesos, which otherwise transmits it.
    #[serde(rename_all = "camelCase")]
    State {
        /// The pod's UID.
        uid: String,
        state: PodState,
        /// Explanation for humans.
        #[serde(default)]
        message: String,
        /// The exit code, once known.
        #[serde(default)]
        exit_code: Option<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// The node has its task.
    Starting,
    /// A container runs.
    Running,
    /// It exited by itself, with an exit code.
    Ended,
    /// It could not be run, or was stopped.
    Stopped,
}

/// The word by which [`is_about_fetching`] recognises that something could not be fetched.
pub const FETCH: &str = "fetch";

/// Whether a task or a node ended because something could not be fetched. Mesos' fetcher and km node only say so in
/// the text of the last status.
pub fn is_about_fetching(message: &str) -> bool {
    message.to_lowercase().contains(FETCH)
}

/// How a pod ended: the data of its task's last status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodEnd {
    pub exit_code: u8,
}

/// Standard input of `km runonce`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostRun {
    /// How the node is set up.
    pub launch: RunLaunch,
    /// The pods for which Mesos would have tasks.
    pub tasks: Vec<HostTask>,
    /// The pods' definitions.
    pub pods: Vec<GivenPod>,
}

/// A pod of a [`HostRun`] and its grant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostTask {
    pub pod: PodLaunch,
    /// Resources that it may use.
    pub grant: crate::protocol::launch::Grant,
}
