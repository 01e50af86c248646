//! The environment variables that the agent sets for its executor. Only this module reads them.
use std::path::PathBuf;
use std::time::Duration;

use crate::transport::Secret;
use crate::types::{ExecutorId, FrameworkId, parse_duration};

/// The agent's settings for this executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorEnvironment {
    /// `ip:port` of the agent.
    pub agent_endpoint: String,
    /// Prefix of the agent's API paths, such as `/slave(1)`, or empty. A machine may serve several libprocess actors on
    /// one port, and only the prefix identifies the agent.
    pub agent_path: String,
    /// Framework of this executor.
    pub framework_id: FrameworkId,
    /// Identifier of this executor.
    pub executor_id: ExecutorId,
    /// The sandbox, as a path on the host.
    pub directory: Option<PathBuf>,
    /// The sandbox, as a path that the executor sees.
    pub sandbox: Option<PathBuf>,
    /// Whether the executor survives its agent's restarts.
    pub checkpoint: bool,
    /// How long the executor waits for a missing agent.
    pub recovery_timeout: Duration,
    /// Longest pause between two attempts to subscribe.
    pub subscription_backoff_max: Duration,
    /// Time between SHUTDOWN and the kill by the agent.
    pub shutdown_grace_period: Duration,
    /// Token for the agent's API, if it requires one.
    pub authentication_token: Option<Secret>,
    /// Unix socket of the agent's API, if it has one.
    pub domain_socket: Option<PathBuf>,
}

/// The environment is not that of an executor.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A variable is missing.
    #[error("{name} is not set; only Mesos agents start this command")]
    Missing {
        /// Name of the variable.
        name: &'static str,
    },
    /// A duration cannot be parsed.
    #[error("{name}: `{value}` is not a duration such as 15mins")]
    Duration {
        /// Name of the variable.
        name: &'static str,
        /// Value of the variable.
        value: String,
    },
}

// Mesos' own defaults, for variables that it sets only with checkpointing.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const SUBSCRIPTION_BACKOFF_MAX: Duration = Duration::from_secs(2);
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(5);

impl ExecutorEnvironment {
    /// Reads the environment of this process.
    pub fn from_env() -> Result<Self, EnvironmentError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads an environment through a lookup function.
    pub fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let required = |name| set(name).ok_or(EnvironmentError::Missing { name });
        let duration = |name, default| match set(name) {
            None => Ok(default),
            Some(value) => parse_duration(&value).ok_or(EnvironmentError::Duration { name, value }),
        };
        Ok(Self {
            agent_endpoint: required("MESOS_AGENT_ENDPOINT")?,
            agent_path: set("MESOS_SLAVE_PID")
                .and_then(|pid| pid.split_once('@').map(|(actor, _)| format!("/{actor}")))
                .unwrap_or_default(),
            framework_id: required("MESOS_FRAMEWORK_ID")?.into(),
            executor_id: required("MESOS_EXECUTOR_ID")?.into(),
            directory: set("MESOS_DIRECTORY").map(PathBuf::from),
            sandbox: set("MESOS_SANDBOX").map(PathBuf::from),
            checkpoint: matches!(set("MESOS_CHECKPOINT").as_deref(), Some("1" | "true")),
            recovery_timeout: duration("MESOS_RECOVERY_TIMEOUT", RECOVERY_TIMEOUT)?,
            subscription_backoff_max: duration("MESOS_SUBSCRIPTION_BACKOFF_MAX", SUBSCRIPTION_BACKOFF_MAX)?,
            shutdown_grace_period: duration("MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", SHUTDOWN_GRACE_PERIOD)?,
            authentication_token: set("MESOS_EXECUTOR_AUTHENTICATION_TOKEN").map(Secret::new),
            domain_socket: set("MESOS_DOMAIN_SOCKET").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_environment_is_read() {
        let environment = ExecutorEnvironment::read(|name| {
            let value = match name {
                "MESOS_AGENT_ENDPOINT" => "10.0.0.9:5051",
                "MESOS_SLAVE_PID" => "slave(1)@10.0.0.9:5051",
                "MESOS_FRAMEWORK_ID" => "f-0001",
                "MESOS_EXECUTOR_ID" => "n1.0a1b2c3d",
                "MESOS_CHECKPOINT" => "1",
                "MESOS_RECOVERY_TIMEOUT" => "15mins",
                "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD" => "90secs",
                "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" => "eyJ",
                "MESOS_DOMAIN_SOCKET" => "",
                _ => return None,
            };
            Some(value.to_owned())
        })
        .unwrap();
        assert_eq!(environment.agent_path, "/slave(1)");
        assert!(environment.checkpoint);
        assert_eq!(environment.shutdown_grace_period, Duration::from_secs(90));
        assert_eq!(environment.domain_socket, None);
        assert!(!format!("{environment:?}").contains("eyJ"));
    }

    #[test]
    fn a_missing_variable_is_named() {
        let error = ExecutorEnvironment::read(|_| None).unwrap_err();
        assert_eq!(error.to_string(), "MESOS_AGENT_ENDPOINT is not set; only Mesos agents start this command");
    }
}
