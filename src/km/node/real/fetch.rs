//! Binaries and images. They are fetched by km itself and not by Mesos' fetcher, which verifies nothing and whose time
//! counts against the executor's registration timeout. Verified files are kept in a store that all runs on the agent
//! share.
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::super::deps::{ArtifactFetcher, DepError};
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::node::spec::Folders;
use kmctl_core::protocol::launch::Artifact;
use kmctl_core::protocol::runonce::FETCH;

/// Rounds over all URLs of an artifact.
const ATTEMPTS: u32 = 30;
const BETWEEN: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(10));
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Limit between two chunks of a file, not for the whole file.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// Concurrent downloads: more would not be faster on one link, fewer would wait for small files.
const AT_ONCE: usize = 3;

/// Fetches into the agent's store.
pub struct RealFetcher {
    folders: Folders,
    artifacts: Vec<Artifact>,
    attempts: u32,
}

impl RealFetcher {
    /// For one run.
    pub fn new(folders: Folders, artifacts: Vec<Artifact>) -> Self {
        RealFetcher { folders, artifacts, attempts: ATTEMPTS }
    }

    /// The same, with another number of attempts.
    pub fn attempts(self, attempts: u32) -> Self {
        RealFetcher { attempts, ..self }
    }

    async fn place(&self, client: &reqwest::Client, artifact: &Artifact) -> Result<(), DepError> {
        check(artifact)?;
        let stored = self.folders.store().join(&artifact.sha256);
        if !is_verified(&stored, artifact).await {
            self.bring(client, artifact, &stored).await?;
        }
        let placed = self.folders.run.join(&artifact.path);
        let what = format!("install {}", placed.display());
        if let Some(parent) = placed.parent() {
            std::fs::create_dir_all(parent).map_err(DepError::io(what.clone()))?;
        }
        // A hard link: the store may be emptied while the run lives, and a binary must have its own path as its name.
        match std::fs::hard_link(&stored, &placed) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(DepError::Io { what, source: error })
            }
            _ => Ok(()),
        }
    }

    async fn bring(&self, client: &reqwest::Client, artifact: &Artifact, stored: &Path) -> Result<(), DepError> {
        let mut retries = Retries::new(BETWEEN);
        let mut last = DepError::Refused(format!("there is no URL to {FETCH} {} from", artifact.path));
        for attempt in 1..=self.attempts {
            for url in &artifact.urls {
                match download(client, url, artifact, stored).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        warn!("attempt {attempt}: {}", error.chain());
                        last = error;
                    }
                }
            }
            if artifact.urls.is_empty() {
                break;
            }
            tokio::time::sleep(retries.wait()).await;
        }
        Err(last)
    }
}

