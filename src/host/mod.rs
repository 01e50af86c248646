//! Machines that are changed: the [`Host`] trait, its SSH, local and fake forms, and `km host` on the other side.
pub mod agent;
#[cfg(feature = "cli")]
mod dialer;
#[cfg(feature = "cli")]
pub mod fake;
#[cfg(feature = "cli")]
mod local;
#[cfg(feature = "cli")]
mod quote;
#[cfg(feature = "cli")]
pub mod ssh;
#[cfg(feature = "cli")]
mod transport;

#[cfg(feature = "cli")]
pub use dialer::Dialer;
#[cfg(feature = "cli")]
pub use local::LocalHost;
#[cfg(feature = "cli")]
pub use quote::{command_line, quote};
#[cfg(feature = "cli")]
pub use ssh::SshHost;
#[cfg(feature = "cli")]
pub use transport::{Command, Host, HostError, Output, Stream};
