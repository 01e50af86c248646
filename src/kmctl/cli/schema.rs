//! `kmctl schema`: the JSON Schema of cluster.yaml, for editors.
use super::context::Context;
use crate::failure::{Code, Failure};
use kmctl_core::cluster::json_schema;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `kmctl schema`.
pub fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    context.json(&json_schema())?;
    Ok(Code::Ok)
}
