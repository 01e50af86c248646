//! How fast Services are, and how soon they follow, compared with the host network and with the stock controllers.
//! Prints a JSON line per figure. `scripts/bench network PART...` measures only these parts:
//!
//! - `traffic`: bytes and connections between pods by a Service, against the same two processes on the host network;
//! - `writers`: what `km endpoints` needs for many Services, against the stock endpoint controllers;
//! - `rules`: the time from a pod's readiness to another node's rule, against stock controllers.
//!
//! Nodes are network namespaces on this machine, with real kube-proxies, real API servers and the real `km cni`, as in
//! `tests/net`. The programs come from the folder that `KMCTL_TEST_BIN` names. Everything is gone at the end, after a
//! failure and after Ctrl-C, too.
#![allow(dead_code, reason = "the fixtures are shared with tests/net and tests/api, which use more of them")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot be made is no figure")]

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

#[path = "network/contender.rs"]
mod contender;
mod figures;
#[path = "../tests/net/namespaces.rs"]
mod namespaces;
#[path = "../tests/net/nodes.rs"]
mod nodes;
#[path = "network/peers.rs"]
mod peers;
#[path = "network/rules.rs"]
mod rules;
#[path = "../tests/api/server.rs"]
mod server;
#[path = "network/traffic.rs"]
mod traffic;
#[path = "network/writers.rs"]
mod writers;

const PARTS: [&str; 3] = ["traffic", "writers", "rules"];

fn main() -> ExitCode {
    // `cargo bench` adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(peer) = peers::role(&arguments) {
        peer();
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.iter().find(|argument| !PARTS.contains(argument)) {
        eprintln!("there is no part {unknown}; there are: {}", PARTS.join(" "));
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()).unwrap(), signal(SignalKind::terminate()).unwrap());
        // What is dropped here takes everything along that it has made.
        tokio::select! {
            biased;
            _ = interrupt.recv() => ExitCode::from(130),
            _ = terminate.recv() => ExitCode::from(143),
            () = measure(if arguments.is_empty() { &PARTS } else { &arguments }) => ExitCode::SUCCESS,
        }
    })
}

async fn measure(parts: &[&str]) {
    for part in parts {
        match *part {
            "traffic" => traffic::measure().await,
            "writers" => writers::measure().await,
            _ => rules::measure().await,
        }
    }
}
