//! Parts that talk to the Kubernetes API, against a real etcd and kube-apiserver on loopback.
//!
//! They need a folder with `etcd` and `kube-apiserver`, named by `KMCTL_TEST_BIN` (scripts/test sets it), and are
//! therefore ignored by a plain `cargo test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod documented;
mod draining;
mod endpoints;
mod hollow;
mod judged;
mod policies;
mod server;
