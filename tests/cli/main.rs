//! Every command of the real `kmctl`, as a process: what it prints on standard output and standard error, and its exit
//! code, compared with the files in `golden/`: success, nothing to change, and failures.
//!
//! SSH is real (sshd, keys, known_hosts), and so is `km host` on the other side. Not real are systemd, Mesos (the one
//! of `mesos::fake`), and the components that answer on the host: `machine.rs`, `world.rs` and `components.rs`
//! say what stands in for them. Needs root, namespaces, overlayfs, openssh and iproute2.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod components;
mod failures;
mod files;
mod first_bundle;
#[path = "../fixture/mod.rs"]
mod fixture;
mod life;
mod machine;
mod rendered;
mod transcript;
#[path = "../mirror/upstream.rs"]
mod upstream;
mod world;
