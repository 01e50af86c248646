//! Commands and executors.
use serde::{Deserialize, Serialize};

use super::{Bytes, DurationInfo, ExecutorId, ExecutorType, FrameworkId, Labels, Resource};

/// A file that the agent fetches into the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uri {
    /// Where from.
    pub value: String,
    /// Makes it executable, and does not unpack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
    /// Unpacks an archive; true unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<bool>,
    /// Keeps it in the agent's fetcher cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// Name in the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_file: Option<String>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentVariable {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Environment of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// The variables.
    #[serde(default)]
    pub variables: Vec<EnvironmentVariable>,
}

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandInfo {
    /// Files to fetch first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<Uri>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Whether `value` is a line for `/bin/sh -c`; true unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<bool>,
    /// The line, or the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Arguments, the program's name first; only without a shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Runs as this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl CommandInfo {
    /// Fetches a program and runs it only if it has this sha256: Mesos' fetcher checks nothing, and the program may
    /// come over plain HTTP and run as root. The hash must be hexadecimal and the name a plain file name.
    pub fn verified(name: &str, uri: &str, sha256: &str, arguments: &[&str]) -> Self {
        let quoted: Vec<String> =
            arguments.iter().map(|argument| format!("'{}'", argument.replace('\'', r"'\''"))).collect();
        let line = format!("echo '{sha256}  {name}' | sha256sum -c - && exec ./{name} {}", quoted.join(" "));
        let fetched = Uri {
            value: uri.to_owned(),
            executable: Some(true),
            // The cache's key is the URI, so a URI that names its hash never gives an old file.
            cache: Some(true),
            output_file: Some(name.to_owned()),
            ..Uri::default()
        };
        Self { uris: vec![fetched], shell: Some(true), value: Some(line), ..Self::default() }
    }
}

/// An executor. While one lives, every task for it must carry exactly the same info (labels and grace period apart),
/// so keep it and send it verbatim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecutorInfo {
    /// Custom, for this project.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ExecutorType>,
    /// Its id.
    pub executor_id: ExecutorId,
    /// Its framework; the master fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework_id: Option<FrameworkId>,
    /// What to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandInfo>,
    /// Container settings, handed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<serde_json::Value>,
    /// What it takes for itself, next to its tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Resource>,
    /// Shown in Mesos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Old grouping name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Handed to the executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Bytes>,
    /// Service discovery, handed through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<serde_json::Value>,
    /// Time between SHUTDOWN and the agent's kill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period: Option<DurationInfo>,
    /// Shown in Mesos.
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
