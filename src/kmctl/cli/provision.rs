//! What `up`, `plan`, `render` and `down` have in common: reading what is wanted, and looking at the hosts.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::bundle;
use super::context::Context;
use super::failure::{Code, Failure};
use super::gather::Sight;
use super::reach;
use crate::apply::{ApplyError, Limits, Work, km_beside_kmctl};
use crate::host::{Command, Host};
use crate::inventory::Found;
use crate::plan::{self, Circumstances, Inputs, MESOS_SECRET, Plan, PlanError};
use anyhow::Context as _;
use kmctl_core::bundle::{Bundle, BundleError, Manifest};
use kmctl_core::cluster::Loaded;
use kmctl_core::protocol::host::{Holder, HostManifest, Item, LIBRARY};
use tokio::task::JoinHandle;

/// What is wanted, out of the operator's files.
pub(crate) struct Wanted {
    pub(crate) bundle: Option<Arc<Bundle>>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) inputs: Inputs,
    pub(crate) manifests: Vec<HostManifest>,
}

/// A host, what it should have, and what was found there.
pub(crate) type Seen = (Arc<dyn Host>, HostManifest, Found);

/// Reads the table of contents of the bundle that cluster.yaml names, else of the one that was made for such files before.
/// None where there is no such file, or it is not ours to read: another operator goes on with what the hosts have. Where
/// cluster.yaml says no version, the bundle's is taken.
pub(crate) fn open_bundle(loaded: &mut Loaded) -> Result<Option<Bundle>, Failure> {
    let spec = &mut loaded.cluster.spec;
    let Some(path) = spec.bundle.clone().or_else(|| bundle::kept(&spec.kubernetes.version)) else { return Ok(None) };
    let bundle = match Bundle::open(&path) {
        Ok(bundle) => bundle,
        Err(BundleError::File { source, .. })
            if matches!(source.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Failure::new(Code::Invalid, anyhow::Error::new(error).context("open the bundle"))),
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
    let text = format!("the bundle {from} holds Kubernetes {contained}, and kubernetes.version is {version}");
    Err(Failure::message(Code::Invalid, text).hint("write the same version in both places"))
}

/// Whether `bundle`, or a host, says what the hosts should have; if not, and cluster.yaml names no bundle, one has to be
/// made.
pub(crate) async fn is_known(
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
        Some(path) => format!("the bundle {} is not here, and no host has it yet", path.display()),
        None => format!("{} names no bundle, and no host has one yet", loaded.path.display()),
    };
    Err(Failure::message(Code::Invalid, text)
        .hint("make one with `kmctl bundle create`, and name it in cluster.yaml: `bundle: ./kubernetes.bundle`"))
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

/// Reads the secrets, and works out every host's manifest.
pub(crate) async fn wanted(
    loaded: &Loaded,
    bundle: Option<Bundle>,
    hosts: &[Arc<dyn Host>],
) -> Result<Wanted, Failure> {
    let (contents, text) = match &bundle {
        Some(bundle) => (bundle.manifest().clone(), bundle.manifest_text().to_owned()),
        None => contents_from(hosts, loaded).await?,
    };
    wanted_with(loaded, bundle, contents, text)
}

/// As [`wanted`], with a table of contents that is already at hand.
pub(crate) fn wanted_with(
    loaded: &Loaded,
    bundle: Option<Bundle>,
    contents: Manifest,
    text: String,
) -> Result<Wanted, Failure> {
    let secret = optional(&loaded.cluster.spec.mesos.secret_file)?;
    let inputs = inputs(loaded, contents, text, secret.as_deref())?;
    let manifests = manifests(loaded, &inputs)?;
    let secrets = secret.map(|bytes| (MESOS_SECRET.to_owned(), bytes)).into_iter().collect();
    Ok(Wanted { bundle: bundle.map(Arc::new), secrets, inputs, manifests })
}

/// A bundle of the wanted version with nothing in it.
pub(crate) fn empty_bundle(loaded: &Loaded) -> Manifest {
    let kubernetes = loaded.cluster.spec.kubernetes.version.clone();
    Manifest { format: 1, kubernetes, architecture: String::new(), components: Vec::new(), files: Vec::new() }
}

/// What comes from the operator's machine beside cluster.yaml.
pub(crate) fn inputs(
    loaded: &Loaded,
    bundle: Manifest,
    bundle_text: String,
    secret: Option<&[u8]>,
) -> Result<Inputs, Failure> {
    let mesos_authority = match loaded.cluster.spec.mesos.ca_file.as_str() {
        "" => None,
        file => Some(std::fs::read_to_string(file).with_context(|| format!("read mesos.caFile {file}"))?),
    };
    Ok(Inputs { bundle, bundle_text, mesos_secret: secret.map(digest), mesos_authority })
}

/// Every host's manifest.
pub(crate) fn manifests(loaded: &Loaded, inputs: &Inputs) -> Result<Vec<HostManifest>, Failure> {
    let hosts = &loaded.cluster.spec.control_plane.hosts;
    hosts.iter().map(|host| plan::desired(&loaded.cluster, host, inputs)).collect::<Result<Vec<_>, _>>().map_err(
        |error| Failure::new(Code::Invalid, anyhow::Error::new(error).context("work out what hosts should have")),
    )
}

fn digest(mut bytes: &[u8]) -> String {
    // Reading out of memory cannot fail.
    kmctl_core::bundle::hex_digest(&mut bytes).map(|(sha256, _)| sha256).unwrap_or_default()
}

/// The secret without the line's end that editors add; none where there is no such file: the hosts keep theirs.
pub(crate) fn optional(file: &str) -> Result<Option<Vec<u8>>, Failure> {
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
        Err(error) => Err(anyhow::Error::new(error).context(format!("read mesos.secretFile {file}")).into()),
    }
}

