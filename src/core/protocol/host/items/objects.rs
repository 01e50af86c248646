//! Objects in the API.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Writes};

/// Objects in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectsSpec {
    /// Path of the kubeconfig to use.
    pub kubeconfig: String,
    pub objects: Vec<ObjectSpec>,
}

/// An object in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectSpec {
    /// The object, with the same fields as in YAML.
    pub object: serde_json::Value,
    /// Whether an existing object is left unchanged, because others change it.
    #[serde(default)]
    pub keep: bool,
}

impl Kind for ObjectsSpec {
    fn name(&self) -> String {
        format!("{} API objects", self.objects.len())
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    fn section(&self) -> Section {
        Section::ControlPlane
    }

    fn planned(&self) -> Planned {
        Planned::InEtcd
    }

    fn once_per_cluster(&self) -> bool {
        true
    }
}
