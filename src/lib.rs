//! Kubernetes as an Apache Mesos framework, from one command.
//!
//! The folders are the architecture; `docs/architecture.md` tells how they fit together:
//!
//! - the operator's tool: [`cli`] → [`cluster`] (desired) + [`inventory`] (observed) → [`plan`] (pure) → [`apply`],
//!   over [`host`]s, with [`render`], [`pki`], [`bundle`] and [`progress`];
//! - what runs in the cluster: [`scheduler`] (the Mesos framework), [`node`] (the node agent, a Mesos executor), its
//!   plugin [`cni`] and [`endpoints`], on top of [`mesos`] and [`k8s`];
//! - what needs neither: [`runonce`], pods of a file run to completion;
//! - how everything that tries again waits: [`backoff`].

#[cfg(feature = "cli")]
pub mod apply;
pub mod backoff;
pub mod bundle;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cluster;
pub mod cni;
pub mod endpoints;
pub mod host;
#[cfg(feature = "cli")]
pub mod inventory;
pub mod k8s;
pub mod mesos;
pub mod node;
pub mod pki;
#[cfg(feature = "cli")]
pub mod plan;
pub mod progress;
#[cfg(feature = "cli")]
pub mod render;
pub mod runonce;
pub mod scheduler;
