//! The state of control-plane hosts, read with one command per host.
use std::collections::BTreeSet;
use std::time::Duration;

use super::{etcd_data, ownership};
use crate::host::{Command, Host, HostError};
use kmctl_core::protocol::host::{
    DataState, EtcdData, FORMAT, HostManifest, Item, KM, Observations, Observed, Ownership, Planned, SYSTEMD,
};

/// Why a host's state is not known.
#[derive(Debug, thiserror::Error)]
pub enum HostInventoryError {
    /// The host could not be queried.
    #[error("failed to inspect {host}")]
    Host {
        host: String,
        #[source]
        source: HostError,
    },
    /// The answer could not be understood.
    #[error("failed to inspect {host}: {answer}")]
    Answer {
        host: String,
        /// What it printed.
        answer: String,
    },
}

/// What was found on a host.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each control-plane host")]
pub enum Found {
    /// `km host inspect` has compared it.
    Observed(Box<Observations>),
    /// There is no `km` to run. A shell printed what exists.
    Bare(Bare),
}

/// What a shell finds on a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bare {
    /// Paths of the manifest that exist.
    pub existing: BTreeSet<String>,
    /// Whose the host is.
    pub ownership: Ownership,
    /// etcd's data.
    pub etcd_data: EtcdData,
}

impl Found {
    /// Whose the host is.
    pub fn ownership(&self) -> &Ownership {
        match self {
            Found::Bare(found) => &found.ownership,
            Found::Observed(found) => &found.ownership,
        }
    }

    /// What was found of etcd's data.
    pub fn etcd_data(&self) -> &EtcdData {
        match self {
            Found::Bare(found) => &found.etcd_data,
            Found::Observed(found) => &found.etcd_data,
        }
    }

    /// Whether the host has been a member of etcd and has its data.
    pub fn has_etcd_data(&self, manifest: &HostManifest) -> bool {
        match self {
            Found::Bare(found) => found.etcd_data.state() == DataState::Present,
            Found::Observed(found) => {
                let mut items = manifest.items.iter().zip(&found.items);
                items.any(|(item, found)| item.planned() == Planned::Membership && found.observed.is_same())
            }
        }
    }

    /// Whether units of the cluster are on the host, running or not. If so, the host is, or was to be, a part of the
    /// cluster already.
    pub fn has_units(&self, manifest: &HostManifest) -> bool {
        let is_unit = |item: &Item| item.paths().iter().any(|path| path.starts_with(SYSTEMD));
        match self {
            Found::Bare(found) => found.existing.iter().any(|path| path.starts_with(SYSTEMD)),
            Found::Observed(found) => {
                let mut items = manifest.items.iter().zip(&found.items);
                items.any(|(item, found)| is_unit(item) && found.observed != Observed::Missing)
            }
        }
    }
}

/// Hashing all files of a bundle that was unpacked by other means takes a while on a slow disk.
const INSPECT: Duration = Duration::from_secs(120);

/// Runs `km` if it is installed, else the shell, which can only print what exists and whose the host is. Both read the
/// same input, so that one command works for either. `$1` is km, the other arguments are paths.
const LOOK: &str = r#"km=$1; shift
if [ -x "$km" ]; then exec "$km" host inspect; fi
cat >/dev/null
echo bare
ownership
etcd_data
for path in "$@"; do if [ -e "$path" ]; then echo "$path"; fi; done"#;

/// Compares the host with its manifest. Changes nothing.
pub async fn look(host: &dyn Host, manifest: &HostManifest) -> Result<Found, HostInventoryError> {
    let output = run(host, manifest, KM).await?;
    if let Some(found) = read(host, &output, manifest)? {
        return Ok(found);
    }
    // A km of another version may not know this manifest. Until km is replaced, knowing which paths exist must suffice.
    let output = run(host, manifest, "/nonexistent").await?;
    read(host, &output, manifest)?
        .ok_or_else(|| HostInventoryError::Answer { host: host.name().to_owned(), answer: output })
}

async fn run(host: &dyn Host, manifest: &HostManifest, km: &str) -> Result<String, HostInventoryError> {
    let script = format!("{}{}{LOOK}", ownership::shell(), etcd_data::shell());
    let mut argv: Vec<String> = ["sh", "-c", &script, "sh", km].map(str::to_owned).to_vec();
    argv.extend(manifest.items.iter().flat_map(|item| {
        let mut paths = item.paths();
        paths.push(item.name());
        paths.retain(|path| path.starts_with('/'));
        paths
    }));
    let stdin = serde_json::to_vec(manifest).unwrap_or_default();
    let command = Command::new(argv).privileged().stdin(stdin).timeout(INSPECT);
    let output =
        host.run(command).await.map_err(|source| HostInventoryError::Host { host: host.name().to_owned(), source })?;
    // A km that does not know the manifest fails. What it printed is then no answer.
    Ok(if output.success() { output.text() } else { output.last_words() })
}

fn read(host: &dyn Host, text: &str, manifest: &HostManifest) -> Result<Option<Found>, HostInventoryError> {
    if let Some(lines) = text.strip_prefix("bare\n") {
        let mut found = Bare::default();
        for line in lines.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            let known = !key.starts_with('/')
                && (ownership::take(&mut found.ownership, key, value)
                    .map_err(|answer| HostInventoryError::Answer { host: host.name().to_owned(), answer })?
                    || etcd_data::take(&mut found.etcd_data, key, value));
            if !known {
                found.existing.insert(line.to_owned());
            }
        }
        return Ok(Some(Found::Bare(found)));
    }
    let Ok(observations) = serde_json::from_str::<Observations>(text) else { return Ok(None) };
    let fits = observations.format == FORMAT && observations.items.len() == manifest.items.len();
    Ok(fits.then(|| Found::Observed(Box::new(observations))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    fn manifest() -> HostManifest {
        HostManifest {
            format: FORMAT,
            cluster: "demo".to_owned(),
            host: "cp1".to_owned(),
            version: "v1.37.2".to_owned(),
            items: Vec::new(),
        }
    }

    #[tokio::test]
    async fn one_command_tells_a_bare_host_from_one_with_km() {
        let host = FakeHost::new("cp1").answers("host inspect", 0, "bare\n/etc/kubernetes\n");
        let found = look(&host, &manifest()).await.unwrap();
        let existing = BTreeSet::from(["/etc/kubernetes".to_owned()]);
        assert_eq!(found, Found::Bare(Bare { existing, ..Bare::default() }));
        assert_eq!(host.calls().len(), 1);
        assert!(host.calls()[0].privileged);
    }

    #[tokio::test]
    async fn a_km_that_does_not_understand_is_passed_over() {
        let host = FakeHost::new("cp1").answers("host inspect", 1, "").answers("/nonexistent", 0, "bare\n");
        assert_eq!(look(&host, &manifest()).await.unwrap(), Found::Bare(Bare::default()));
        assert_eq!(host.calls().len(), 2);
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_an_error() {
        let host = FakeHost::new("cp1").answers("host inspect", 0, "hello");
        assert!(look(&host, &manifest()).await.is_err());
    }
}
