//! `km`: everything that runs inside the cluster, as one static multi-call binary.
#![forbid(unsafe_code)]
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "km", version, about = "What runs in the cluster: scheduler, node agent, endpoints, host agent")]
struct Arguments {
    #[command(subcommand)]
    command: Role,
}

#[derive(Subcommand)]
enum Role {}

fn main() -> ExitCode {
    // reqwest and kube are built without a default TLS provider and would panic on first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match arguments.command {}
}
