//! The CNI plugin on the kernel's own firewall, in network namespaces of the test's own.
//!
//! Needs root, `ip`, `iptables` and namespaces, and is therefore ignored by a plain `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod cni;
mod namespaces;
