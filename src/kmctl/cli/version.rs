//! `kmctl version`.
use super::context::{Context, OutputFormat};
use crate::failure::{Code, Failure};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the version.
pub fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let version = env!("CARGO_PKG_VERSION");
    match context.settings.output {
        OutputFormat::Text => context.stdout(&format!("kmctl {version}\n"))?,
        OutputFormat::Json => context.json(&serde_json::json!({ "version": version }))?,
    }
    Ok(Code::Ok)
}
