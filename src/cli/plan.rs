//! `kmctl plan`: shows what `up` would do. Touches nothing.
use super::context::{Context, OutputFormat};
use super::failure::{Code, Failure};
use super::provision;
use crate::plan::describe;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Set the bounds of nodes back to cluster.yaml's; else what `kmctl scale` has set is kept
    #[arg(long)]
    reset_scale: bool,
}

/// Runs `kmctl plan`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale } = args;
    let loaded = context.cluster()?;
    let bundle = provision::open_bundle(&loaded)?;
    let (_, km) = provision::km()?;
    let hosts = provision::connect_all(context, &loaded).await?;
    let mut wanted = provision::wanted(&loaded, bundle, &hosts).await?;
    if reset_scale {
        provision::reset_scale(&mut wanted);
    }
    let seen = provision::look_all(context, hosts, &wanted.manifests).await?;
    let plan = provision::decide(&seen, &km)?;
    match context.settings.output {
        OutputFormat::Text => context.data(&describe(&plan))?,
        OutputFormat::Json => context.json(&plan)?,
    }
    Ok(Code::Ok)
}
