//! `kmctl bundle create`: out of a directory, or out of what upstream releases.
use std::path::{Path, PathBuf};

use super::summary;
use crate::cli::context::Context;
use crate::cli::failure::{Code, Failure};
use crate::upstream::{Download, FetchError, Fetched, Mirror, download};
use kmctl_core::bundle::{self, BundleError};
use kmctl_core::k8s::{Components, Version, supported};

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

/// The environment's default of `--mirror`.
pub(super) const MIRROR: &str = "KMCTL_MIRROR";

/// Runs `kmctl bundle create`.
pub(super) async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args { kubernetes, architecture, mirror, lock, folder } = args;
    let out = context.settings.out.clone();
    match folder {
        Some(folder) => {
            let Some(out) = out else {
                return Err(Failure::message(Code::Usage, "no file to write the bundle to")
                    .hint(format!("kmctl bundle create --kubernetes {kubernetes} --out FILE DIR")));
            };
            components(&kubernetes, Code::Usage)?;
            pack(folder, kubernetes, architecture, out, context).await
        }
        None => {
            let components = components(&kubernetes, Code::Usage)?;
            let out = out.unwrap_or_else(|| PathBuf::from(format!("kubernetes-{kubernetes}.bundle")));
            let lock = lock.unwrap_or_else(|| lock_of(&out));
            let mirror = parse(mirror)?;
            let cache = cache()?.join("downloads");
            let what = Download { kubernetes, components, architecture, mirror, out, lock, cache };
            let made = fetch(&what, context).await?;
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
    let step = context.progress.step("", &format!("make {}", out.display()));
    let progress = context.progress.clone();
    // Packing keeps a processor busy for seconds; Ctrl-C must still be heard.
    let manifest = tokio::task::spawn_blocking(move || {
        bundle::create(&folder, &kubernetes, &architecture, &out, |path| progress.note("pack", path))
    });
    match manifest.await? {
        Ok(manifest) => {
            step.done(&summary(&manifest));
            Ok(Code::Ok)
        }
        Err(error) => {
            step.failed("not made");
            Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("make the bundle")))
        }
    }
}

/// Downloads a bundle, and says where the lock is.
pub(super) async fn fetch(what: &Download, context: &Context) -> Result<Fetched, Failure> {
    if let Some(mirror) = &what.mirror {
        context.progress.note("", &format!("downloading from {mirror}"));
    }
    let made = download(what, &context.progress).await.map_err(failure)?;
    let lock = what.lock.display();
    let text = if made.was_locked { format!("{lock}: checked") } else { format!("{lock}: written") };
    context.progress.note("", &text);
    Ok(made)
}

fn failure(error: FetchError) -> Failure {
    let invalid =
        error.is_lock() || matches!(&error, FetchError::Bundle { source: BundleError::NotABundle { .. }, .. });
    let code = if invalid { Code::Invalid } else { Code::Failed };
    let hint = error.hint();
    let failure = Failure::new(code, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What is paired with `kubernetes`.
pub(super) fn components(kubernetes: &str, code: Code) -> Result<Components, Failure> {
    let version: Version = kubernetes.parse().map_err(|_| {
        let failure = Failure::message(code, format!("`{kubernetes}` is no version of Kubernetes"));
        let with = format!("v{kubernetes}");
        failure.hint(match with.parse::<Version>() {
            Ok(_) => format!("write it with its v: {with}"),
            Err(_) => "write it as v1.37.2".to_owned(),
        })
    })?;
    Components::of(version).map_err(|error| {
        let hint = format!("use a version of {}", supported().replace(" and ", " or "));
        Failure::new(code, error).hint(hint)
    })
}

/// The mirror that was asked for.
pub(super) fn parse(mirror: Option<String>) -> Result<Option<Mirror>, Failure> {
    let mirror = mirror.filter(|mirror| !mirror.is_empty()).map(|mirror| mirror.parse()).transpose();
    mirror.map_err(|error| Failure::new(Code::Usage, error).hint(format!("correct --mirror or {MIRROR}")))
}

/// The lock beside a bundle.
pub(super) fn lock_of(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Where this user's downloads and bundles are kept (XDG Base Directory Specification).
pub(super) fn cache() -> Result<PathBuf, Failure> {
    let of_user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache =
        of_user.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| {
        Failure::message(Code::Failed, "there is no home directory to keep downloads in")
            .hint("set HOME or XDG_CACHE_HOME to a directory with 1 GB of space")
    })?;
    Ok(cache.join("kmctl"))
}
