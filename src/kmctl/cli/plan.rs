//! `kmctl plan`: shows what `up` would do, and saves it for `up --plan`. Touches nothing.
use std::path::Path;

use anyhow::Context as _;

use super::context::{Context, OutputFormat};
use super::failure::{Code, Failure};
use super::gather::{self, Manner, Wait};
use super::provision;
use crate::apply::Limits;
use crate::plan::{Plan, SavedPlan, describe};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Set the bounds of nodes back to cluster.yaml's; else what `kmctl scale` has set is kept
    #[arg(long)]
    reset_scale: bool,
    /// Plan to remove members of etcd that cluster.yaml does not name any more
    #[arg(long)]
    allow_remove: bool,
}

/// Runs `kmctl plan`. With `--out` the file holds the plan itself, and what it says is told beside.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { reset_scale, allow_remove } = args;
    let mut loaded = context.cluster()?;
    let bundle = provision::open_bundle(&mut loaded)?;
    let km = provision::km_meanwhile();
    let manner = Manner { wait: Wait::All, reset_scale };
    let (wanted, mut sight) = gather::look_around(context, &loaded, bundle, &Limits::default(), manner, None).await?;
    let (_, km) = provision::taken(km).await?;
    let plan = provision::decide(context, &loaded, &mut sight, &km, allow_remove).await?;
    let saved = SavedPlan::new(&loaded.cluster.metadata.name, &km, &wanted.manifests, &plan);
    match (&context.settings.out, context.settings.output) {
        (None, OutputFormat::Text) => context.data(&describe(&plan))?,
        (None, OutputFormat::Json) => context.json(&saved)?,
        (Some(file), _) => {
            context.json(&saved)?;
            context.talk(&describe(&plan));
            context.progress.note("", &format!("apply it with `kmctl up --plan {}`", file.display()));
        }
    }
    if sight.failed.is_empty() {
        return Ok(Code::Ok);
    }
    let errors = sight.failed.into_iter().map(|(_, error)| error).collect();
    Err(provision::failed(context, errors, wanted.manifests.len()))
}

/// Reads a saved plan.
pub(crate) fn read(file: &Path) -> Result<SavedPlan, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read the plan {}", file.display()))?;
    SavedPlan::parse(&text).map_err(|error| {
        let error = anyhow::Error::new(error).context(format!("read the plan {}", file.display()));
        Failure::new(Code::Invalid, error).hint("make it anew: `kmctl plan --out FILE`")
    })
}

/// Fails unless the saved plan is still what has to be done.
pub(crate) fn check(file: &Path, saved: &SavedPlan, now: &SavedPlan, plan: &Plan) -> Result<(), Failure> {
    let Some(drift) = saved.drift(now) else { return Ok(()) };
    let hint = if plan.is_empty() {
        "there is nothing to do any more: the plan was carried out, or somebody else did it".to_owned()
    } else {
        format!("look at the new plan and save it: `kmctl plan --out {}`", file.display())
    };
    let error = anyhow::Error::msg(drift.trim_end().to_owned())
        .context(format!("the cluster has drifted from {}; nothing was changed", file.display()));
    Err(Failure::new(Code::Drifted, error).hint(hint))
}
