//! `kmctl kubeconfig`: the administrator's credentials, for kubectl.
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use kube::config::Kubeconfig;

use super::context::{Context, OutputFormat};
use crate::failure::{Code, Failure};
use crate::provision::clients;
use kmctl_core::cluster::Loaded;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Fetches the kubeconfig from the first host that has one.
pub async fn run(args: Args, context: &Context) -> Result<Code, Failure> {
    let Args {} = args;
    let loaded = context.cluster()?;
    let host = clients::connect_ready_host(&context.session, &loaded).await?;
    let Some(found) = clients::admin_conf(host.as_ref()).await? else {
        return Err(clients::no_cluster(host.as_ref()));
    };
    let kubeconfig = complete(&found, &loaded)?;
    let text = match context.settings.output {
        OutputFormat::Text => serde_yaml::to_string(&kubeconfig).context("failed to print the kubeconfig")?,
        OutputFormat::Json => {
            serde_json::to_string_pretty(&kubeconfig).context("failed to print the kubeconfig")? + "\n"
        }
    };
    match &context.settings.out {
        Some(file) => {
            write_private(file, text.as_bytes()).with_context(|| format!("failed to write {}", file.display()))?;
            let file = file.display();
            context.progress.note("", &format!("wrote {file}; use it with `KUBECONFIG={file} kubectl get nodes`"));
        }
        None => context.stdout(&text)?,
    }
    Ok(Code::Ok)
}

/// The kubeconfig with the address that clients use, and with names that distinguish clusters.
fn complete(found: &str, loaded: &Loaded) -> Result<Kubeconfig, Failure> {
    let mut kubeconfig = Kubeconfig::from_yaml(found).context("failed to read the kubeconfig of the host")?;
    let name = &loaded.cluster.metadata.name;
    let server = format!("https://{}", loaded.cluster.spec.control_plane.endpoint);
    for cluster in &mut kubeconfig.clusters {
        cluster.name.clone_from(name);
        if let Some(cluster) = &mut cluster.cluster {
            cluster.server = Some(server.clone());
        }
    }
    let user = format!("{name}-admin");
    for auth in &mut kubeconfig.auth_infos {
        auth.name.clone_from(&user);
    }
    for named in &mut kubeconfig.contexts {
        named.name.clone_from(name);
        if let Some(context) = &mut named.context {
            context.cluster.clone_from(name);
            context.user = Some(user.clone());
        }
    }
    kubeconfig.current_context = Some(name.clone());
    Ok(kubeconfig)
}

/// Replaces the file atomically. It is readable only by its owner from the start.
fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut out = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = out.write_all(content).and_then(|()| out.sync_all()).and_then(|()| std::fs::rename(&temporary, file));
    if written.is_err() {
        // A half-written file is of no use. The first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaces_what_was_there() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("config");
        std::fs::write(&file, "old").unwrap();
        write_private(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_private(&folder.path().join("no/config"), b"").is_err());
    }
}