#[async_trait]
impl ArtifactFetcher for RealFetcher {
    async fn fetch(&self) -> Result<(), DepError> {
        use futures::{StreamExt, TryStreamExt};
        let store = self.folders.store();
        std::fs::create_dir_all(&store).map_err(DepError::io(format!("create {}", store.display())))?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(SILENCE_LIMIT)
            .build()
            .map_err(DepError::other("create an HTTP client"))?;
        let (fetcher, client) = (self, &client);
        futures::stream::iter(self.artifacts.clone())
            .map(|artifact| async move { fetcher.place(client, &artifact).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }
}

/// Neither part may lead outside its directory: the launch is received from the API.
fn check(artifact: &Artifact) -> Result<(), DepError> {
    let digest = &artifact.sha256;
    let good_digest = digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    let path = Path::new(&artifact.path);
    let good_path = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if good_digest && good_path && !artifact.path.is_empty() {
        return Ok(());
    }
    Err(DepError::Refused(format!("{:?} with sha256 {digest:?} is not an artifact", artifact.path)))
}

async fn is_verified(stored: &Path, artifact: &Artifact) -> bool {
    let (path, size, expected) = (stored.to_owned(), artifact.size, artifact.sha256.clone());
    let verified = tokio::task::spawn_blocking(move || {
        std::fs::metadata(&path).is_ok_and(|found| found.len() == size)
            && digest_of(&path).is_ok_and(|digest| digest == expected)
    });
    verified.await.unwrap_or(false)
}

fn digest_of(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

async fn download(client: &reqwest::Client, url: &str, artifact: &Artifact, stored: &Path) -> Result<(), DepError> {
    let what = || format!("{FETCH} {} from {url}", artifact.path);
    // A unique name: two runs on one agent may fetch the same file.
    let partial: PathBuf = stored.with_file_name(format!("{}.{}.part", artifact.sha256, uuid::Uuid::new_v4().simple()));
    let fetched = async {
        let mut response = client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(DepError::other(what()))?;
        let mut file = tokio::fs::File::create(&partial).await.map_err(DepError::io(what()))?;
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        while let Some(piece) = response.chunk().await.map_err(DepError::other(what()))? {
            size += piece.len() as u64;
            if size > artifact.size {
                break;
            }
            hasher.update(&piece);
            file.write_all(&piece).await.map_err(DepError::io(what()))?;
        }
        file.sync_all().await.map_err(DepError::io(what()))?;
        let digest = hex::encode(hasher.finalize());
        if size != artifact.size || digest != artifact.sha256 {
            return Err(DepError::Refused(format!(
                "failed to {}: {size} bytes with sha256 {digest}, expected {} with {}",
                what(),
                artifact.size,
                artifact.sha256
            )));
        }
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755)).map_err(DepError::io(what()))?;
        std::fs::rename(&partial, stored).map_err(DepError::io(what()))
    }
    .await;
    match &fetched {
        Ok(()) => info!("fetched {}", artifact.path),
        Err(_) => drop(std::fs::remove_file(&partial)),
    }
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves the bodies one after another, the last one repeatedly.
    async fn server(bodies: Vec<&'static [u8]>) -> String {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let answer = move || {
            let at = asked.fetch_add(1, Ordering::SeqCst).min(bodies.len() - 1);
            let body = bodies[at].to_vec();
            async move { body }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        url
    }

    fn fetcher(root: &Path, url: String, content: &[u8]) -> RealFetcher {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let artifact = Artifact {
            path: "bin/kubelet".to_owned(),
            sha256: hex::encode(Sha256::digest(content)),
            size: content.len() as u64,
            urls: vec![url],
            images: Vec::new(),
        };
        let folders = Folders {
            root: root.to_owned(),
            run: root.join("runs/x"),
            short: root.join("short"),
            sandbox: root.join("sandbox"),
        };
        RealFetcher { folders, artifacts: vec![artifact], attempts: 3 }
    }

    #[tokio::test]
    async fn a_wrong_file_is_never_placed_and_the_right_one_is_fetched_again() {
        let root = tempfile::tempdir().unwrap();
        let url = server(vec![b"wrong", b"right"]).await;
        fetcher(root.path(), url, b"right").fetch().await.unwrap();
        assert_eq!(std::fs::read(root.path().join("runs/x/bin/kubelet")).unwrap(), b"right");
        assert_eq!(std::fs::read_dir(root.path().join("store")).unwrap().count(), 1, "no partial file stays");
    }

    #[tokio::test]
    async fn a_server_that_only_has_the_wrong_file_is_an_error_that_names_both_digests() {
        let root = tempfile::tempdir().unwrap();
        let url = server(vec![b"wrong"]).await;
        let error = fetcher(root.path(), url, b"right").fetch().await.unwrap_err();
        assert!(error.to_string().contains(&hex::encode(Sha256::digest(b"wrong"))), "{error}");
        assert!(!root.path().join("runs/x/bin/kubelet").exists());
    }

    #[tokio::test]
    async fn what_is_in_the_store_is_not_fetched_again_unless_it_was_altered() {
        let root = tempfile::tempdir().unwrap();
        let url = server(vec![b"right", b"wrong"]).await;
        fetcher(root.path(), url.clone(), b"right").fetch().await.unwrap();
        std::fs::remove_dir_all(root.path().join("runs")).unwrap();
        fetcher(root.path(), url.clone(), b"right").fetch().await.unwrap();
        let stored = root.path().join("store").join(hex::encode(Sha256::digest(b"right")));
        std::fs::write(&stored, b"wrink").unwrap();
        std::fs::remove_dir_all(root.path().join("runs")).unwrap();
        assert!(fetcher(root.path(), url, b"right").fetch().await.is_err(), "altered, and the server has no right one");
    }

    #[test]
    fn an_artifact_cannot_leave_its_folder() {
        let good =
            Artifact { path: "bin/a".into(), sha256: "0".repeat(64), size: 1, urls: Vec::new(), images: Vec::new() };
        assert!(check(&good).is_ok());
        for (path, sha256) in [("../a", good.sha256.as_str()), ("/a", &good.sha256), ("", &good.sha256), ("a", "../x")]
        {
            let artifact = Artifact { path: path.into(), sha256: sha256.into(), ..good.clone() };
            assert!(check(&artifact).is_err(), "{path} {sha256}");
        }
    }
}
