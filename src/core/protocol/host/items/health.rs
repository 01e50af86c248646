//! Health checks.
use serde::{Deserialize, Serialize};

use super::kind::{Kind, Planned, Section, Writes};
use super::unit::section_of;

/// Waits until a URL answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthSpec {
    /// Name for messages.
    pub name: String,
    /// URL that must answer with status 200.
    pub url: String,
    /// Authority of the server's certificate, as a path without `.crt` and `.key`; `None` for plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Path of the client certificate, without `.crt` and `.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Kubeconfig whose authority and client certificate are used instead, for URLs that require authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// The unit whose journal explains a failure.
    pub unit: String,
    /// Timeout in seconds.
    pub seconds: u64,
}

impl Kind for HealthSpec {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    fn section(&self) -> Section {
        section_of(&self.unit)
    }

    fn planned(&self) -> Planned {
        Planned::Awaited
    }

    fn journal(&self) -> Option<&str> {
        Some(&self.unit)
    }
}
