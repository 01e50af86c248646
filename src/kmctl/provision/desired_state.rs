//! The state of every host that cluster.yaml and the bundle require.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::bundles;
use crate::failure::{Code, Failure};
use crate::host::{Command, Host};
use crate::plan::{self, Inputs, MESOS_SECRET};
use kmctl_core::bundle::{Bundle, BundleError, Manifest};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::{HostManifest, Item, LIBRARY};

/// The state of the hosts that the operator's files require.
pub struct DesiredState {
    /// The bundle. `None` if it is not available.
    pub bundle: Option<Arc<Bundle>>,
    /// Secret files by their path on the hosts.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Inputs from the operator's machine in addition to cluster.yaml.
    pub inputs: Inputs,
    /// One manifest per host, in cluster.yaml's order.
    pub manifests: Vec<HostManifest>,
}

/// Reads the table of contents of the bundle that cluster.yaml names, else of the one that was created earlier for a
/// cluster.yaml that names none. Returns `None` if the file does not exist or may not be read: another operator
/// continues with what the hosts have. If cluster.yaml has no version, the bundle's version is used.
pub fn open_bundle(loaded: &mut Loaded) -> Result<Option<Bundle>, Failure> {
    let spec = &mut loaded.cluster.spec;
    let Some(path) = spec.bundle.clone().or_else(|| bundles::kept(&spec.kubernetes.version)) else { return Ok(None) };
    let bundle = match Bundle::open(&path) {
        Ok(bundle) => bundle,
        Err(BundleError::File { source, .. })
            if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("failed to open the bundle")));
        }
    };
    if !loaded.says_version {
        spec.kubernetes.version.clone_from(&bundle.manifest().kubernetes);
    }
    check_version(loaded, bundle.manifest(), &path.display().to_string())?;
    Ok(Some(bundle))
}

fn check_version(loaded: &Loaded, manifest: &Manifest, from: &str) -> Result<(), Failure> {
    let (contained, version) = (&manifest.kubernetes, &loaded.cluster.spec.kubernetes.version);
    if contained == version {
        return Ok(());
    }
    let text = format!("bundle {from} contains Kubernetes {contained}, but kubernetes.version is {version}");
    Err(Failure::message(Code::Invalid, text).hint("use the same version in both"))
}

/// Whether `bundle`, or a host, defines what the hosts should have. If not, and cluster.yaml names no bundle, one must
/// be created.
pub(super) async fn is_known(
    bundle: Option<&Bundle>,
    loaded: &Loaded,
    hosts: &[Arc<dyn Host>],
) -> Result<bool, Failure> {
    let is_known = bundle.is_some() || loaded.cluster.spec.bundle.is_some();
    Ok(is_known || found_on(hosts, loaded).await?.is_some())
}

/// The table of contents that was unpacked on a host.
async fn contents_from(hosts: &[Arc<dyn Host>], loaded: &Loaded) -> Result<(Manifest, String), Failure> {
    if let Some(found) = found_on(hosts, loaded).await? {
        return Ok(found);
    }
    let text = match &loaded.cluster.spec.bundle {
        Some(path) => format!("bundle {} does not exist, and no host has its files", path.display()),
        None => format!("no bundle in {}, and no host has the files of one", loaded.path.display()),
    };
    Err(Failure::message(Code::Invalid, text)
        .hint("create one with `kmctl bundle create` and set it in cluster.yaml: `bundle: ./kubernetes.bundle`"))
}

async fn found_on(hosts: &[Arc<dyn Host>], loaded: &Loaded) -> Result<Option<(Manifest, String)>, Failure> {
    let path = format!("{LIBRARY}/{}/manifest.json", loaded.cluster.spec.kubernetes.version);
    for host in hosts {
        let output = host.run(Command::new(["cat", path.as_str()]).privileged()).await?;
        if let (true, Ok(manifest)) = (output.success(), serde_json::from_slice(&output.stdout)) {
            return Ok(Some((manifest, output.text())));
        }
    }
    Ok(None)
}

