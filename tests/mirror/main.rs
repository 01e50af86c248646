//! `kmctl bundle create` without a directory, as a process, against a copy of upstream on loopback: its paths, its
//! checksums, its redirects, and a registry.
//!
//! The registry is the one in `upstream.rs`; the same cases run against Debian's docker-registry, in a test that is ignored
//! unless asked for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod create;
mod damage;
mod desk;
mod lock;
mod registry;
mod resume;
mod room;
mod upstream;
