//! From a version to a bundle: resolve what is published, download it, pack it.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::archive::{self, ArchiveError};
use super::checksums;
use super::error::FetchError;
use super::image::{self, Image};
use super::lock::{Lock, LockedFile};
use super::mirror::Mirror;
use super::parts::{self, ImagePart, Part, Take};
use super::transfer::{Transfers, Wanted};
use kmctl_core::bundle::pack::Packer;
use kmctl_core::bundle::{BundleError, Manifest};
use kmctl_core::k8s::Components;
use kmctl_core::progress::Progress;
use kmctl_core::text::count;

/// Concurrent downloads. More do not make a link faster, and servers limit connections.
const AT_ONCE: usize = 4;

/// What to create.
#[derive(Clone, Debug)]
pub struct Download {
    /// Version of Kubernetes, e.g. `v1.37.2`.
    pub kubernetes: String,
    /// The versions that are paired with it, unless a lock has others.
    pub components: Components,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// A site's copy of upstream.
    pub mirror: Option<Mirror>,
    /// Path of the bundle.
    pub out: PathBuf,
    /// Path of the lock: read if it exists, written in the end.
    pub lock: PathBuf,
    /// Directory in which downloads are kept.
    pub cache: PathBuf,
}

/// What was created.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The bundle's table of contents.
    pub manifest: Manifest,
    /// Whether there was a lock. If so, it was honoured.
    pub was_locked: bool,
}

/// A file whose sha256 is known.
struct Known {
    part: Part,
    wanted: Wanted,
    /// Where the sha256 was published, if it was.
    checksum: Option<String>,
}

/// Creates the bundle. On an error no bundle is written and an earlier one is left unchanged. Downloaded files are
/// kept.
///
/// # Errors
/// What could not be downloaded or is not what upstream published, or a local file that could not be written.
pub async fn download(what: &Download, progress: &Progress) -> Result<Fetched, FetchError> {
    let Download { kubernetes, components, architecture, mirror, out, lock: lock_path, cache } = what;
    let lock = Lock::read(lock_path)?;
    if let Some(lock) = &lock {
        lock.fits(lock_path, kubernetes, architecture)?;
    }
    let components = lock.as_ref().and_then(|lock| lock.components.clone()).unwrap_or_else(|| components.clone());
    // Two runs that write the same partial file would damage it.
    let _turn = turn(cache, progress).await?;
    let transfers = Transfers::new(mirror.clone(), cache.clone(), progress.clone())?;
    let locked = lock.as_ref().map(|lock| (lock, lock_path.as_path()));
    let described = parts::described(kubernetes, &components, architecture);
    let step = progress.step("", "Resolving checksums and images");
    let version = |component: &str| {
        let described = described.iter().find(|described| described.name == component);
        described.map(|described| described.version.clone()).unwrap_or_default()
    };
    let known = stream::iter(parts::parts(kubernetes, &components, architecture))
        .map(|part| {
            let version = version(part.component);
            known(part, version, &transfers, locked, lock_path)
        })
        .buffered(AT_ONCE)
        .try_collect::<Vec<Known>>();
    let images = stream::iter(parts::images(&components))
        .map(|part: ImagePart| async move { image::resolve(&part, architecture, mirror.as_ref(), locked).await })
        .buffered(AT_ONCE)
        .try_collect::<Vec<Image>>();
    let (known, images) = match tokio::try_join!(known, images) {
        Ok(found) => found,
        Err(error) => {
            step.failed("failed");
            return Err(error);
        }
    };
    step.done(&format!("Resolved {} and {}", count(known.len(), "file"), count(images.len(), "image")));

    let wanted: Vec<Wanted> =
        known.iter().map(|known| known.wanted.clone()).chain(images.iter().flat_map(Image::wanted)).collect();
    let files: Vec<PathBuf> =
        stream::iter(&wanted).map(|wanted| transfers.file(wanted)).buffered(AT_ONCE).try_collect().await?;

    let new = Lock {
        format: 1,
        kubernetes: kubernetes.clone(),
        architecture: architecture.clone(),
        components: Some(components),
        files: known.iter().zip(&files).map(|(known, file)| locked_file(known, file)).collect::<Result<_, _>>()?,
        images: images.iter().map(Image::locked).collect(),
    };
    let step = progress.step("", &format!("Packing {}", out.display()));
    let packing = Packing { known, images, files, described };
    let (out, kubernetes, architecture) = (out.clone(), kubernetes.clone(), architecture.clone());
    let lock_path = lock_path.clone();
    let packed = tokio::task::spawn_blocking(move || {
        let write = |source| FetchError::File { what: "write", path: lock_path.clone(), source };
        let (packer, described) = packing.pack(&out)?;
        // The lock first: without it, the next bundle could be made of something else.
        new.write(&lock_path).map_err(write)?;
        let made = packer.finish(&kubernetes, &architecture, described);
        made.map_err(|source| FetchError::Bundle { out, source })
    });
    let packed = packed.await.unwrap_or_else(|error| {
        let source = BundleError::File { what: "pack", path: what.out.clone(), source: std::io::Error::other(error) };
        Err(FetchError::Bundle { out: what.out.clone(), source })
    });
    match packed {
        Ok(manifest) => {
            step.done(&format!("Packed {}", what.out.display()));
            Ok(Fetched { manifest, was_locked: lock.is_some() })
        }
        Err(error) => {
            step.failed("failed");
            Err(error)
        }
    }
}

