//! `kmctl plan`: shows what `up` would do, and saves it for `up --plan`. It changes nothing.
use super::context::{Context, OutputFormat};
use super::up::begins_anew;
use crate::failure::{Code, Failure};
use crate::plan::describe;
use crate::provision::phases::{self, PlanOptions};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Reset node limits to cluster.yaml (limits set with `kmctl scale` are kept otherwise)
    #[arg(long)]
    reset_scale: bool,
    /// Include removal of etcd members that are no longer in cluster.yaml
    #[arg(long)]
    allow_remove: bool,
    /// Plan a new, empty cluster although an older one has lost its data; the value is the cluster's name
    #[arg(long, value_name = "NAME")]
    begin_anew: Option<String>,
}

/// Runs `kmctl plan`. With `--out`, the file holds the plan itself and its description is printed as well.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale, allow_remove, begin_anew } = args;
    let mut loaded = context.cluster()?;
    let begin_anew = begins_anew(&loaded, begin_anew.as_deref())?;
    let options = PlanOptions { reset_scale, allow_remove, begin_anew };
    let (saved, plan, failure) = phases::plan(&context.session, &mut loaded, options).await?;
    match (&context.settings.out, context.settings.output) {
        (None, OutputFormat::Text) => context.stdout(&describe(&plan))?,
        (None, OutputFormat::Json) => context.json(&saved)?,
        (Some(file), _) => {
            context.json(&saved)?;
            context.stderr(&describe(&plan));
            context.progress.note("", &format!("apply it with `kmctl up --plan {}`", file.display()));
        }
    }
    failure.map_or(Ok(Code::Ok), Err)
}