/// Reads the secrets, and computes every host's manifest.
pub async fn desired_state(
    loaded: &Loaded,
    bundle: Option<Bundle>,
    hosts: &[Arc<dyn Host>],
) -> Result<DesiredState, Failure> {
    let (contents, text) = match &bundle {
        Some(bundle) => (bundle.manifest().clone(), bundle.manifest_text().to_owned()),
        None => contents_from(hosts, loaded).await?,
    };
    desired_state_with(loaded, bundle, contents, text)
}

/// Like [`desired_state`], with a given table of contents.
pub(super) fn desired_state_with(
    loaded: &Loaded,
    bundle: Option<Bundle>,
    contents: Manifest,
    text: String,
) -> Result<DesiredState, Failure> {
    let secret = mesos_secret(loaded)?;
    let inputs = inputs(loaded, contents, text, secret.as_deref())?;
    let manifests = manifests(loaded, &inputs)?;
    let secrets = secret.map(|bytes| (MESOS_SECRET.to_owned(), bytes)).into_iter().collect();
    Ok(DesiredState { bundle: bundle.map(Arc::new), secrets, inputs, manifests })
}

/// A bundle of the required version with nothing in it.
pub fn empty_bundle(loaded: &Loaded) -> Manifest {
    let kubernetes = loaded.cluster.spec.kubernetes.version.clone();
    Manifest { format: 1, kubernetes, architecture: String::new(), components: Vec::new(), files: Vec::new() }
}

/// Inputs from the operator's machine in addition to cluster.yaml.
pub fn inputs(
    loaded: &Loaded,
    bundle: Manifest,
    bundle_text: String,
    secret: Option<&[u8]>,
) -> Result<Inputs, Failure> {
    let mesos_authority = match loaded.cluster.spec.mesos.ca_file.as_str() {
        "" => None,
        file => Some(std::fs::read_to_string(file).with_context(|| format!("failed to read mesos.caFile {file}"))?),
    };
    Ok(Inputs { bundle, bundle_text, mesos_secret: secret.map(digest), mesos_authority })
}

/// Every host's manifest.
pub fn manifests(loaded: &Loaded, inputs: &Inputs) -> Result<Vec<HostManifest>, Failure> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    hosts.iter().map(|host| plan::desired(&loaded.cluster, host, inputs)).collect::<Result<Vec<_>, _>>().map_err(
        |error| {
            Failure::new(
                Code::Invalid,
                anyhow::Error::new(error).context("failed to render the configuration of hosts"),
            )
        },
    )
}

fn digest(mut bytes: &[u8]) -> String {
    // Reading from memory cannot fail.
    kmctl_core::bundle::hex_digest(&mut bytes).map(|(sha256, _)| sha256).unwrap_or_default()
}

/// The principal's secret, without the final line break that editors add. `None` if the file does not exist: the hosts
/// keep theirs.
pub fn mesos_secret(loaded: &Loaded) -> Result<Option<Vec<u8>>, Failure> {
    let file = loaded.cluster.spec.mesos.secret_file.as_str();
    if file.is_empty() {
        return Ok(None);
    }
    match std::fs::read(Path::new(file)) {
        Ok(mut bytes) => {
            while bytes.last().is_some_and(|last| *last == b'\n' || *last == b'\r') {
                bytes.pop();
            }
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(format!("failed to read mesos.secretFile {file}")).into()),
    }
}

/// Sets the bounds of nodes to those in cluster.yaml, whatever was set live.
pub(super) fn reset_scale(desired: &mut DesiredState) {
    for item in desired.manifests.iter_mut().flat_map(|manifest| &mut manifest.items) {
        if let Item::Objects(spec) = item {
            spec.objects.iter_mut().for_each(|object| object.keep = false);
        }
    }
}
