//! `km cni`: the CNI plugin that maps granted host ports to a pod.
//!
//! Which ports a pod was granted is known only when it is bound, too late for its spec, so the stock port-mapping
//! plugin never sees them. This one stands behind the ptp plugin in the chain, asks `km node` on this machine for
//! the pod's ports, and writes firewall rules. [`request`] parses what the runtime says, [`rules`] computes the rules,
//! [`wire`] is the talk with `km node`, and [`run`] reads, asks and writes.
pub mod request;
pub mod rules;
pub mod run;
pub mod wire;
