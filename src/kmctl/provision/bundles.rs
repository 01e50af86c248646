//! Bundles of upstream's releases: those that were requested, and those that `kmctl` creates by itself for a
//! cluster.yaml that names none and keeps in the user's cache.
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::session::Session;
use crate::failure::{Code, Failure};
use crate::upstream::{Download, FetchError, Fetched, Mirror, download};
use kmctl_core::bundle::{Bundle, BundleError};
use kmctl_core::k8s::{Components, Version, supported};
use kmctl_core::progress::Progress;

/// The environment variable with the default of `--mirror`.
pub const MIRROR: &str = "KMCTL_MIRROR";

/// The name of this machine's architecture in releases. Hosts have the same: they run the `km` beside this kmctl.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn path(kubernetes: &str) -> Result<PathBuf, Failure> {
    Ok(cache()?.join("bundles").join(format!("kubernetes-{kubernetes}-{}.bundle", architecture())))
}

/// The bundle that was created before. `None` if there is none, or no cache directory.
pub(super) fn kept(kubernetes: &str) -> Option<PathBuf> {
    path(kubernetes).ok().filter(|path| path.exists())
}

/// Creates the bundle of `kubernetes` from upstream's releases, unless it exists already.
pub async fn make(session: &Session, kubernetes: &str) -> Result<Bundle, Failure> {
    let components = components(kubernetes, Code::Invalid)?;
    let out = path(kubernetes)?;
    let folder = out.parent().unwrap_or(&out);
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create directory {}", folder.display()))?;
    // Another run may be creating it, too: the second one uses the first one's result.
    let _turn = turn(folder.join(".lock")).await?;
    if !out.exists() {
        let text =
            format!("no bundle in cluster.yaml; creating {} from the Kubernetes {kubernetes} release", out.display());
        session.progress.note("", &text);
        let what = Download {
            kubernetes: kubernetes.to_owned(),
            components,
            architecture: architecture().to_owned(),
            mirror: mirror_of(std::env::var(MIRROR).ok())?,
            lock: lock_of(&out),
            out: out.clone(),
            cache: cache()?.join("downloads"),
        };
        fetch(&what, &session.progress).await?;
    }
    let opened = Bundle::open(&out);
    Ok(opened.with_context(|| format!("failed to open {}", out.display()))?)
}

/// Locks the directory of bundles until dropped.
async fn turn(path: PathBuf) -> Result<File, Failure> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.with_context(|| format!("failed to lock {}", path.display()))
    });
    Ok(locked.await??)
}

/// Downloads a bundle, and reports where the lock is.
pub async fn fetch(what: &Download, progress: &Progress) -> Result<Fetched, Failure> {
    if let Some(mirror) = &what.mirror {
        progress.note("", &format!("downloading from {mirror}"));
    }
    let made = download(what, progress).await.map_err(failure)?;
    let lock = what.lock.display();
    let text = if made.was_locked { format!("verified against {lock}") } else { format!("created {lock}") };
    progress.note("", &text);
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

/// The components that are paired with `kubernetes`.
pub fn components(kubernetes: &str, code: Code) -> Result<Components, Failure> {
    let version: Version = kubernetes.parse().map_err(|_| {
        let failure = Failure::message(code, format!("`{kubernetes}` is not a Kubernetes version"));
        let with = format!("v{kubernetes}");
        failure.hint(match with.parse::<Version>() {
            Ok(_) => format!("write it as {with}"),
            Err(_) => "write it as v1.37.2".to_owned(),
        })
    })?;
    Components::of(version).map_err(|error| {
        let hint = format!("use a version of {}", supported().replace(" and ", " or "));
        Failure::new(code, error).hint(hint)
    })
}

/// The requested mirror.
pub fn mirror_of(mirror: Option<String>) -> Result<Option<Mirror>, Failure> {
    let mirror = mirror.filter(|mirror| !mirror.is_empty()).map(|mirror| mirror.parse()).transpose();
    mirror.map_err(|error| Failure::new(Code::Usage, error).hint(format!("correct --mirror or {MIRROR}")))
}

/// The path of the lock beside a bundle.
pub fn lock_of(bundle: &Path) -> PathBuf {
    let mut name = bundle.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// The directory for this user's downloads and bundles (XDG Base Directory Specification).
pub fn cache() -> Result<PathBuf, Failure> {
    let of_user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache =
        of_user.or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| {
        Failure::message(Code::Failed, "no home directory for downloads")
            .hint("set HOME or XDG_CACHE_HOME to a directory with 1 GB free")
    })?;
    Ok(cache.join("kmctl"))
}
