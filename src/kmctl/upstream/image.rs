//! Images: what a registry has under a tag for one architecture, and the archive that containerd imports.
//!
//! The library handles the parts of the registry's protocol that are more than a GET: challenges, tokens, manifests and
//! their digests. Blobs are downloaded like any other file (`transfer`), so that they resume, and are cached and shown
//! in the same way.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde::Deserialize;
use serde_json::json;

use super::error::FetchError;
use super::lock::{Lock, LockedFile, LockedImage};
use super::mirror::{Mirror, Registry};
use super::parts::ImagePart;
use super::transfer::{Wanted, told};
use kmctl_core::bundle::create::IMAGE_NAME;
use kmctl_core::bundle::pack;

/// How often a manifest is requested at most.
const ATTEMPTS: u32 = 5;

/// Pause after the first attempt.
const PAUSE: Duration = Duration::from_millis(500);

/// The media types that a tag may refer to.
const ACCEPTED: [&str; 4] =
    [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE];

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    digest: String,
    kind: String,
    bytes: Vec<u8>,
}

/// An image whose blobs are still to be downloaded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image {
    part: ImagePart,
    /// What the tag refers to, and the manifest if that is an index.
    documents: Vec<Document>,
    blobs: Vec<Blob>,
    registry: Registry,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Blob {
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parsed {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Entry>,
    #[serde(default)]
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Resolves `part` for `architecture`. If there is a lock, the tag must still refer to the locked digest.
pub(super) async fn resolve(
    part: &ImagePart,
    architecture: &str,
    mirror: Option<&Mirror>,
    lock: Option<(&Lock, &Path)>,
) -> Result<Image, FetchError> {
    let registry = Registry::of(mirror, part.registry, part.repository);
    let failed = |why: String| FetchError::Image { image: part.name(), registry: registry.host.clone(), why };
    let config = ClientConfig {
        protocol: if registry.secure { ClientProtocol::Https } else { ClientProtocol::Http },
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(30)),
        user_agent: concat!("kmctl/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    let client = Client::try_from(config).map_err(|error| failed(error.to_string()))?;
    let (host, repository) = (registry.host.clone(), registry.repository.clone());
    let by_tag = Reference::with_tag(host.clone(), repository.clone(), part.tag.clone());
    let by_digest = |digest: &str| Reference::with_digest(host.clone(), repository.clone(), digest.to_owned());
    let locked = lock.and_then(|(lock, path)| Some((lock.image(&part.name())?, path)));
    let token = attempts(|| client.auth(&by_tag, &RegistryAuth::Anonymous, RegistryOperation::Pull));
    let token = token.await.map_err(|error| failed(reason(&error)))?;
    let pull = async |reference: &Reference| {
        attempts(|| client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &ACCEPTED)).await
    };
    let (bytes, digest) = match (pull(&by_tag).await, locked) {
        (Ok(pulled), _) => pulled,
        // A copy made by digest has no tags.
        (Err(error), Some((locked, _))) if is_missing(&error) => {
            pull(&by_digest(&locked.digest)).await.map_err(|error| failed(reason(&error)))?
        }
        (Err(error), _) => return Err(failed(reason(&error))),
    };
    if let Some((locked, path)) = locked.filter(|(locked, _)| locked.digest != digest) {
        return Err(FetchError::Changed {
            url: part.name(),
            published: digest,
            origin: registry.host,
            locked: locked.digest.clone(),
            lock: path.to_owned(),
        });
    }
    let top = parse(&bytes).map_err(&failed)?;
    let mut documents = vec![document(&top, &bytes, &digest)];
    let manifest = if top.manifests.is_empty() {
        top
    } else {
        let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
        let entry = top.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(fits));
        let entry = entry.ok_or_else(|| failed(format!("no manifest for linux/{architecture}")))?;
        let (bytes, digest) = pull(&by_digest(&entry.digest)).await.map_err(|error| failed(reason(&error)))?;
        let manifest = parse(&bytes).map_err(&failed)?;
        documents.push(document(&manifest, &bytes, &digest));
        manifest
    };
    let config = manifest.config.ok_or_else(|| failed("the manifest has no configuration".to_owned()))?;
    let mut blobs = vec![config];
    blobs.extend(manifest.layers);
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    blobs.dedup();
    if let Some(blob) = blobs.iter().find(|blob| sha256(&blob.digest).is_none()) {
        return Err(failed(format!("the manifest has an invalid digest `{}`", blob.digest)));
    }
    Ok(Image { part: part.clone(), documents, blobs, registry, token })
}

fn sha256(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| super::checksums::is_digest(hex))
}

fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("invalid response from the registry: {error}"))
}

fn document(parsed: &Parsed, bytes: &[u8], digest: &str) -> Document {
    let is_index = !parsed.manifests.is_empty();
    let assumed = if is_index { OCI_IMAGE_INDEX_MEDIA_TYPE } else { OCI_IMAGE_MEDIA_TYPE };
    let kind = parsed.media_type.clone().unwrap_or_else(|| assumed.to_owned());
    Document { digest: digest.to_owned(), kind, bytes: bytes.to_vec() }
}

