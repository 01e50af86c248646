//! Apache Mesos' v1 HTTP APIs: wire types (JSON), RecordIO, scheduler, executor and operator clients.
//!
//! Nothing in here knows Kubernetes. Policy (what to accept, when to reconnect) is the caller's; this module turns
//! calls into requests and streams into typed events, and says clearly what Mesos refused and why.
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
