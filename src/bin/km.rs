//! `km`: everything that runs inside the cluster, as one static multi-call binary.
#![forbid(unsafe_code)]
use std::process::ExitCode;

fn main() -> ExitCode {
    // reqwest and kube are built without a default TLS provider and would panic on first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    km::main()
}
