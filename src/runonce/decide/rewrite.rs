//! The changes that km makes to a pod before a kubelet without an API server gets it. ConfigMaps and secrets become
//! files on the run's tmpfs that are mounted as hostPath, variables from them become plain values, and the pod ends
//! when its containers do. The kubelet itself is unmodified: it would refuse all three, because it has no API server to
//! query.
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, HostPathVolumeSource, KeyToPath, Pod, PodSpec, Secret, VolumeProjection,
};

use super::documents::key_of;
use kmctl_core::protocol::runonce::GivenPod;

/// Mode of a configMap's or secret's file if none is given; the same as upstream.
const DEFAULT_MODE: i32 = 0o644;

/// A file to write before the pod starts.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// Absolute path.
    pub path: PathBuf,
    /// May be a secret.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Group of the file, if the pod requests one.
    pub group: Option<u32>,
}

impl std::fmt::Debug for GivenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {:o})", self.path.display(), self.content.len(), self.mode)
    }
}

/// The input of a kubelet.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    pub pod: Pod,
    /// Directories that must exist, even if they contain no file.
    pub folders: Vec<PathBuf>,
    /// Files to write before the pod starts.
    pub files: Vec<GivenFile>,
}

/// A part of a pod that cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct RewriteError {
    /// Path of the field.
    pub place: String,
    /// What is wrong with the field.
    pub text: String,
}

fn wrong(place: &str, text: impl Into<String>) -> RewriteError {
    RewriteError { place: place.to_owned(), text: text.into() }
}

/// One place where a pod refers to a configMap or secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct References {
    /// Path of the field.
    pub place: String,
    /// True for a secret, false for a configMap.
    pub secret: bool,
    pub name: String,
    /// Keys that are referenced individually.
    pub keys: Vec<String>,
    /// Whether the configMap, secret or key may be missing.
    pub optional: bool,
}

/// Every place where a pod refers to a configMap or secret.
pub fn references(spec: &PodSpec) -> Vec<References> {
    let mut found = Vec::new();
    let keys = |items: &Option<Vec<KeyToPath>>| items.iter().flatten().map(|item| item.key.clone()).collect::<Vec<_>>();
    let mut note = |place: String, secret: bool, name: &str, keys: Vec<String>, optional: Option<bool>| {
        found.push(References { place, secret, name: name.to_owned(), keys, optional: optional == Some(true) });
    };
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let place = format!("spec.volumes[{index}]");
        if let Some(source) = &volume.config_map {
            note(place.clone(), false, &source.name, keys(&source.items), source.optional);
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            note(place.clone(), true, name, keys(&source.items), source.optional);
        }
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for (index, source) in sources.enumerate() {
            let place = format!("{place}.projected.sources[{index}]");
            if let Some(source) = &source.config_map {
                note(place.clone(), false, &source.name, keys(&source.items), source.optional);
            }
            if let Some(source) = &source.secret {
                note(place.clone(), true, &source.name, keys(&source.items), source.optional);
            }
        }
    }
    let lists = [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&spec.containers[..]))];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let place = format!("spec.{list}[{index}]");
            for (index, from) in container.env_from.iter().flatten().enumerate() {
                let place = format!("{place}.envFrom[{index}]");
                if let Some(source) = &from.config_map_ref {
                    note(place.clone(), false, &source.name, Vec::new(), source.optional);
                }
                if let Some(source) = &from.secret_ref {
                    note(place, true, &source.name, Vec::new(), source.optional);
                }
            }
            for (index, variable) in container.env.iter().flatten().enumerate() {
                let place = format!("{place}.env[{index}]");
                let Some(from) = &variable.value_from else { continue };
                if let Some(source) = &from.config_map_key_ref {
                    note(place.clone(), false, &source.name, vec![source.key.clone()], source.optional);
                }
                if let Some(source) = &from.secret_key_ref {
                    note(place, true, &source.name, vec![source.key.clone()], source.optional);
                }
            }
        }
    }
    found
}

