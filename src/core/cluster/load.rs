//! Loads a file into a checked [`Cluster`] with all defaults filled in.
use std::path::{Path, PathBuf};

use super::check::{Findings, check};
use super::problem::{Place, Problem};
use super::schema::{Walked, walk};
use super::spec::{Cluster, HostSpec};
use super::tree::Node;
use crate::text::count;

/// A valid cluster.yaml: defaults filled in, paths absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub path: PathBuf,
    pub cluster: Cluster,
    /// Warnings about what is allowed but probably not intended.
    pub advice: Vec<String>,
    /// Whether the file itself sets `kubernetes.version`; otherwise the bundle's version applies.
    pub says_version: bool,
}

/// Why a cluster.yaml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It is invalid. The message has one line per problem.
    #[error("{}", listed(.path, .problems))]
    Invalid {
        path: PathBuf,
        /// Everything that is wrong.
        problems: Vec<Problem>,
    },
}

fn listed(path: &Path, problems: &[Problem]) -> String {
    let count = count(problems.len(), "problem");
    let lines: Vec<_> = problems.iter().map(|problem| format!("  {problem}")).collect();
    format!("{} has {count}:\n{}", path.display(), lines.join("\n"))
}

/// Reads, checks and completes the file at `path`.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    parse(&read(path)?, path)
}

/// Like [`load`], for a command that needs Mesos alone: `spec.controlPlane` may be absent.
pub fn load_mesos(path: &Path) -> Result<Loaded, LoadError> {
    parse_for(&read(path)?, path, &[CONTROL_PLANE])
}

/// The key that a command may omit if it needs Mesos alone.
const CONTROL_PLANE: &str = "spec.controlPlane";

