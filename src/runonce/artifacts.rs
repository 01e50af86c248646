//! The artifacts that nodes of a run fetch: the list of an artifact server, or kmctl itself as that server, with files
//! from the bundle. Files are public, and the node that fetches one verifies it. What must not be forged is the list.
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as Segment, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::read::GzDecoder;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use kmctl_core::bundle::{Bundle, Purpose};
use kmctl_core::protocol::artifacts::KmProgram;
use kmctl_core::protocol::artifacts::{ArtifactIndex, hash, listed};
use kmctl_core::protocol::launch::Artifact;

/// Port of km scheduler's artifact server.
pub const SCHEDULER_PORT: u16 = 10271;

/// Bytes per chunk of a response.
const CHUNK: usize = 256 << 10;

/// The artifacts that nodes fetch.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// The binary that executors run.
    pub km: KmProgram,
    /// All other files.
    pub files: Vec<Artifact>,
    /// Kubernetes version of the files.
    pub kubernetes: String,
}

impl Offered {
    /// The artifacts of the server at `base`, with every URL at `base`, because agents reach the server at that
    /// address.
    pub fn at(base: &str, index: ArtifactIndex) -> Offered {
        let base = base.trim_end_matches('/');
        let url = |sha256: &str| format!("{base}/artifacts/{sha256}");
        let ArtifactIndex { kubernetes, km, files } = index;
        let files = files.into_iter().map(|file| Artifact { urls: vec![url(&file.sha256)], ..file }).collect();
        Offered { km: KmProgram { url: url(&km), sha256: km }, files, kubernetes }
    }
}

/// Why kmctl cannot serve artifacts.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The km binary beside kmctl cannot be read.
    #[error("failed to read {path}")]
    Km {
        /// Where the binary should be.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// No address of this machine was found.
    #[error("failed to find the address of this machine towards {target}")]
    Address {
        /// The server that should see the address.
        target: String,
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be bound.
    #[error("failed to listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
}

/// kmctl as an artifact server; stops when dropped.
pub struct Server {
    /// The served artifacts.
    pub offered: Offered,
    /// `http://address:port`.
    pub base: String,
    fetched: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    bundle: Arc<Bundle>,
    km: PathBuf,
    index: ArtifactIndex,
    fetched: Arc<AtomicBool>,
}

impl Server {
    /// Serves the bundle's files for nodes and `km` on `listen`; port 0 selects a free port.
    pub async fn start(bundle: Arc<Bundle>, km: &Path, listen: SocketAddr) -> Result<Server, ServeError> {
        let sha256 = hash(km).map_err(|source| ServeError::Km { path: km.to_owned(), source })?;
        let manifest = bundle.manifest();
        let wanted = manifest.files.iter().filter(|file| file.purposes.contains(&Purpose::Node));
        let files = wanted.map(|file| listed(file, Vec::new()));
        let index = ArtifactIndex { kubernetes: manifest.kubernetes.clone(), km: sha256, files: files.collect() };
        let listener = TcpListener::bind(listen).await.map_err(|source| ServeError::Listen(listen, source))?;
        let address = listener.local_addr().map_err(|source| ServeError::Listen(listen, source))?;
        let base = format!("http://{address}");
        let fetched = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared { bundle, km: km.to_owned(), index: index.clone(), fetched: fetched.clone() });
        let router = Router::new().route("/artifacts/{sha256}", get(artifact)).with_state(shared);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "artifact server stopped");
            }
        });
        let offered = Offered::at(&base, index);
        Ok(Server { offered, base, fetched, _task: AbortOnDropHandle::new(task) })
    }

    /// Whether an artifact was requested, which shows that agents can reach the server.
    pub fn reached(&self) -> Arc<AtomicBool> {
        self.fetched.clone()
    }
}

/// This machine's address on the route to `target` (`host:port`).
pub fn address_towards(target: &str) -> Result<IpAddr, ServeError> {
    let failed = |source| ServeError::Address { target: target.to_owned(), source };
    let to = target.to_socket_addrs().map_err(failed)?.next();
    let to = to.ok_or_else(|| failed(std::io::Error::new(std::io::ErrorKind::NotFound, "it has no address")))?;
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    // Nothing is sent: connecting only selects the route.
    let socket = UdpSocket::bind((any, 0)).map_err(failed)?;
    socket.connect(to).map_err(failed)?;
    Ok(socket.local_addr().map_err(failed)?.ip())
}

