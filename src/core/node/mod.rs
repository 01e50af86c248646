//! What a node's programs read and how they are started, worked out of its launch and its place. Pure: `km node` carries it
//! out, `kmctl render` shows it.
pub mod config;
pub mod containerd;
pub mod kube_proxy;
pub mod kubelet;
pub mod programs;
mod rendered;
pub mod spec;

pub use config::KubeletConfiguration;
pub use rendered::rendered;
