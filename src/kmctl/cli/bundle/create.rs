//! `kmctl bundle create`: from a directory, or from upstream's releases.
use std::path::PathBuf;

use super::summary;
use crate::cli::context::Context;
use crate::failure::{Code, Failure};
use crate::provision::bundles::{MIRROR, cache, components, fetch, lock_of, mirror_of};
use crate::upstream::Download;
use kmctl_core::bundle;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Kubernetes version, e.g. v1.37.2
    #[arg(long, value_name = "VERSION")]
    kubernetes: String,
    /// CPU architecture
    #[arg(long, default_value = "amd64", value_parser = ["amd64", "arm64"])]
    architecture: String,
    /// Download from a copy of upstream, below whose URL upstream's host names are the first directories
    #[arg(long, value_name = "URL", env = MIRROR)]
    mirror: Option<String>,
    /// Lock file: checked if it exists, else written [default: the bundle's name with .lock]
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    lock: Option<PathBuf>,
    /// Pack this directory instead of downloading (needs --out)
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Runs `kmctl bundle create`.
pub(super) async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { kubernetes, architecture, mirror, lock, folder } = args;
    let out = context.settings.out.clone();
    match folder {
        Some(folder) => {
            let Some(out) = out else {
                return Err(Failure::message(Code::Usage, "--out is required with DIR")
                    .hint(format!("kmctl bundle create --kubernetes {kubernetes} --out FILE DIR")));
            };
            components(&kubernetes, Code::Usage)?;
            pack(folder, kubernetes, architecture, out, context).await
        }
        None => {
            let components = components(&kubernetes, Code::Usage)?;
            let out = out.unwrap_or_else(|| PathBuf::from(format!("kubernetes-{kubernetes}.bundle")));
            let lock = lock.unwrap_or_else(|| lock_of(&out));
            let mirror = mirror_of(mirror)?;
            let cache = cache()?.join("downloads");
            let what = Download { kubernetes, components, architecture, mirror, out, lock, cache };
            let made = fetch(&what, &context.progress).await?;
            context.progress.note("", &format!("{}: {}", what.out.display(), summary(&made.manifest)));
            Ok(Code::Ok)
        }
    }
}

async fn pack(
    folder: PathBuf,
    kubernetes: String,
    architecture: String,
    out: PathBuf,
    context: &Context,
) -> Result<Code, Failure> {
    let name = out.display().to_string();
    let step = context.progress.step("", &format!("Creating {name}"));
    let progress = context.progress.clone();
    // Packing keeps a CPU busy for seconds, and Ctrl-C must still be handled.
    let manifest = tokio::task::spawn_blocking(move || {
        bundle::create(&folder, &kubernetes, &architecture, &out, |path| progress.note("pack", path))
    });
    match manifest.await? {
        Ok(manifest) => {
            step.done(&format!("Created {name}: {}", summary(&manifest)));
            Ok(Code::Ok)
        }
        Err(error) => {
            step.failed("failed");
            Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("failed to create the bundle")))
        }
    }
}
