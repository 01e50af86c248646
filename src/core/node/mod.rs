//! The configuration and the arguments of a node's processes, derived from its launch and its place. Pure: `km node`
//! applies it, `kmctl render` prints it.
pub mod config;
pub mod containerd;
pub mod kube_proxy;
pub mod kubelet;
pub mod programs;
mod rendered;
pub mod spec;

pub use config::KubeletConfiguration;
pub use rendered::rendered;
