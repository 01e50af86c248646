//! From a path to a checked [`Cluster`] with nothing left to fill in.
use std::path::{Path, PathBuf};

use super::problem::{Place, Problem};
use super::spec::{Cluster, HostSpec};

/// A cluster.yaml that is in order: defaults filled in, paths absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The file.
    pub path: PathBuf,
    /// Its content.
    pub cluster: Cluster,
    /// What is allowed but worth a thought.
    pub advice: Vec<String>,
}

/// Why a cluster.yaml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It is not in order. The problems stand one per line.
    #[error("{}", listed(.path, .problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
}

fn listed(path: &Path, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let lines: Vec<_> = problems.iter().map(|problem| format!("  {problem}")).collect();
    format!("{} has {count}:\n{}", path.display(), lines.join("\n"))
}

/// Reads, checks and completes the file at `path`.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let content =
        std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    parse(&content, path)
}

fn parse(content: &str, path: &Path) -> Result<Loaded, LoadError> {
    let invalid = |problems| LoadError::Invalid { path: path.to_owned(), problems };
    let mut cluster: Cluster = serde_yaml::from_str(content).map_err(|error| {
        let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
        invalid(vec![Problem { place, key: String::new(), text: error.without_snippet().to_string() }])
    })?;
    complete(&mut cluster, path);
    Ok(Loaded { path: path.to_owned(), cluster, advice: Vec::new() })
}

/// Fills in the defaults that depend on other keys, and resolves paths against the file's folder.
fn complete(cluster: &mut Cluster, path: &Path) {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let name = cluster.metadata.name.clone();
    let spec = &mut cluster.spec;
    if spec.mesos.framework_name.is_empty() {
        spec.mesos.framework_name = format!("kubernetes-{name}");
    }
    if spec.nodes.root_dir.is_empty() {
        spec.nodes.root_dir = format!("/var/lib/kmctl/{name}");
    }
    for file in [&mut spec.mesos.secret_file, &mut spec.mesos.ca_file, &mut spec.ssh.identity_file, &mut spec.ssh.known_hosts] {
        resolve(file, &folder);
    }
    if let Some(bundle) = &mut spec.bundle {
        *bundle = folder.join(&*bundle);
    }
    for host in &mut spec.control_plane.hosts {
        complete_host(host, &folder);
    }
}

fn complete_host(host: &mut HostSpec, folder: &Path) {
    if host.name.is_empty() {
        host.name.clone_from(&host.address);
    }
    if let Some(ssh) = &mut host.ssh {
        for file in [&mut ssh.identity_file, &mut ssh.known_hosts].into_iter().flatten() {
            resolve(file, folder);
        }
    }
}

/// `~/` is the operator's home; anything else is relative to the folder of cluster.yaml.
fn resolve(file: &mut String, folder: &Path) {
    if file.is_empty() {
        return;
    }
    let resolved = match (file.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => folder.join(&*file),
    };
    *file = resolved.to_string_lossy().into_owned();
}
