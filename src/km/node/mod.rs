//! `km node`: the node agent, a Mesos executor that supervises stock containerd, kubelet and kube-proxy.
//!
//! [`session`] connects to Mesos and, when the node task is launched, builds a [`NodeAgent`] from a
//! [`KubeletConfiguration`] (static data, [`config`]) and [`KubeletDeps`] (injected objects, [`deps`], built from a
//! [`DepsSpec`](spec::DepsSpec)). [`decide`] is the agent's pure part, [`run`] carries out its effects. [`real`]
//! contains the production objects, [`hollow`] those of a node without containers, and [`once`] runs a node without an
//! API server. [`ledger`] and [`sweep`] ensure that nothing is left behind. [`cni`], [`view`] and [`dns`] are the
//! node's part of the network.
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
