//! Code shared by more than one kmctl binary. Code that only one of them uses does not belong here.
//!
//! - [`protocol`]: the formats that kmctl, km scheduler, km node and km host exchange;
//! - [`model`]: agents, pods, nodes and resources, as the scheduler, `kmctl scale`, `kmctl why` and `runonce` count
//!   them;
//! - [`node`]: the configuration files and arguments of a node's processes;
//! - [`cluster`] (cluster.yaml), [`bundle`], [`pki`], [`k8s`], [`progress`], [`backoff`];
//! - [`text`]: how messages spell counts and durations.
pub mod backoff;
pub mod bundle;
pub mod cluster;
pub mod k8s;
pub mod model;
pub mod node;
pub mod pki;
pub mod progress;
pub mod protocol;
pub mod text;
