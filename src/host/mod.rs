//! Machines that are changed: the [`Host`] trait, its SSH, local and fake forms, and `km host` on the other side.
#[cfg(feature = "cli")]
mod transport;

#[cfg(feature = "cli")]
pub use transport::{Command, Host, HostError, Output, Stream};
pub mod agent;