async fn artifact(State(shared): State<Arc<Shared>>, Segment(sha256): Segment<String>) -> Response {
    shared.fetched.store(true, Ordering::Relaxed);
    if sha256 == shared.index.km {
        let path = shared.km.clone();
        let size = std::fs::metadata(&path).map(|found| found.len());
        return stream(size, move || std::fs::File::open(path));
    }
    let Some(file) = shared.index.files.iter().find(|file| file.sha256 == sha256) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (bundle, path) = (shared.bundle.clone(), file.path.clone());
    stream(Ok(file.size), move || bundle.packed(&path).map(|(packed, _)| GzDecoder::new(packed)))
}

/// Streams what `open` reads, from a separate thread because unpacking blocks.
fn stream<R: Read>(size: std::io::Result<u64>, open: impl FnOnce() -> std::io::Result<R> + Send + 'static) -> Response {
    let Ok(size) = size else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let (pieces, receiver) = mpsc::channel::<std::io::Result<bytes::Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let copied = open().and_then(|mut source| {
            let mut buffer = vec![0; CHUNK];
            loop {
                match source.read(&mut buffer)? {
                    0 => return Ok(()),
                    // An error means that the client is gone.
                    count if pieces.blocking_send(Ok(buffer[..count].to_vec().into())).is_err() => return Ok(()),
                    _ => {}
                }
            }
        });
        if let Err(error) = copied {
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let body = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, size.to_string())];
    (headers, Body::from_stream(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bundles_files_for_nodes_are_served_unpacked_and_km_as_it_is() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        for path in kmctl_core::bundle::required() {
            let file = source.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, format!("program {path}")).unwrap();
        }
        let path = folder.path().join("bundle");
        kmctl_core::bundle::create(source.path(), "v1.37.2", "amd64", &path, |_| ()).unwrap();
        let km = folder.path().join("km");
        std::fs::write(&km, "the program").unwrap();
        let bundle = Arc::new(Bundle::open(&path).unwrap());
        let server = Server::start(bundle, &km, ([127, 0, 0, 1], 0).into()).await.unwrap();
        assert!(!server.reached().load(Ordering::Relaxed));
        let get = |url: String| async move { reqwest::get(url).await.unwrap() };
        assert_eq!(get(server.offered.km.url.clone()).await.text().await.unwrap(), "the program");
        assert!(server.reached().load(Ordering::Relaxed));
        let kubelet = server.offered.files.iter().find(|file| file.path == "bin/kubelet").unwrap();
        let answer = get(kubelet.urls[0].clone()).await;
        assert_eq!(answer.content_length(), Some(kubelet.size));
        let bytes = answer.bytes().await.unwrap();
        assert_eq!(kmctl_core::bundle::hex_digest(&mut bytes.as_ref()).unwrap().0, kubelet.sha256);
        let paths: Vec<_> = server.offered.files.iter().map(|file| file.path.as_str()).collect();
        assert!(!paths.contains(&"bin/etcd"), "control-plane programs are nobody's business here: {paths:?}");
        let unknown = format!("{}/artifacts/{}", server.base, "00".repeat(32));
        assert_eq!(get(unknown).await.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn another_servers_list_is_fetched_from_where_agents_reach_it() {
        let file = Artifact {
            path: "bin/kubelet".into(),
            sha256: "aa".into(),
            size: 1,
            urls: vec!["http://own/x".into()],
            images: Vec::new(),
        };
        let index = ArtifactIndex { kubernetes: "v1.37.2".into(), km: "bb".into(), files: vec![file] };
        let offered = Offered::at("http://10.0.0.1:10271/", index);
        assert_eq!(offered.km.url, "http://10.0.0.1:10271/artifacts/bb");
        assert_eq!(offered.files[0].urls, ["http://10.0.0.1:10271/artifacts/aa"]);
    }

    #[test]
    fn the_address_is_the_one_on_the_way() {
        assert!(address_towards("127.0.0.1:5050").unwrap().is_loopback());
        assert!(address_towards("no such name.invalid:1").is_err());
    }
}
