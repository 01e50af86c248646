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
mod names;
mod ports;
mod processes;
mod proxy;
mod proxy_lock;
mod remains;
mod signals;
mod sysctls;

pub use api::view;
pub use build::build;
pub use clock::RealClock;
pub use kubeconfig::{User, for_own_authority};
pub use ports::RealPorts;
pub use proxy::flags as proxy_flags;
pub use remains::remove;
