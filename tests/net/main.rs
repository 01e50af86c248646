//! The network on the kernel's own firewall, in network namespaces of the test's own.
//!
//! Needs root, `ip`, `iptables`, `nft` and namespaces, for the whole path also a folder with `etcd`, `kube-apiserver` and
//! `kube-proxy`, named by `KMCTL_TEST_BIN` (scripts/test sets it), with the stock plugins in `cni` beside it, and is
//! therefore ignored by a plain `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod cni;
mod namespaces;
mod nodes;
mod paths;
mod remains;
#[allow(dead_code, reason = "tests/api uses more of it")]
#[path = "../api/server.rs"]
mod server;
