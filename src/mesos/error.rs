//! What can go wrong between a client and Mesos.
use std::time::Duration;

use super::masters::leader_of;
use super::recordio::RecordIoError;
use super::transport::{Reply, Transport, TransportError};

/// A call or a stream that failed.
#[derive(Debug, thiserror::Error)]
pub enum MesosError {
    /// A list of masters that cannot be used.
    #[error("`{given}` is not an address of a Mesos master: {problem}")]
    Address {
        /// What was given.
        given: String,
        /// Why not.
        problem: &'static str,
    },
    /// A file of the connection's settings cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server did not answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// None of the masters leads.
    #[error("no leading Mesos master: {}", .attempts.join("; "))]
    NoLeader {
        /// Each master and what it said.
        attempts: Vec<String>,
    },
    /// The server no longer leads, or is not ready.
    #[error("{target} is not the leading Mesos master (any more)")]
    NotLeading {
        /// The server.
        target: String,
        /// `scheme://host:port` of the leader, if it is known.
        leader: Option<String>,
    },
    /// The secret is wrong, or there is none.
    #[error("{}", unauthenticated(.target, .principal.as_deref()))]
    Unauthenticated {
        /// The server.
        target: String,
        /// Who asked.
        principal: Option<String>,
    },
    /// The principal may not do this, or the framework is not subscribed.
    #[error("Mesos forbids {call}: {message}")]
    Forbidden {
        /// The call.
        call: &'static str,
        /// Its reason.
        message: String,
    },
    /// The call is wrong or comes from an old subscription.
    #[error("Mesos refused {call} (status {status}): {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// HTTP status.
        status: u16,
        /// Its reason.
        message: String,
    },
    /// An endpoint that is no part of the v1 API did not answer.
    #[error("{url} answered {status}: {message}")]
    Endpoint {
        /// The endpoint.
        url: String,
        /// HTTP status.
        status: u16,
        /// The first line of its reason.
        message: String,
    },
    /// The master ended the subscription with an ERROR event.
    #[error("Mesos refused the subscription: {message}")]
    Subscription {
        /// Its reason.
        message: String,
    },
    /// The framework was torn down or its failover timeout has passed; its id can never be used again.
    #[error("the framework has been removed from Mesos")]
    FrameworkRemoved,
    /// No sign of life.
    #[error("no event from {target} for {silence:?}")]
    Silent {
        /// The server.
        target: String,
        /// For how long.
        silence: Duration,
    },
    /// The server closed the stream.
    #[error("{target} closed the stream of events")]
    Closed {
        /// The server.
        target: String,
    },
    /// The stream broke.
    #[error("read events from {target}")]
    Stream {
        /// The server.
        target: String,
        /// Why.
        #[source]
        source: RecordIoError,
    },
    /// A message that this program cannot read.
    #[error("understand {what} from {target}")]
    Malformed {
        /// Which.
        what: &'static str,
        /// The server.
        target: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A message that cannot be written.
    #[error("write {what} as JSON")]
    Encode {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

fn unauthenticated(target: &str, principal: Option<&str>) -> String {
    match principal {
        Some(principal) => format!("{target} does not accept principal `{principal}` with the given secret"),
        None => format!("{target} wants authentication, and no principal is configured"),
    }
}

impl MesosError {
    /// What a reply that is no success means.
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

    /// Whether a later attempt may succeed without anybody changing anything.
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

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated { .. } => {
                Some("compare spec.mesos.principal and secretFile with the master's --credentials")
            }
            Self::Forbidden { .. } | Self::Endpoint { status: 403, .. } => {
                Some("look at the master's --acls for this principal")
            }
            Self::NoLeader { .. } => {
                Some("check that spec.mesos.master names masters that run and can be reached, and that one is elected")
            }
            _ => None,
        }
    }
}
