//! `kmctl bundle`: makes and verifies bundles.
use std::path::PathBuf;

use super::context::{Context, OutputFormat};
use super::failure::{Code, Failure};
use crate::bundle::{self, Bundle, Manifest};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Pack a folder with bin/, cni/ and images/ into one verified archive (needs --out)
    Create {
        /// Version of Kubernetes in the folder, e.g. v1.37.2
        #[arg(long, value_name = "VERSION")]
        kubernetes: String,
        /// Architecture of the programs
        #[arg(long, default_value = "amd64", value_parser = ["amd64", "arm64"])]
        architecture: String,
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Compare every file of a bundle with its manifest
    Verify {
        /// The bundle
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs `kmctl bundle`.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { action } = args;
    match action {
        Action::Create { kubernetes, architecture, folder } => {
            let Some(out) = context.settings.out.clone() else {
                return Err(Failure::message(Code::Usage, "no file to write the bundle to")
                    .hint(format!("kmctl bundle create --kubernetes {kubernetes} --out FILE DIR")));
            };
            if !kubernetes.starts_with('v') {
                return Err(Failure::message(Code::Usage, format!("`{kubernetes}` is no version of Kubernetes"))
                    .hint(format!("write it with its v: v{kubernetes}")));
            }
            let step = context.progress.step("", &format!("make {}", out.display()));
            let manifest = {
                let out = out.clone();
                let progress = context.progress.clone();
                // Packing keeps a processor busy for seconds; Ctrl-C must still be heard.
                tokio::task::spawn_blocking(move || {
                    bundle::create(&folder, &kubernetes, &architecture, &out, |path| progress.note("pack", path))
                })
                .await?
            };
            match manifest {
                Ok(manifest) => step.done(&summary(&manifest)),
                Err(error) => {
                    step.failed("not made");
                    return Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("make the bundle")));
                }
            }
        }
        Action::Verify { file } => {
            let step = context.progress.step("", &format!("verify {}", file.display()));
            let verified = tokio::task::spawn_blocking(move || {
                let bundle = Bundle::open(&file)?;
                bundle.verify(|_| true)?;
                Ok::<_, bundle::BundleError>(bundle.manifest().clone())
            })
            .await?;
            match verified {
                Ok(manifest) => {
                    step.done(&summary(&manifest));
                    if context.settings.output == OutputFormat::Json {
                        context.json(&manifest)?;
                    }
                }
                Err(error) => {
                    step.failed("failed");
                    return Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("verify the bundle")));
                }
            }
        }
    }
    Ok(Code::Ok)
}

fn summary(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
    format!(
        "Kubernetes {} for {}, {} files, {} MB unpacked",
        manifest.kubernetes,
        manifest.architecture,
        manifest.files.len(),
        bytes / 1_000_000
    )
}
