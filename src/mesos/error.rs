//! Errors between a client and Mesos.
use std::time::Duration;

use super::masters::leader_of;
use super::recordio::RecordIoError;
use super::transport::{Reply, Transport, TransportError};

/// A call or a stream that failed.
#[derive(Debug, thiserror::Error)]
pub enum MesosError {
    /// The list of masters cannot be used.
    #[error("`{given}` is not an address of a Mesos master: {problem}")]
    Address {
        /// The address as given.
        given: String,
        /// Why the address cannot be used.
        problem: &'static str,
    },
    /// A file of the connection's settings cannot be read.
    #[error("failed to read {path}")]
    File {
        /// Path of the file.
        path: std::path::PathBuf,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// The server did not answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// None of the masters is the leader.
    #[error("no leading Mesos master: {}", .attempts.join("; "))]
    NoLeader {
        /// Each master and its answer.
        attempts: Vec<String>,
    },
    /// The server is no longer the leader, or is not ready.
    #[error("{target} is not the leading Mesos master")]
    NotLeading {
        /// URL of the server.
        target: String,
        /// `scheme://host:port` of the leader, if known.
        leader: Option<String>,
    },
    /// The secret is wrong or missing.
    #[error("{}", unauthenticated(.target, .principal.as_deref()))]
    Unauthenticated {
        /// URL of the server.
        target: String,
        /// Principal of the request.
        principal: Option<String>,
    },
    /// The principal may not do this, or the framework is not subscribed.
    #[error("Mesos denied {call}: {message}")]
    Forbidden {
        /// Name of the call.
        call: &'static str,
        /// Reason given by Mesos.
        message: String,
    },
    /// The call is invalid or belongs to an old subscription.
    #[error("Mesos rejected {call} (status {status}): {message}")]
    Refused {
        /// Name of the call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// Reason given by Mesos.
        message: String,
    },
    /// An endpoint outside the v1 API did not answer successfully.
    #[error("{url} returned {status}: {message}")]
    Endpoint {
        /// URL of the endpoint.
        url: String,
        /// HTTP status.
        status: u16,
        /// First line of the reason.
        message: String,
    },
    /// The master ended the subscription with an ERROR event.
    #[error("Mesos rejected the subscription: {message}")]
    Subscription {
        /// Reason given by Mesos.
        message: String,
    },
    /// The framework was torn down or its failover timeout has passed. Its id can never be used again.
    #[error("the framework was removed from Mesos")]
    FrameworkRemoved,
    /// No event arrived in time.
    #[error("no event from {target} for {silence:?}")]
    Silent {
        /// URL of the server.
        target: String,
        /// Length of the silence.
        silence: Duration,
    },
    /// The server closed the stream.
    #[error("{target} closed the event stream")]
    Closed {
        /// URL of the server.
        target: String,
    },
    /// The stream failed.
    #[error("failed to read events from {target}")]
    Stream {
        /// URL of the server.
        target: String,
        /// The error of the stream.
        #[source]
        source: RecordIoError,
    },
    /// A message cannot be parsed.
    #[error("failed to parse {what} from {target}")]
    Malformed {
        /// Kind of the message.
        what: &'static str,
        /// URL of the server.
        target: String,
        /// The JSON error.
        #[source]
        source: serde_json::Error,
    },
    /// A message cannot be encoded.
    #[error("failed to encode {what} as JSON")]
    Encode {
        /// Kind of the message.
        what: &'static str,
        /// The JSON error.
        #[source]
        source: serde_json::Error,
    },
}

fn unauthenticated(target: &str, principal: Option<&str>) -> String {
    match principal {
        Some(principal) => format!("{target} rejected the secret of principal `{principal}`"),
        None => format!("{target} requires authentication, but no principal is configured"),
    }
}

impl MesosError {
    /// The error for an unsuccessful reply.
    pub(super) async fn refusal(
        transport: &dyn Transport,
        principal: Option<String>,
        call: &'static str,
        reply: Reply,
    ) -> Self {
        let target = transport.target().to_owned();
        match reply.status {
            307 | 503 => Self::NotLeading { leader: leader_of(&target, reply.location.as_deref()), target },
            401 => Self::Unauthenticated { target, principal },
            403 => Self::Forbidden { call, message: reply.message().await },
            status => Self::Refused { call, status, message: reply.message().await },
        }
    }

    /// Whether a later attempt may succeed without any change by the operator.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(_)
            | Self::NoLeader { .. }
            | Self::NotLeading { .. }
            | Self::Silent { .. }
            | Self::Closed { .. }
            | Self::Stream { .. } => true,
            Self::Refused { status, .. } | Self::Endpoint { status, .. } => *status >= 500,
            Self::Address { .. }
            | Self::File { .. }
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::Subscription { .. }
            | Self::FrameworkRemoved
            | Self::Malformed { .. }
            | Self::Encode { .. } => false,
        }
    }

    /// What the operator can do about the error.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated { .. } => {
                Some("compare spec.mesos.principal and secretFile with the master's --credentials")
            }
            Self::Forbidden { .. } | Self::Endpoint { status: 403, .. } => {
                Some("check the master's --acls for this principal")
            }
            Self::NoLeader { .. } => {
                Some("check that the masters in spec.mesos.master are running and reachable, and that one is elected")
            }
            _ => None,
        }
    }
}