/// Lets the bounds of nodes be what cluster.yaml says, whatever was set live.
pub(crate) fn reset_scale(wanted: &mut Wanted) {
    for item in wanted.manifests.iter_mut().flat_map(|manifest| &mut manifest.items) {
        if let Item::Objects { objects, .. } = item {
            objects.iter_mut().for_each(|object| object.keep = false);
        }
    }
}

/// Decides what is to be done. Where only hosts that may still come can tell whether there is a cluster, they are waited
/// for.
///
/// # Errors
/// Why there is no plan, after a line for each host that failed.
pub(crate) async fn decide(
    context: &Context,
    loaded: &Loaded,
    sight: &mut Sight,
    km: &str,
    allow_remove: bool,
) -> Result<Plan, Failure> {
    loop {
        let mut circumstances = Circumstances { unseen: sight.unseen(), allow_remove, ..Circumstances::default() };
        let mut decided = decide_for(&sight.seen, km, &circumstances);
        if decided.as_ref().is_ok_and(Plan::begins) && !circumstances.unseen.is_empty() {
            circumstances.framework = framework(context, loaded, sight).await?;
            decided = decide_for(&sight.seen, km, &circumstances);
        }
        match decided {
            Err(error) if error.needs_others() && !sight.late.is_empty() => {
                let names: Vec<&str> = sight.late.iter().map(|(manifest, _)| manifest.host.as_str()).collect();
                context.progress.note("", &format!("waiting for {}: {error}", names.join(", ")));
                let order: Vec<&str> =
                    loaded.cluster.spec.control_plane.hosts.iter().map(|host| host.name.as_str()).collect();
                sight.wait_for_late(&order).await;
            }
            Err(error) => {
                sight.tell_failed(context);
                return Err(no_plan(loaded, error));
            }
            Ok(plan) => return Ok(plan),
        }
    }
}

fn decide_for(seen: &[Seen], km: &str, circumstances: &Circumstances) -> Result<Plan, PlanError> {
    let hosts: Vec<(HostManifest, Found)> =
        seen.iter().map(|(_, manifest, found)| (manifest.clone(), found.clone())).collect();
    plan::decide(&hosts, km, circumstances)
}

/// The id of the cluster's framework, if Mesos has one: then the cluster lives, whatever was seen of it.
async fn framework(context: &Context, loaded: &Loaded, sight: &Sight) -> Result<Option<String>, Failure> {
    let Some((host, _, _)) = sight.seen.first() else { return Ok(None) };
    let master = reach::master(host.clone(), loaded).await.map_err(|failure| {
        sight.tell_failed(context);
        let (text, hint) = reach::obstacle(&failure);
        let text = format!("not all hosts answered, and Mesos cannot be asked whether the cluster lives: {text}");
        Failure::message(Code::Failed, text).hint(hint)
    })?;
    Ok(master.frameworks.into_iter().next().map(|framework| framework.id))
}