/// Retries if that may help.
async fn attempts<T>(mut one: impl AsyncFnMut() -> Result<T, OciDistributionError>) -> Result<T, OciDistributionError> {
    let mut failed = 0;
    loop {
        match one().await {
            Err(OciDistributionError::RequestError(_)) if failed + 1 < ATTEMPTS => {}
            Err(OciDistributionError::ServerError { code, .. }) if failed + 1 < ATTEMPTS && code >= 500 => {}
            ended => return ended,
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(failed)).await;
        failed += 1;
    }
}

fn is_missing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NotFound)),
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        _ => false,
    }
}

/// The reason, in one line.
fn reason(error: &OciDistributionError) -> String {
    let text = match error {
        OciDistributionError::RequestError(error) => told(error),
        OciDistributionError::ServerError { code: 404, url, .. } => format!("{url} does not exist (HTTP 404)"),
        OciDistributionError::ServerError { code, url, .. } => format!("{url} was refused with HTTP {code}"),
        OciDistributionError::RegistryError { envelope, url } => {
            let all: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
            format!("{url}: {}", all.join(", "))
        }
        other => other.to_string(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

impl Image {
    /// The blobs to download.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let upstream = Registry::of(None, self.part.registry, self.part.repository);
        let number = self.blobs.len();
        let wanted = |(index, blob): (usize, &Blob)| Wanted {
            url: upstream.blob(&blob.digest),
            at: Some(self.registry.blob(&blob.digest)),
            label: format!("{} {} of {number}", self.part.component, index + 1),
            sha256: sha256(&blob.digest).unwrap_or_default().to_owned(),
            origin: format!("the manifest of {}", self.part.name()),
            size: Some(blob.size),
            token: self.token.clone(),
            of: (self.part.component.to_owned(), self.part.tag.clone()),
        };
        self.blobs.iter().enumerate().map(wanted).collect()
    }

    /// The image's entry for a lock.
    pub(super) fn locked(&self) -> LockedImage {
        let file =
            |wanted: Wanted| LockedFile { url: wanted.url, sha256: wanted.sha256, size: wanted.size, checksum: None };
        LockedImage {
            name: self.part.name(),
            digest: self.documents.first().map(|top| top.digest.clone()).unwrap_or_default(),
            blobs: self.wanted().into_iter().map(file).collect(),
        }
    }

    /// Path in a bundle.
    pub(super) fn path(&self) -> String {
        format!("images/{}.tar", self.part.component)
    }

    /// The image's names once it is imported: by tag, and by the digest of upstream's index.
    pub(super) fn names(&self) -> Vec<String> {
        let digest = self.documents.first().map(|top| top.digest.as_str()).unwrap_or_default();
        vec![self.part.name(), format!("{}@{digest}", self.part.repository_name())]
    }

    /// Creates an archive for `ctr images import` (containerd/containerd:core/images/archive/importer.go): an OCI
    /// layout whose index names upstream's index. Blobs of other platforms may be missing from it. `blobs` are the
    /// files of [`Image::wanted`]. The archive is an unnamed file in `folder`.
    pub(super) fn archive(&self, blobs: &[PathBuf], folder: &Path) -> io::Result<File> {
        let mut archive = tar::Builder::new(tempfile::tempfile_in(folder)?);
        let mut all: BTreeMap<&str, Source> = BTreeMap::new();
        all.extend(self.documents.iter().map(|one| (one.digest.as_str(), Source::Bytes(&one.bytes))));
        all.extend(self.blobs.iter().zip(blobs).map(|(blob, file)| (blob.digest.as_str(), Source::File(file))));
        for (digest, source) in all {
            let path = format!("blobs/sha256/{}", sha256(digest).unwrap_or(digest));
            match source {
                Source::Bytes(bytes) => append(&mut archive, &path, bytes)?,
                Source::File(file) => {
                    let file = File::open(file)?;
                    archive.append_data(&mut pack::header(file.metadata()?.len()), &path, file)?;
                }
            }
        }
        let described = |top: &Document, name: String| {
            let annotations = json!({ IMAGE_NAME: name });
            json!({ "mediaType": top.kind, "digest": top.digest, "size": top.bytes.len(), "annotations": annotations })
        };
        let top = self.documents.first().into_iter();
        let descriptors: Vec<_> =
            top.flat_map(|top| self.names().into_iter().map(move |name| described(top, name))).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_IMAGE_INDEX_MEDIA_TYPE, "manifests": descriptors });
        append(&mut archive, "index.json", index.to_string().as_bytes())?;
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut file = archive.into_inner()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }
}

enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a PathBuf),
}

fn append(archive: &mut tar::Builder<File>, path: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut pack::header(bytes.len() as u64), path, bytes)
}
