//! Apache Mesos' v1 HTTP APIs: wire types (JSON), RecordIO, scheduler, executor and operator clients.
//!
//! This crate knows nothing about Kubernetes. Policy (what to accept, when to reconnect) is up to the caller. The crate
//! turns calls into requests and streams into typed events, and reports clearly what Mesos refused and why.
#![warn(missing_docs)]

mod error;
pub mod executor;
pub mod fake;
mod masters;
pub mod operator;
mod recordio;
pub mod scheduler;
mod stream;
pub mod transport;
pub mod types;

pub use error::MesosError;
pub use masters::Masters;
pub use recordio::{RECORD_LIMIT, RecordIo, RecordIoError};
