//! Commands and executors.
use serde::{Deserialize, Serialize};

use super::{Bytes, DurationInfo, ExecutorId, ExecutorType, FrameworkId, Labels, Resource};

/// A file that the agent fetches into the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uri {
    /// Source of the file.
    pub value: String,
    /// Makes the file executable and does not unpack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
    /// Unpacks an archive; defaults to true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<bool>,
    /// Keeps the file in the agent's fetcher cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// File name in the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
}

/// A variable for a command. Its value is visible in Mesos' state, so it must not be a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    /// Name of the variable.
    pub name: String,
    /// Value of the variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Environment of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Variables to set.
    #[serde(default)]
    pub variables: Vec<EnvironmentVariable>,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// Files to fetch before the command starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<Uri>,
    /// Environment variables of the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Whether `value` is a line for `/bin/sh -c`; defaults to true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<bool>,
    /// The shell line, or the binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Arguments, starting with the binary's name; only without a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// User to run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl CommandInfo {
    /// Fetches a binary and runs it only if it has this SHA-256. Mesos' fetcher verifies nothing, and the binary may be
    /// fetched over plain HTTP and run as root. The hash must be hexadecimal and the name a plain file name.
    pub fn verified(name: &str, uri: &str, sha256: &str, arguments: &[&str]) -> Self {
        let quoted: Vec<String> =
            arguments.iter().map(|argument| format!("'{}'", argument.replace('\'', r"'\''"))).collect();
        let line = format!("echo '{sha256}  {name}' | sha256sum -c - && exec ./{name} {}", quoted.join(" "));
        let fetched = Uri {
            value: uri.to_owned(),
            executable: Some(true),
            // The cache's key is the URI, so a URI that contains the hash never returns an outdated file.
            cache: Some(true),
            output_file: Some(name.to_owned()),
            ..Uri::default()
        };
        Self { uris: vec![fetched], shell: Some(true), value: Some(line), ..Self::default() }
    }
}

/// An executor. While one is running, every task for it must carry exactly the same info, except for labels and grace
/// period. Therefore keep the info and send it verbatim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecutorInfo {
    /// `Custom` in this project.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExecutorType>,
    /// Identifier, chosen by the framework.
    pub executor_id: ExecutorId,
    /// Framework of the executor, set by the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework_id: Option<FrameworkId>,
    /// Command that starts the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandInfo>,
    /// Container settings, passed through unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<serde_json::Value>,
    /// Resources of the executor itself, in addition to its tasks' resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Name, shown in Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Legacy grouping name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Data for the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Bytes>,
    /// Service discovery, passed through unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<serde_json::Value>,
    /// Time between SHUTDOWN and the kill by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period: Option<DurationInfo>,
    /// Labels, shown in Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetched_program_is_verified_before_it_runs() {
        let command = CommandInfo::verified("km", "http://h/x", "abc", &["node", "it's"]);
        assert_eq!(command.value.unwrap(), r"echo 'abc  km' | sha256sum -c - && exec ./km 'node' 'it'\''s'");
        assert_eq!(command.uris[0].output_file.as_deref(), Some("km"));
    }
}