/// Rewrites a pod so that a kubelet can run it without an API server. `folder`: the pod's own directory on the run's
/// tmpfs.
pub fn rewrite(given: &GivenPod, folder: &Path) -> Result<Rewritten, RewriteError> {
    let GivenPod { uid, pod, config_maps, secrets } = given;
    let mut pod = pod.clone();
    let sources = Sources { config_maps, secrets };
    let (namespace, name) = key_of(&pod.metadata);
    pod.metadata.uid = Some(uid.clone());
    pod.metadata.namespace = Some(namespace);
    pod.status = None;
    let metadata = pod.metadata.clone();
    let mut out = Rewritten { pod: Pod::default(), folders: Vec::new(), files: Vec::new() };
    let Some(spec) = &mut pod.spec else { return Err(wrong("spec", "is missing")) };
    if spec.restart_policy.as_deref().is_none_or(|policy| policy == "Always") {
        spec.restart_policy = Some("Never".to_owned());
    }
    // The kubelet appends its own name to a static pod's name, and would derive the hostname from the result.
    if spec.hostname.is_none() && name.len() <= 63 && !name.contains('.') {
        spec.hostname = Some(name.clone());
    }
    spec.enable_service_links = Some(false);
    (spec.service_account_name, spec.service_account, spec.automount_service_account_token) = (None, None, None);
    let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    let mut given_volumes = Vec::new();
    for (index, volume) in spec.volumes.iter_mut().flatten().enumerate() {
        let place = format!("spec.volumes[{index}]");
        let to = folder.join("volumes").join(&volume.name);
        let mut files = Files { place: &place, folder: &to, group, out: &mut out.files };
        if let Some(source) = volume.config_map.take() {
            let entries = sources.config_map(&place, &source.name, source.optional)?;
            files.add(&entries, source.items.as_deref(), source.default_mode, source.optional)?;
        } else if let Some(source) = volume.secret.take() {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let entries = sources.secret(&place, name, source.optional)?;
            files.add(&entries, source.items.as_deref(), source.default_mode, source.optional)?;
        } else if let Some(projected) = volume.projected.take() {
            for source in projected.sources.iter().flatten() {
                project(&sources, source, projected.default_mode, &metadata, &mut files)?;
            }
        } else {
            continue;
        }
        volume.host_path =
            Some(HostPathVolumeSource { path: to.display().to_string(), type_: Some("Directory".to_owned()) });
        given_volumes.push(volume.name.clone());
        out.folders.push(to);
    }
    let lists = [("initContainers", spec.init_containers.as_mut()), ("containers", Some(&mut spec.containers))];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            environment(&format!("spec.{list}[{index}]"), container, &sources, &name)?;
            for mount in container.volume_mounts.iter_mut().flatten() {
                if given_volumes.contains(&mount.name) {
                    mount.read_only = Some(true);
                }
            }
        }
    }
    out.pod = pod;
    Ok(out)
}

/// The available configMaps and secrets.
struct Sources<'a> {
    config_maps: &'a [ConfigMap],
    secrets: &'a [Secret],
}

type Entries = BTreeMap<String, Vec<u8>>;

impl Sources<'_> {
    fn config_map(&self, place: &str, name: &str, optional: Option<bool>) -> Result<Entries, RewriteError> {
        match self.config_maps.iter().find(|map| map.metadata.name.as_deref() == Some(name)) {
            Some(map) => {
                let texts = map.data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
                let bytes = map.binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
                Ok(texts.chain(bytes).collect())
            }
            None if optional == Some(true) => Ok(Entries::new()),
            None => Err(wrong(place, format!("configMap `{name}` not found"))),
        }
    }

    fn secret(&self, place: &str, name: &str, optional: Option<bool>) -> Result<Entries, RewriteError> {
        match self.secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name)) {
            Some(secret) => {
                Ok(secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect())
            }
            None if optional == Some(true) => Ok(Entries::new()),
            None => Err(wrong(place, format!("secret `{name}` not found"))),
        }
    }
}

/// Destination of a volume's files.
struct Files<'a> {
    place: &'a str,
    folder: &'a Path,
    group: Option<u32>,
    out: &'a mut Vec<GivenFile>,
}

impl Files<'_> {
    fn add(
        &mut self,
        entries: &Entries,
        items: Option<&[KeyToPath]>,
        default_mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<(), RewriteError> {
        let default = default_mode.unwrap_or(DEFAULT_MODE);
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return entries.iter().try_for_each(|(key, content)| self.file(key, content.clone(), default));
        };
        for item in items {
            match entries.get(&item.key) {
                Some(content) => self.file(&item.path, content.clone(), item.mode.unwrap_or(default))?,
                None if optional == Some(true) => {}
                None => return Err(wrong(self.place, format!("key `{}` not found", item.key))),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str, content: Vec<u8>, mode: i32) -> Result<(), RewriteError> {
        let relative = Path::new(path);
        if path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(wrong(self.place, format!("path `{path}` is outside of the volume")));
        }
        let mode = u32::try_from(mode).unwrap_or_default() & 0o777;
        // As upstream: members of fsGroup may read the file.
        let mode = if self.group.is_some() { mode | 0o440 } else { mode };
        self.out.push(GivenFile { path: self.folder.join(relative), content, mode, group: self.group });
        Ok(())
    }
}

