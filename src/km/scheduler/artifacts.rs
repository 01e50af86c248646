//! Serves the files that nodes download: the running binary as `km`, and the bundle's files for nodes, each under its
//! sha256. The files are public and every client verifies the hash, so TLS is not needed.
use kmctl_core::protocol::artifacts::ArtifactIndex;
use kmctl_core::protocol::artifacts::hash;
use kmctl_core::protocol::artifacts::listed;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::io::ReaderStream;

use kmctl_core::bundle::{Manifest, Purpose};
use kmctl_core::protocol::HELD_PREFIX;
use kmctl_core::protocol::artifacts::KmProgram;
use kmctl_core::protocol::launch::Artifact;
use kmctl_core::protocol::scheduler::ArtifactServer;

/// Why artifacts cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    #[error("failed to read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The manifest cannot be parsed.
    #[error("failed to parse {path}")]
    Manifest {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to listen on {0}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
}

/// The served artifacts.
#[derive(Clone, Debug)]
pub struct Artifacts {
    files: Arc<BTreeMap<String, PathBuf>>,
    index: Arc<ArtifactIndex>,
    /// The binary that executors run.
    pub km: KmProgram,
    /// The files that nodes have to download.
    pub for_nodes: Vec<Artifact>,
}

impl Artifacts {
    /// Reads the manifest and hashes the running binary.
    pub fn open(settings: &ArtifactServer) -> Result<Artifacts, ArtifactsError> {
        let read = |path: &Path, source| ArtifactsError::Read { path: path.to_owned(), source };
        let text = std::fs::read(&settings.manifest).map_err(|source| read(&settings.manifest, source))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|source| ArtifactsError::Manifest { path: settings.manifest.clone(), source })?;
        // Of the running binary, even if its file has been replaced since.
        let program = Path::new("/proc/self/exe").to_owned();
        let sha256 = hash(&program).map_err(|source| read(&program, source))?;
        let folder = settings.manifest.parent().unwrap_or(Path::new("/"));
        let base = settings.advertise.trim_end_matches('/');
        let url = |sha256: &str| format!("{base}/artifacts/{sha256}");
        let mut files = BTreeMap::from([(sha256.clone(), program)]);
        let mut for_nodes = Vec::new();
        for file in manifest.files.into_iter().filter(|file| file.purposes.contains(&Purpose::Node)) {
            for_nodes.push(listed(&file, vec![url(&file.sha256)]));
            files.insert(file.sha256, folder.join(file.path));
        }
        let index = ArtifactIndex { kubernetes: manifest.kubernetes, km: sha256.clone(), files: for_nodes.clone() };
        Ok(Artifacts {
            files: Arc::new(files),
            index: Arc::new(index),
            km: KmProgram { url: url(&sha256), sha256 },
            for_nodes,
        })
    }

    /// Listens. The returned future serves indefinitely.
    ///
    /// `held` says why the scheduler does nothing; `/healthz` answers with it.
    pub async fn serve(
        &self,
        settings: &ArtifactServer,
        held: watch::Receiver<Option<String>>,
    ) -> Result<impl Future<Output = ()> + use<>, ArtifactsError> {
        let listener = TcpListener::bind(settings.listen)
            .await
            .map_err(|source| ArtifactsError::Listen(settings.listen, source))?;
        let router = self.router(held);
        Ok(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "artifact server stopped");
            }
        })
    }

    fn router(&self, held: watch::Receiver<Option<String>>) -> Router {
        Router::new()
            .route("/healthz", get(healthz).with_state(held))
            .route("/artifacts/{sha256}", get(artifact))
            .with_state(self.files.clone())
            .route("/artifacts", get(index).with_state(self.index.clone()))
    }
}

async fn healthz(State(held): State<watch::Receiver<Option<String>>>) -> Response {
    match held.borrow().as_ref() {
        None => "ok".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{HELD_PREFIX}{reason}")).into_response(),
    }
}

async fn index(State(index): State<Arc<ArtifactIndex>>) -> axum::Json<ArtifactIndex> {
    axum::Json(index.as_ref().clone())
}

async fn artifact(State(files): State<Arc<BTreeMap<String, PathBuf>>>, Segment(sha256): Segment<String>) -> Response {
    // Only listed files are served: the path in the request is never used as a file name.
    let Some(path) = files.get(&sha256) else { return StatusCode::NOT_FOUND.into_response() };
    let opened = async {
        let file = tokio::fs::File::open(path).await?;
        let size = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, size))
    };
    match opened.await {
        Ok((file, size)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, size.to_string()),
            ];
            (headers, Body::from_stream(ReaderStream::with_capacity(file, 256 << 10))).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "failed to read an artifact");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    fn artifacts(folder: &Path) -> Artifacts {
        std::fs::create_dir(folder.join("bin")).unwrap();
        std::fs::write(folder.join("bin/kubelet"), "kubelet").unwrap();
        let kubelet = hash(&folder.join("bin/kubelet")).unwrap();
        let manifest = json!({"format": 1, "kubernetes": "v1.37.2", "architecture": "amd64", "files": [
            {"path": "bin/kubelet", "sha256": kubelet, "size": 7, "purposes": ["node"]},
            {"path": "bin/kube-apiserver", "sha256": "00", "size": 7, "purposes": ["controlPlane"]}]});
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = ArtifactServer {
            listen,
            advertise: "http://10.0.0.1:10271/".into(),
            manifest: folder.join("manifest.json"),
        };
        Artifacts::open(&settings).unwrap()
    }

    #[tokio::test]
    async fn only_listed_files_are_served_under_their_sha256() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = artifacts(folder.path());
        let kubelet = &artifacts.for_nodes[0];
        assert_eq!(artifacts.for_nodes.len(), 1);
        assert_eq!(kubelet.urls, [format!("http://10.0.0.1:10271/artifacts/{}", kubelet.sha256)]);
        let cases = [
            (format!("/artifacts/{}", kubelet.sha256), StatusCode::OK),
            (format!("/artifacts/{}", artifacts.km.sha256), StatusCode::OK),
            ("/healthz".to_owned(), StatusCode::OK),
            ("/artifacts/00".to_owned(), StatusCode::NOT_FOUND),
            ("/artifacts/..%2fmanifest.json".to_owned(), StatusCode::NOT_FOUND),
        ];
        for (path, expected) in cases {
            let request = Request::get(&path).body(Body::empty()).unwrap();
            let response = artifacts.router(watch::channel(None).1).oneshot(request).await.unwrap();
            assert_eq!(response.status(), expected, "{path}");
        }
        let request = Request::get(format!("/artifacts/{}", kubelet.sha256)).body(Body::empty()).unwrap();
        let response = artifacts.router(watch::channel(None).1).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "7");
        assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "kubelet");
        let request = Request::get("/artifacts").body(Body::empty()).unwrap();
        let response = artifacts.router(watch::channel(None).1).oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let index: ArtifactIndex = serde_json::from_slice(&body).unwrap();
        assert_eq!((index.km, index.files), (artifacts.km.sha256.clone(), artifacts.for_nodes.clone()));
    }

    #[tokio::test]
    async fn a_scheduler_that_is_held_is_not_healthy_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let (_hold, held) = watch::channel(Some("the store is empty".to_owned()));
        let request = Request::get("/healthz").body(Body::empty()).unwrap();
        let response = artifacts(folder.path()).router(held).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, "held: the store is empty");
    }
}