fn no_plan(loaded: &Loaded, error: PlanError) -> Failure {
    let (code, hint) = match &error {
        PlanError::Upgrade { .. } => (
            Code::Invalid,
            "run `kmctl down` and then `kmctl up`: etcd's data, keys and settings stay, pods do not".to_owned(),
        ),
        PlanError::Network { found, .. } => (
            Code::Invalid,
            format!("write `network: {{ mode: {found} }}`, or begin anew: `kmctl down --purge`, then `kmctl up`"),
        ),
        PlanError::NoSecret { .. } => {
            (Code::Invalid, "put the principal's secret into the file that mesos.secretFile names".to_owned())
        }
        PlanError::NoMajority { unseen, .. } => {
            (Code::SomeHosts, format!("make {} reachable, or take what is lost out of cluster.yaml", unseen.join(", ")))
        }
        PlanError::Founder { unseen, .. } => (
            Code::SomeHosts,
            format!(
                "make {} reachable; if etcd's data are lost for good, begin anew: `kmctl down --purge`, then `kmctl up`",
                unseen.join(", ")
            ),
        ),
        PlanError::Unnamed { founder } => (
            Code::Invalid,
            format!("write {founder} into cluster.yaml, or begin anew: `kmctl down --purge`, then `kmctl up`"),
        ),
        PlanError::Elsewhere { framework, unseen } => (
            Code::SomeHosts,
            format!(
                "make {} reachable; if etcd's data are lost for good, end the framework: `curl -d frameworkId={framework} \
                 {}/teardown`",
                unseen.join(", "),
                loaded.cluster.spec.mesos.master.0.first().map(String::as_str).unwrap_or_default()
            ),
        ),
        PlanError::NoQuorum { lost, .. } => (
            Code::Failed,
            format!(
                "get the disk of {} back; else save `/var/lib/kmctl/snapshots` of the other hosts and begin anew: `kmctl \
                 down --purge`, then `kmctl up`",
                lost.join(" or ")
            ),
        ),
        PlanError::TwoClusters { hosts: [one, other] } => (
            Code::Failed,
            format!(
                "decide whose data stay; on the host that loses them, {one} or {other}, run `systemctl stop etcd && rm -r \
                 /var/lib/etcd/member`: `kmctl up` then lets it join"
            ),
        ),
    };
    Failure::new(code, error).hint(hint)
}

/// What every host's run has in common.
pub(crate) fn work(context: &Context, wanted: &Wanted, km: Km, command: &str, limits: Limits) -> Work {
    Work {
        bundle: wanted.bundle.clone(),
        secrets: wanted.secrets.clone(),
        km,
        holder: holder(command),
        progress: context.progress.clone(),
        limits,
        verified: Arc::default(),
    }
}

/// A program's file and its sha256.
pub(crate) type Km = (std::path::PathBuf, String);

/// The `km` that goes with this kmctl.
pub(crate) fn km() -> Result<Km, Failure> {
    km_beside_kmctl().map_err(|error| Failure::from(error).hint("install `km` in the folder that holds `kmctl`"))
}

/// [`km`] on a thread of its own: what is hashed has tens of megabytes, and the hosts answer meanwhile.
pub(crate) fn km_meanwhile() -> JoinHandle<Result<Km, Failure>> {
    tokio::task::spawn_blocking(km)
}

/// What [`km_meanwhile`] has found.
pub(crate) async fn taken(km: JoinHandle<Result<Km, Failure>>) -> Result<Km, Failure> {
    km.await.context("hash km")?
}

/// Who runs this, for the lock.
pub(crate) fn holder(command: &str) -> Holder {
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let machine = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Holder { operator: format!("{user}@{machine}"), command: command.to_owned(), ..Holder::default() }
}

/// One failure out of all hosts' failures, of `hosts` hosts; the others are told before it.
pub(crate) fn failed(context: &Context, errors: Vec<ApplyError>, hosts: usize) -> Failure {
    let count = errors.len();
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Failure::message(Code::Failed, "failed") };
    for error in errors {
        let causes: Vec<String> = anyhow::Error::new(error).chain().map(ToString::to_string).collect();
        context.progress.note("", &causes.join(": "));
    }
    match &first {
        ApplyError::Locked { .. } => {
            Failure::new(Code::Locked, first).hint("wait until the other run has ended, then run this again")
        }
        ApplyError::NoBundle { .. } => Failure::new(Code::Invalid, first)
            .hint("put the bundle where cluster.yaml names it: `bundle: ./kubernetes.bundle`"),
        ApplyError::Bundle(_) => Failure::new(Code::Invalid, first).hint("make the bundle anew: `kmctl bundle create`"),
        ApplyError::Unreachable { source, .. } => {
            // A login that was refused says itself what to do.
            let known = source.hint().is_some();
            let failure = Failure::new(if count < hosts { Code::SomeHosts } else { Code::Failed }, first);
            if known { failure } else { failure.hint("run this again when the host can be reached") }
        }
        _ if count < hosts => Failure::new(Code::SomeHosts, first).hint("run this again: it goes on where it stopped"),
        _ => Failure::new(Code::Failed, first).hint("run this again: it goes on where it stopped"),
    }
}