fn read(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn parse(content: &str, path: &Path) -> Result<Loaded, LoadError> {
    parse_for(content, path, &[])
}

/// `dispensable`: keys that may be absent.
fn parse_for(content: &str, path: &Path, dispensable: &[&str]) -> Result<Loaded, LoadError> {
    let invalid = |problems| LoadError::Invalid { path: path.to_owned(), problems };
    // If the text is not YAML at all, or has a duplicate key, nothing more can be checked.
    let root: Node = serde_yaml::from_str(content).map_err(|error| invalid(vec![syntax(&error)]))?;
    let Walked { mut problems, remainder } = walk(&root);
    let absent: Vec<&str> = dispensable.iter().copied().filter(|key| !root.has(key)).collect();
    problems.retain(|problem| !absent.contains(&problem.key.as_str()));
    let parsed = if problems.is_empty() {
        // Deserialize from the text, where the version `1.30` has not been parsed as a number yet.
        serde_yaml::from_str::<Cluster>(content).map_err(|error| syntax(&error))
    } else {
        serde_json::from_value::<Cluster>(remainder).map_err(|error| Problem {
            place: None,
            key: String::new(),
            text: error.to_string(),
        })
    };
    let mut cluster = match parsed {
        Ok(cluster) => cluster,
        Err(problem) => {
            problems.push(problem);
            return Err(invalid(problems));
        }
    };
    let Findings { problems: wrong, advice } = check(&cluster);
    // Placeholder values of keys that have already been reported must not be reported again.
    let reported: Vec<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    let covers = |reported: &String, key: &str| {
        reported.is_empty()
            || key.strip_prefix(reported.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    problems.extend(
        wrong
            .into_iter()
            .filter(|(key, _)| !absent.iter().any(|absent| key.starts_with(absent)))
            .filter(|(key, _)| !reported.iter().any(|reported| covers(reported, key)))
            .map(|(key, text)| Problem { place: Some(root.place_of(&key)), key, text }),
    );
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.place);
        return Err(invalid(problems));
    }
    complete(&mut cluster, path);
    let says_version = root.has("spec.kubernetes.version");
    Ok(Loaded { path: path.to_owned(), cluster, advice, says_version })
}

fn syntax(error: &serde_yaml::Error) -> Problem {
    let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
    let mut text = error.without_snippet().to_string();
    if let Some(at) = text.rfind(" at line ") {
        // Our own place is printed at the start of the line.
        text.truncate(at);
    }
    if let Some(key) = text.strip_prefix("duplicate mapping key: ") {
        text = format!("duplicate key `{}`", key.split(',').next().unwrap_or(key));
    }
    Problem { place, key: String::new(), text }
}

/// Fills in the defaults that depend on other keys, and resolves paths relative to the file's directory.
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
    for file in
        [&mut spec.mesos.secret_file, &mut spec.mesos.ca_file, &mut spec.ssh.identity_file, &mut spec.ssh.known_hosts]
    {
        resolve(file, &folder);
    }
    // An empty string means none, as for other keys.
    spec.bundle = spec.bundle.take().filter(|bundle| !bundle.as_os_str().is_empty()).map(|bundle| folder.join(bundle));
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

/// Expands `~/` to the operator's home directory; any other path is relative to the directory of cluster.yaml.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest valid file.
    const LEAST: &str = "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata: { name: demo }
spec:
  mesos: { master: \"10.0.0.5:5050\" }
  controlPlane:
    endpoint: 10.0.0.11:6443
    hosts:
      - { address: 10.0.0.11 }
";

    fn told(content: &str) -> String {
        parse(content, Path::new("/c/cluster.yaml")).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_least_file_gets_every_default_filled_in() {
        let loaded = parse(LEAST, Path::new("/c/cluster.yaml")).unwrap();
        insta::with_settings!({ filters => vec![(r"known_hosts: .*", "known_hosts: [home]"), (r#""[^"]*/.ssh/known_hosts""#, "[home]")] }, {
            insta::assert_debug_snapshot!(loaded.cluster);
        });
        assert!(loaded.advice.is_empty());
    }

    #[test]
    fn a_command_that_needs_mesos_alone_does_without_a_control_plane_but_not_with_half_of_one() {
        let path = Path::new("/c/cluster.yaml");
        let (before, _) = LEAST.split_once("  controlPlane").unwrap();
        let loaded = parse_for(before, path, &[CONTROL_PLANE]).unwrap();
        assert!(loaded.cluster.spec.control_plane.hosts.is_empty());
        assert!(parse(before, path).is_err());
        let half = format!("{before}  controlPlane: {{ endpoint: 10.0.0.11:6443 }}\n");
        assert!(parse_for(&half, path, &[CONTROL_PLANE]).is_err());
        assert!(parse_for(LEAST, path, &[CONTROL_PLANE]).is_ok());
    }

    #[test]
    fn paths_are_relative_to_the_file_and_home_is_home() {
        let more = LEAST
            .replace("5050\" }", "5050\", principal: p, secretFile: secret }\n  ssh: { identityFile: ~/key, knownHosts: /k }\n  bundle: ../b");
        let loaded = parse(&more, Path::new("/c/cluster.yaml")).unwrap();
        let spec = loaded.cluster.spec;
        assert_eq!(spec.mesos.secret_file, "/c/secret");
        assert_eq!(spec.ssh.known_hosts, "/k");
        assert_eq!(
            Some(spec.ssh.identity_file),
            std::env::home_dir().map(|home| home.join("key").display().to_string())
        );
        assert_eq!(spec.bundle, Some(PathBuf::from("/c/../b")));
        let none = parse(&more.replace("../b", "\"\""), Path::new("/c/cluster.yaml")).unwrap();
        assert_eq!(none.cluster.spec.bundle, None);
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_place() {
        insta::assert_snapshot!(told(
            "\
apiVersion: kmctl.io/v1
kind: Cluster
metadata: { name: Demo_1, labels: {} }
spec:
  mesos:
    master: [zk://10.0.0.5:2181/mesos, 10.0.0.6, http://10.0.0.7:5050]
    roles: [a/, dev, dev]
    principal: kmctl
    caFile: ca.pem
  hosts: []
  ssh: { user: ops, prot: 22, sudo: nopassword, connectTimeout: 10, jump: [b1, 'ops@b2:ssh'] }
  controlPlane:
    endpiont: 10.0.0.11:6443
    hosts:
      - { address: 10.0.0.300, name: cp1 }
      - { address: 10.96.0.4, name: cp1, hostKey: MD5:aa, ssh: { port: 0, sudo: password } }
      - { name: cp3 }
  kubernetes: { version: 1.30, serviceCidr: 10.96.0.0/16, nodePortRange: 30000 }
  nodes:
    min: 3
    max: 2
    idleTimeout: soon
    overhead: { cpu: 1m, memory: 512Mb }
    podDefaults: { cpu: 250m }
    constraints: [{ attribute: rack, in: [] }]
    rootDir: var/lib
  network: { mode: overlay, podCIDR: 10.96.1.0/16, proxyMode: nftable }
"
        ));
    }

    #[test]
    fn values_of_the_wrong_type_are_told_with_what_was_wanted() {
        insta::assert_snapshot!(told(
            "\
apiVersion: kmctl.io/v1alpha1
kind: Cluster
metadata: demo
spec:
  mesos: { master: { address: a }, roles: kubernetes, user: }
  ssh: [root]
  controlPlane:
    endpoint: [a]
    hosts: { address: 10.0.0.11 }
  nodes: { min: two, max: -1 }
"
        ));
    }

    #[test]
    fn what_is_no_yaml_or_no_cluster_is_told() {
        for (name, content) in [
            ("empty", ""),
            ("list", "- a\n"),
            ("tab", "a:\n\tb: 1\n"),
            ("twice", "kind: Cluster\nkind: Cluster\n"),
            ("open", "metadata: { name: \n"),
        ] {
            insta::assert_snapshot!(name, told(content));
        }
    }

    #[test]
    fn networks_and_hosts_must_not_meet() {
        let content =
            LEAST.to_owned() + "  kubernetes: { serviceCIDR: 10.0.0.0/16 }\n  network: { podCIDR: 10.0.128.0/20 }\n";
        insta::assert_snapshot!(told(&content));
    }

    #[test]
    fn an_even_count_and_a_login_without_sudo_are_only_advised_against() {
        let content = LEAST.replace(
            "- { address: 10.0.0.11 }",
            "- { address: 10.0.0.11, ssh: { user: ops } }\n      - { address: 10.0.0.12 }",
        );
        let loaded = parse(&content, Path::new("/c/cluster.yaml")).unwrap();
        insta::assert_debug_snapshot!(loaded.advice);
    }
}
