//! Real objects for [`KubeletDeps`](super::deps::KubeletDeps): this machine, its Mesos agent and a real API server.
mod api;
mod build;
mod cgroup_tree;
mod cgroups;
mod clock;
mod containerd;
mod fetch;
mod firewall;
mod folders;
mod kubeconfig;
mod kubelet;
mod ports;
mod processes;
mod proxy;
mod proxy_lock;
mod remains;
mod signals;
mod subnet;
mod sysctls;
mod transient;

pub use api::view;
pub use build::{build, build_once};
pub use clock::RealClock;
pub use containerd::search_path;
pub use remains::remove;
pub use subnet::{Claimed, claim_subnet};
