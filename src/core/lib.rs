//! What more than one program of kmctl goes by, and nothing that only one of them does.
//!
//! - [`protocol`]: what kmctl, km scheduler, km node and km host say to each other;
//! - [`model`]: agents, pods, nodes and resources, as scheduler, `kmctl scale`, `kmctl why` and `runonce` count them;
//! - [`node`]: what a node's programs read and how they are started;
//! - [`cluster`] (cluster.yaml), [`bundle`], [`pki`], [`k8s`], [`progress`], [`backoff`].
pub mod backoff;
pub mod bundle;
pub mod cluster;
pub mod k8s;
pub mod model;
pub mod node;
pub mod pki;
pub mod progress;
pub mod protocol;
