//! The CNI plugin on the kernel's own firewall, in network namespaces of the test's own.
//!
//! Needs root, `ip`, `iptables` and namespaces, and is therefore ignored by a plain `cargo test`.
mod cni;
mod namespaces;
