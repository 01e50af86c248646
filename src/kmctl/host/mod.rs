//! Machines that are changed: the [`Host`] trait, its SSH, local and fake implementations, and `km host` on the other
//! side.
mod dialer;
pub mod fake;
mod local;
mod quote;
pub mod ssh;
mod transport;

pub use dialer::Dialer;
pub use local::LocalHost;
pub use quote::{command_line, quote};
pub use ssh::SshHost;
pub use transport::{Command, Host, HostError, Output, Stream};
