//! What an operator reads when SSH fails: the whole of standard error and the exit code, against real sshds on loopback.
//! Needs root, openssh-server and sudo.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, a panic is the failure")]

mod stage;
mod terminal;
mod transcripts;

#[path = "../fixture/sshd.rs"]
#[allow(dead_code, reason = "each kind of test uses a part of it")]
mod sshd;
