//! What kmctl and km say to each other in a run: JSON, as messages between framework and executor, or as lines between
//! kmctl and `km runonce`. Messages may get lost, so a node asks until it is given, and numbers what must not be lost.
//!
//! Pods, configMaps and secrets travel only so: Mesos keeps no message, while it checkpoints what a task carries.
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde::{Deserialize, Serialize};

use crate::protocol::launch::{PodLaunch, RunLaunch};
use mesos::types::Bytes;

/// A pod, and everything in the file that it refers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GivenPod {
    /// Its UID.
    pub uid: String,
    /// As it stands in the file.
    pub pod: Pod,
    /// ConfigMaps that it names.
    #[serde(default)]
    pub config_maps: Vec<ConfigMap>,
    /// Secrets that it names.
    #[serde(default)]
    pub secrets: Vec<Secret>,
}

/// From kmctl to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ToNode {
    /// What the node asked for.
    Given {
        /// The pods.
        pods: Vec<GivenPod>,
    },
    /// Everything up to this number has arrived.
    #[serde(rename_all = "camelCase")]
    Heard {
        /// The number of the last piece.
        sequence: u64,
    },
}

/// From a node to kmctl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum FromNode {
    /// Asks for pods that the node has a task for and knows nothing of.
    Wants {
        /// Their UIDs.
        uids: Vec<String>,
    },
    /// A piece of a container's output. On Mesos it is numbered from 1 and repeated until it was heard.
    #[serde(rename_all = "camelCase")]
    Output {
        /// Its number; 0 where nothing gets lost.
        #[serde(default)]
        sequence: u64,
        /// The pod's UID.
        uid: String,
        /// The container.
        container: String,
        /// It came on standard error.
        #[serde(default)]
        error: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Says what the node is at, for people.
    Note {
        /// In words.
        text: String,
    },
    /// A sign of life, where there is no Mesos to see to it.
    Alive {
        /// The node's process.
        pid: u32,
    },
    /// A pod's state, where there is no Mesos to carry it.
    #[serde(rename_all = "camelCase")]
    State {
        /// The pod's UID.
        uid: String,
        /// The state.
        state: PodState,
        /// For people.
        #[serde(default)]
        message: String,
        /// The exit code, once there is one.
        #[serde(default)]
        exit_code: Option<u8>,
    },
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodState {
    /// The node has its task.
    Starting,
    /// A container runs.
    Running,
    /// It ended by itself, and has an exit code.
    Ended,
    /// It could not be run, or was stopped.
    Stopped,
}

/// How a pod ended: the data of its task's last status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodEnd {
    /// The pod's exit code.
    pub exit_code: u8,
}

/// Standard input of `km runonce`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostRun {
    /// How the node is made.
    pub launch: RunLaunch,
    /// What Mesos would make tasks of.
    pub tasks: Vec<HostTask>,
    /// The pods themselves.
    pub pods: Vec<GivenPod>,
}

/// A pod of a [`HostRun`] and what it may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostTask {
    /// The pod.
    pub pod: PodLaunch,
    /// What it may use.
    pub grant: crate::protocol::launch::Grant,
}
