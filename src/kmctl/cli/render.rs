//! `kmctl render`: writes every file that would be installed on a host, in the API or on a node into a directory. Needs
//! no host.
use kmctl_core::text::count;
use std::path::Path;

use anyhow::Context as _;

use super::context::Context;
use crate::failure::{Code, Failure};
use crate::provision::rendered_files;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Cgroup hierarchy of the example node
    #[arg(long, default_value = "v2", value_parser = ["v1", "v2"])]
    cgroup: String,
}

/// Runs `kmctl render`.
pub fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { cgroup } = args;
    let Some(out) = context.settings.out.clone() else {
        return Err(Failure::message(Code::Usage, "no output directory").hint("kmctl render --out DIR"));
    };
    let files = rendered_files(&mut context.cluster()?, cgroup == "v1")?;
    for (path, text) in &files {
        let path = out.join(path.trim_start_matches('/'));
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("failed to create directory {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    context.progress.note("", &format!("wrote {} to {}", count(files.len(), "file"), out.display()));
    Ok(Code::Ok)
}
