//! Bundles that `kmctl` makes by itself for a cluster.yaml that names none, kept in the user's cache.
use std::fs::File;
use std::path::PathBuf;

use anyhow::Context as _;

use super::create::{MIRROR, cache, components, fetch, lock_of, parse};
use crate::cli::context::Context;
use crate::cli::failure::{Code, Failure};
use crate::upstream::Download;
use kmctl_core::bundle::Bundle;

/// What releases call this machine's architecture. Hosts have the same: they run the `km` that lies beside this kmctl.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn path(kubernetes: &str) -> Result<PathBuf, Failure> {
    Ok(cache()?.join("bundles").join(format!("kubernetes-{kubernetes}-{}.bundle", architecture())))
}

/// The bundle that was made before; none where there is none, or nowhere to keep one.
pub(crate) fn kept(kubernetes: &str) -> Option<PathBuf> {
    path(kubernetes).ok().filter(|path| path.exists())
}

/// Makes the bundle of `kubernetes` out of upstream's releases, unless that was done before.
pub(crate) async fn make(kubernetes: &str, context: &Context) -> Result<Bundle, Failure> {
    let components = components(kubernetes, Code::Invalid)?;
    let out = path(kubernetes)?;
    let folder = out.parent().unwrap_or(&out);
    std::fs::create_dir_all(folder).with_context(|| format!("failed to create directory {}", folder.display()))?;
    // Another run may be making it, too: the second one takes what the first has made.
    let _turn = turn(folder.join(".lock")).await?;
    if !out.exists() {
        let text = format!(
            "cluster.yaml names no bundle: creating one of Kubernetes {kubernetes} from upstream's releases; it is kept as {}",
            out.display()
        );
        context.progress.note("", &text);
        let what = Download {
            kubernetes: kubernetes.to_owned(),
            components,
            architecture: architecture().to_owned(),
            mirror: parse(std::env::var(MIRROR).ok())?,
            lock: lock_of(&out),
            out: out.clone(),
            cache: cache()?.join("downloads"),
        };
        fetch(&what, context).await?;
    }
    let opened = Bundle::open(&out);
    Ok(opened.with_context(|| format!("failed to open {}", out.display()))?)
}

/// Holds the directory of bundles until it is dropped.
async fn turn(path: PathBuf) -> Result<File, Failure> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.with_context(|| format!("failed to lock {}", path.display()))
    });
    Ok(locked.await??)
}