fn project(
    sources: &Sources<'_>,
    source: &VolumeProjection,
    default_mode: Option<i32>,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    files: &mut Files<'_>,
) -> Result<(), RewriteError> {
    if let Some(source) = &source.config_map {
        let entries = sources.config_map(files.place, &source.name, source.optional)?;
        files.add(&entries, source.items.as_deref(), default_mode, source.optional)?;
    }
    if let Some(source) = &source.secret {
        let entries = sources.secret(files.place, &source.name, source.optional)?;
        files.add(&entries, source.items.as_deref(), default_mode, source.optional)?;
    }
    for file in source.downward_api.iter().flat_map(|all| all.items.iter().flatten()) {
        let field = file.field_ref.as_ref().map(|field| field.field_path.as_str()).unwrap_or_default();
        let listed = |map: &Option<BTreeMap<String, String>>| {
            map.iter().flatten().map(|(key, value)| format!("{key}={value:?}\n")).collect::<String>()
        };
        let text = match field {
            "metadata.labels" => listed(&metadata.labels),
            "metadata.annotations" => listed(&metadata.annotations),
            _ => plain_field(metadata, field)
                .ok_or_else(|| wrong(files.place, format!("`{field}` is supported only in downwardAPI volumes")))?,
        };
        files.file(&file.path, text.into_bytes(), file.mode.or(default_mode).unwrap_or(DEFAULT_MODE))?;
    }
    Ok(())
}

/// A field of the pod that is known before the pod runs.
fn plain_field(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, field: &str) -> Option<String> {
    let keyed = |map: &Option<BTreeMap<String, String>>, rest: &str| {
        let key = rest.strip_prefix("['")?.strip_suffix("']")?;
        map.as_ref().and_then(|map| map.get(key)).cloned().or_else(|| Some(String::new()))
    };
    match field {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        _ => match (field.strip_prefix("metadata.labels"), field.strip_prefix("metadata.annotations")) {
            (Some(rest), _) => keyed(&metadata.labels, rest),
            (_, Some(rest)) => keyed(&metadata.annotations, rest),
            _ => None,
        },
    }
}

/// Turns envFrom and references into plain variables, in the kubelet's order: envFrom first, `env` takes precedence.
fn environment(
    place: &str,
    container: &mut Container,
    sources: &Sources<'_>,
    pod_name: &str,
) -> Result<(), RewriteError> {
    let mut from = BTreeMap::new();
    for (index, source) in container.env_from.take().into_iter().flatten().enumerate() {
        let place = format!("{place}.envFrom[{index}]");
        let prefix = source.prefix.unwrap_or_default();
        let mut entries = Entries::new();
        if let Some(source) = &source.config_map_ref {
            entries.extend(sources.config_map(&place, &source.name, source.optional)?);
        }
        if let Some(source) = &source.secret_ref {
            entries.extend(sources.secret(&place, &source.name, source.optional)?);
        }
        for (key, content) in entries {
            let name = format!("{prefix}{key}");
            // Keys that are not valid names are omitted, as the kubelet does.
            if is_variable(&name) {
                from.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
    }
    let mut own = Vec::new();
    for (index, mut variable) in container.env.take().into_iter().flatten().enumerate() {
        let place = format!("{place}.env[{index}]");
        if let Some(source) = variable.value_from.take() {
            let found = if let Some(key) = &source.config_map_key_ref {
                let entries = sources.config_map(&place, &key.name, key.optional)?;
                Some((entries.get(&key.key).cloned(), &key.key, key.optional))
            } else if let Some(key) = &source.secret_key_ref {
                let entries = sources.secret(&place, &key.name, key.optional)?;
                Some((entries.get(&key.key).cloned(), &key.key, key.optional))
            } else {
                None
            };
            let named = source.field_ref.as_ref().is_some_and(|field| field.field_path == "metadata.name");
            match found {
                Some((Some(content), ..)) => {
                    variable.value = Some(literal(&String::from_utf8_lossy(&content)));
                }
                Some((None, _, Some(true))) => continue,
                Some((None, key, _)) => return Err(wrong(&place, format!("key `{key}` not found"))),
                // The name of a static pod ends with the kubelet's name.
                None if named => variable.value = Some(literal(pod_name)),
                None => variable.value_from = Some(source),
            }
        }
        own.push(variable);
    }
    let kept = from.into_iter().filter(|(name, _)| !own.iter().any(|variable| variable.name == *name));
    let first = kept.map(|(name, value)| EnvVar { name, value: Some(literal(&value)), value_from: None });
    let all: Vec<EnvVar> = first.collect::<Vec<_>>().into_iter().chain(own).collect();
    container.env = (!all.is_empty()).then_some(all);
    Ok(())
}

/// Escapes a plain value: the kubelet replaces `$(NAME)` by another variable, and `$$` by `$`.
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}

fn is_variable(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | '.');
    name.chars().next().is_some_and(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
