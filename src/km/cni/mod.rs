//! `km cni`: the CNI plugin that maps granted host ports to a pod.
//!
//! A pod's granted ports are known only when it is bound. That is too late for its spec, so the stock port-mapping
//! plugin never sees them. This plugin runs after the ptp plugin in the chain, queries `km node` on this machine for
//! the pod's ports, and writes firewall rules. [`request`] parses the runtime's input, [`rules`] computes the rules,
//! [`wire`] is the protocol with `km node`, and [`run`] does the I/O.
pub mod request;
pub mod rules;
pub mod run;
pub mod wire;
