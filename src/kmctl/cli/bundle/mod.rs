//! `kmctl bundle`: creates, verifies and compares bundles.
mod create;
mod show;

use std::path::PathBuf;

use super::context::{Context, OutputFormat};
use crate::failure::{Code, Failure};
use kmctl_core::bundle::{self, Bundle, Manifest};
use kmctl_core::text::count;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Create a bundle from upstream's releases, or from a directory with bin/, cni/ and images/
    Create(create::Args),
    /// Verify the checksum of every file in a bundle
    Verify {
        /// The bundle
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what is in a bundle
    Show {
        /// The bundle
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show how two bundles differ
    Diff {
        /// The first bundle
        #[arg(value_name = "A")]
        one: PathBuf,
        /// The second bundle
        #[arg(value_name = "B")]
        other: PathBuf,
    },
}

/// Runs `kmctl bundle`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { action } = args;
    match action {
        Action::Create(args) => create::run(args, context).await,
        Action::Verify { file } => verify(file, context).await,
        Action::Show { file } => show::show(&file, context),
        Action::Diff { one, other } => show::diff(&one, &other, context),
    }
}

async fn verify(file: PathBuf, context: &Context) -> Result<Code, Failure> {
    let name = file.display().to_string();
    let step = context.progress.step("", &format!("Verifying {name}"));
    let verified = tokio::task::spawn_blocking(move || {
        let bundle = Bundle::open(&file)?;
        bundle.verify(|_| true)?;
        Ok::<_, bundle::BundleError>(bundle.manifest().clone())
    })
    .await?;
    match verified {
        Ok(manifest) => {
            step.done(&format!("Verified {name}: {}", summary(&manifest)));
            if context.settings.output == OutputFormat::Json {
                context.json(&manifest)?;
            }
            Ok(Code::Ok)
        }
        Err(error) => {
            step.failed("failed");
            Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("failed to verify the bundle")))
        }
    }
}

fn summary(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
    format!(
        "Kubernetes {} for {}, {}, {} MiB unpacked",
        manifest.kubernetes,
        manifest.architecture,
        count(manifest.files.len(), "file"),
        bytes >> 20
    )
}