/// Locks the cache until dropped.
async fn turn(cache: &Path, progress: &Progress) -> Result<Arc<File>, FetchError> {
    let path = cache.join(".lock");
    let failed = |source| FetchError::File { what: "lock", path: path.clone(), source };
    std::fs::create_dir_all(cache).map_err(failed)?;
    let file = Arc::new(File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?);
    if file.try_lock().is_ok() {
        return Ok(file);
    }
    progress.note("", &format!("waiting for another kmctl that downloads to {}", cache.display()));
    let waiting = file.clone();
    let waited = tokio::task::spawn_blocking(move || waiting.lock()).await;
    waited.map_err(std::io::Error::other).flatten().map_err(failed)?;
    Ok(file)
}

/// What upstream publishes about a file, which must match the lock.
async fn known(
    part: Part,
    version: String,
    transfers: &Transfers,
    lock: Option<(&Lock, &Path)>,
    lock_path: &Path,
) -> Result<Known, FetchError> {
    let of = (part.component.to_owned(), version);
    let locked = lock.and_then(|(lock, path)| Some((lock.file(&part.url)?, path)));
    let text = transfers.text(&part.checksum).await?;
    let published = match text {
        Some(text) => Some(checksums::digest_of(part.name(), &text).ok_or_else(|| FetchError::NoChecksum {
            checksum: transfers.address(&part.checksum),
            name: part.name().to_owned(),
        })?),
        None => None,
    };
    let (sha256, origin) = match (published.clone(), locked) {
        (Some(published), Some((locked, lock))) if published != locked.sha256 => {
            return Err(FetchError::Changed {
                url: part.url.clone(),
                published,
                origin: transfers.address(&part.checksum),
                locked: locked.sha256.clone(),
                lock: lock.to_owned(),
            });
        }
        (Some(published), _) => (published, transfers.address(&part.checksum)),
        (None, Some((locked, lock))) => (locked.sha256.clone(), lock.display().to_string()),
        (None, None) if transfers.exists(&part.url).await? => {
            let (url, checksum) = (part.url.clone(), transfers.address(&part.checksum));
            return Err(FetchError::Unpinned { url, checksum, lock: lock_path.to_owned() });
        }
        (None, None) => {
            let (url, (component, version)) = (transfers.address(&part.url), of);
            return Err(FetchError::Missing { url, status: 404, component, version });
        }
    };
    let wanted = Wanted {
        url: part.url.clone(),
        at: None,
        label: part.name().to_owned(),
        sha256,
        origin,
        size: locked.and_then(|(locked, _)| locked.size),
        token: None,
        of,
    };
    // The URL is upstream's even if a mirror lacks the checksum.
    let checksum = match published {
        Some(_) => Some(part.checksum.clone()),
        None => locked.and_then(|(locked, _)| locked.checksum.clone()),
    };
    Ok(Known { part, wanted, checksum })
}

fn locked_file(known: &Known, file: &Path) -> Result<LockedFile, FetchError> {
    let failed = |source| FetchError::File { what: "read", path: file.to_owned(), source };
    Ok(LockedFile {
        url: known.wanted.url.clone(),
        sha256: known.wanted.sha256.clone(),
        size: Some(file.metadata().map_err(failed)?.len()),
        checksum: known.checksum.clone(),
    })
}

/// What is packed, and from which files: those of `known`, then those of `images`.
struct Packing {
    known: Vec<Known>,
    images: Vec<Image>,
    files: Vec<PathBuf>,
    described: Vec<kmctl_core::bundle::Component>,
}

impl Packing {
    fn pack(self, out: &Path) -> Result<(Packer, Vec<kmctl_core::bundle::Component>), FetchError> {
        let Packing { known, images, files, described } = self;
        let failed = |source| FetchError::Bundle { out: out.to_owned(), source };
        let read = |path: &Path| {
            let path = path.to_owned();
            move |source| FetchError::File { what: "read", path, source }
        };
        let mut packer = Packer::new(out).map_err(failed)?;
        let mut files = files.into_iter();
        for (Known { part, .. }, file) in known.iter().zip(files.by_ref()) {
            match &part.take {
                Take::Whole(path) => {
                    let source = File::open(&file).map_err(read(&file))?;
                    packer.add(path, Vec::new(), source).map_err(failed)?;
                }
                Take::Entries(entries) => {
                    let taken = archive::take(&file, entries, part.component, |path, source| {
                        packer.add(path, Vec::new(), source)
                    });
                    taken.map_err(|error| match error {
                        ArchiveError::Read(source) => read(&file)(source),
                        ArchiveError::NoEntry(entry) => FetchError::NoEntry { url: part.url.clone(), entry },
                        ArchiveError::Reader(source) => failed(source),
                    })?;
                }
            }
        }
        for image in &images {
            let blobs: Vec<PathBuf> = files.by_ref().take(image.wanted().len()).collect();
            let archive = image
                .archive(&blobs, packer.folder())
                .map_err(|source| failed(BundleError::File { what: "pack", path: image.path().into(), source }))?;
            packer.add(&image.path(), image.names(), archive).map_err(failed)?;
        }
        let index = parts::licence_index(&described);
        packer.add("licenses/INDEX", Vec::new(), index.as_bytes()).map_err(failed)?;
        Ok((packer, described))
    }
}
