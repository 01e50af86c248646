//! `km node`: the node agent, a Mesos executor that supervises stock containerd, kubelet and kube-proxy.
//!
//! [`session`] talks to Mesos and, on the node task's launch, makes a [`NodeAgent`] of a
//! [`KubeletConfiguration`] (static data, [`config`]) and [`KubeletDeps`] (injected objects, [`deps`], built from a
//! [`DepsSpec`](spec::DepsSpec)). [`decide`] is the agent's pure half, [`run`] the other one. [`real`] are the objects
//! of production, [`hollow`] those of a node without containers, and [`once`] makes a
//! node without an API server. [`ledger`] and [`sweep`] see to it that nothing stays. [`cni`], [`view`] and [`dns`] are
//! the node's part in the network.
pub mod cni;
pub mod command;
pub mod decide;
pub mod deps;
pub mod dns;
pub mod events;
pub mod hollow;
pub mod ledger;
pub mod once;
pub mod real;
#[cfg(test)]
mod recorded;
pub mod run;
pub mod session;
pub mod sweep;
pub mod view;

pub use deps::KubeletDeps;
pub use run::NodeAgent;
