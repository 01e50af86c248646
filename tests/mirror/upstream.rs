//! A copy of upstream's hosts in this process: everything that a bundle of one version of Kubernetes is made of, small, at
//! upstream's paths below upstream's host names, with the checksum files that upstream has beside it, and with the images
//! at the paths of a registry. Each path can be made to misbehave.
#![allow(dead_code, reason = "each test binary uses a part of it")]
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

/// How a path is answered.
#[derive(Clone, Debug, Default)]
pub enum Manner {
    /// All of it, or the part that is asked for.
    #[default]
    Well,
    /// Not more than so many bytes for one request, then the connection ends.
    Cut(usize),
    /// The same, and the first request for a part gets all of it.
    CutAndForget(usize),
    /// A redirect to another port with a signature that is good for one request.
    Redirect(usize),
    /// This status and text.
    Fails(u16, &'static str),
    /// Status 200 and a page.
    Page,
}

#[derive(Clone, Debug)]
struct Served {
    bytes: Bytes,
    kind: &'static str,
    manner: Manner,
}

#[derive(Debug, Default)]
struct Content {
    files: BTreeMap<String, Served>,
    /// Path, and the part that was asked for.
    requests: Vec<(String, Option<String>)>,
    /// Signatures that were given out and not used yet.
    signatures: Vec<String>,
    /// Whether the registry wants a token.
    token: bool,
    /// A registry that answers in the place of this one.
    registry: Option<SocketAddr>,
}

#[derive(Clone)]
struct Shared {
    content: Arc<Mutex<Content>>,
    address: SocketAddr,
    storage: SocketAddr,
}

/// A copy of upstream that listens on loopback until it is dropped.
pub struct Upstream {
    shared: Shared,
    // Its threads serve; the last field, so that they end last.
    runtime: Runtime,
}

/// The digest as registries write it, without the algorithm.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A program: a script that does nothing, and then bytes that cannot be packed.
fn program(name: &str, version: &str) -> Vec<u8> {
    let mut bytes = format!("#!/bin/sh\nexit 0\n# {name} {version}\n").into_bytes();
    let mut block = Sha256::digest(&bytes);
    for _ in 0..600 {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes
}

fn archive(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        // append_data would take the `./` away, with which some archives of upstream begin.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

impl Upstream {
    /// Has everything for Kubernetes `version` on amd64, with the components that kmctl pairs with it.
    pub fn start(version: &str) -> Upstream {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bind = || runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let (front, back) = (bind(), bind());
        let shared = Shared {
            content: Arc::default(),
            address: front.local_addr().unwrap(),
            storage: back.local_addr().unwrap(),
        };
        for (listener, handler) in [
            (front, axum::Router::new().fallback(answer).with_state(shared.clone())),
            (back, axum::Router::new().fallback(store).with_state(shared.clone())),
        ] {
            runtime.spawn(async move { axum::serve(listener, handler).await });
        }
        let upstream = Upstream { shared, runtime };
        upstream.fill(version);
        upstream
    }

    fn fill(&self, version: &str) {
        let components = kmctl_core::k8s::Components::of(version.parse().unwrap()).unwrap();
        for name in ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"] {
            let path = format!("dl.k8s.io/release/{version}/bin/linux/amd64/{name}");
            let bytes = program(name, version);
            // The bare digest, without a line's end.
            self.put(&format!("{path}.sha256"), sha256(&bytes));
            self.put(&path, bytes);
        }
        let etcd = &components.etcd;
        let base = format!("github.com/etcd-io/etcd/releases/download/v{etcd}");
        let top = format!("etcd-v{etcd}-linux-amd64");
        let entry = |name: &str| format!("{top}/{name}");
        let names = ["README.md", "etcd", "etcdctl", "etcdutl"].map(|name| (entry(name), program(name, etcd)));
        let bytes = archive(&names.each_ref().map(|(path, bytes)| (path.as_str(), bytes.clone())));
        let sums = format!("{}  etcd-v{etcd}-linux-arm64.tar.gz\n{}  {top}.tar.gz\n", "1".repeat(64), sha256(&bytes));
        self.put(&format!("{base}/SHA256SUMS"), sums);
        self.put(&format!("{base}/{top}.tar.gz"), bytes);

        let containerd = &components.containerd;
        let name = format!("containerd-static-{containerd}-linux-amd64.tar.gz");
        let path = format!("github.com/containerd/containerd/releases/download/v{containerd}/{name}");
        let names = ["containerd", "containerd-shim-runc-v2", "containerd-stress", "ctr"];
        let names = names.map(|name| (format!("bin/{name}"), program(name, containerd)));
        let bytes = archive(&names.each_ref().map(|(path, bytes)| (path.as_str(), bytes.clone())));
        self.put(&format!("{path}.sha256sum"), format!("{}  {name}\n", sha256(&bytes)));
        self.put(&path, bytes);

        let base = format!("github.com/opencontainers/runc/releases/download/v{}", components.runc);
        let bytes = program("runc", &components.runc);
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{}  runc.amd64\n{}  runc.arm64\n\
             -----BEGIN PGP SIGNATURE-----\n\niQIzBAEBCgAdFiEE\n-----END PGP SIGNATURE-----\n",
            sha256(&bytes),
            "2".repeat(64)
        );
        self.put(&format!("{base}/runc.sha256sum"), signed);
        self.put(&format!("{base}/runc.amd64"), bytes);

        let plugins = &components.cni_plugins;
        let name = format!("cni-plugins-linux-amd64-v{plugins}.tgz");
        let path = format!("github.com/containernetworking/plugins/releases/download/v{plugins}/{name}");
        let names = ["LICENSE", "README.md", "bridge", "dhcp", "host-local", "loopback", "portmap", "ptp"];
        let names = names.map(|name| (format!("./{name}"), program(name, plugins)));
        let bytes = archive(&names.each_ref().map(|(path, bytes)| (path.as_str(), bytes.clone())));
        self.put(&format!("{path}.sha256"), format!("{}  {name}\n", sha256(&bytes)));
        self.put(&path, bytes);

        self.image("pause", &components.pause);
        self.image("coredns/coredns", &components.coredns);
    }

    /// An index with manifests for two architectures, of which one's blobs are there.
    fn image(&self, repository: &str, tag: &str) {
        let base = format!("v2/registry.k8s.io/{repository}");
        let blob = |bytes: Vec<u8>, kind: &str| {
            let digest = format!("sha256:{}", sha256(&bytes));
            let described = serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
            self.put(&format!("{base}/blobs/{digest}"), bytes);
            described
        };
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"of":"{repository}"}}}}}}"#);
        let config = blob(config.into_bytes(), "application/vnd.oci.image.config.v1+json");
        let layers = ["one", "two"].map(|layer| {
            let bytes = archive(&[(layer, program(repository, layer))]);
            blob(bytes, "application/vnd.oci.image.layer.v1.tar+gzip")
        });
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = format!("sha256:{}", sha256(&manifest));
        let index = serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
            { "mediaType": MANIFEST, "digest": digest, "size": manifest.len(),
              "platform": { "os": "linux", "architecture": "amd64" } },
        ]});
        let index = serde_json::to_vec_pretty(&index).unwrap();
        self.put_kind(&format!("{base}/manifests/{digest}"), manifest, MANIFEST);
        self.put_kind(&format!("{base}/manifests/sha256:{}", sha256(&index)), index.clone(), INDEX);
        self.put_kind(&format!("{base}/manifests/{tag}"), index, INDEX);
    }

    /// What `--mirror` is told.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves `bytes` at `path`.
    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.put_kind(path, bytes, "application/octet-stream");
    }

    fn put_kind(&self, path: &str, bytes: impl Into<Bytes>, kind: &'static str) {
        let served = Served { bytes: bytes.into(), kind, manner: Manner::Well };
        self.content().files.insert(path.to_owned(), served);
    }

    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap()
    }

    /// What is served at `path`.
    pub fn get(&self, path: &str) -> Bytes {
        self.content().files[path].bytes.clone()
    }

    /// Serves nothing at `path` any more.
    pub fn remove(&self, path: &str) {
        assert!(self.content().files.remove(path).is_some(), "{path}");
    }

    /// Answers `path` in another manner.
    pub fn let_be(&self, path: &str, manner: Manner) {
        self.content().files.get_mut(path).unwrap_or_else(|| panic!("{path}")).manner = manner;
    }

    /// Every path whose last part passes, or any.
    pub fn paths(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.content().files.keys().filter(|path| wanted(path)).cloned().collect()
    }

    /// The only path that contains this.
    pub fn path(&self, part: &str) -> String {
        let found = self.paths(|path| path.contains(part));
        let [one] = &found[..] else { panic!("{part}: {found:?}") };
        one.clone()
    }

    /// What was asked for since the last call: path, and the part of it.
    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.content().requests)
    }

    /// The registry wants a token from now on.
    pub fn want_token(&self) {
        self.content().token = true;
    }

    /// Another registry answers from now on; it is given all images first.
    pub fn behind(&self, registry: SocketAddr) {
        let files: Vec<(String, Served)> = self
            .content()
            .files
            .iter()
            .filter(|(path, _)| path.starts_with("v2/"))
            .map(|(path, served)| (path.clone(), served.clone()))
            .collect();
        let mut files = files;
        // Blobs, then manifests before the indexes that name them, and the tags last.
        files.sort_by_key(|(path, served)| {
            (path.contains("/manifests/"), served.kind == INDEX, !path.contains("/manifests/sha256:"))
        });
        self.runtime.block_on(async {
            let client = reqwest::Client::new();
            for (path, Served { bytes, kind, .. }) in files {
                push(&client, registry, &path, bytes, kind).await;
            }
        });
        self.content().registry = Some(registry);
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Gives a registry what it is to have at `path`.
async fn push(client: &reqwest::Client, registry: SocketAddr, path: &str, bytes: Bytes, kind: &str) {
    let url = format!("http://{registry}/{path}");
    let answer = if let Some((base, digest)) = url.split_once("/blobs/") {
        let started = client.post(format!("{base}/blobs/uploads/")).send().await.unwrap();
        let location = started.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let location = if location.starts_with('/') { format!("http://{registry}{location}") } else { location };
        let sign = if location.contains('?') { '&' } else { '?' };
        client.put(format!("{location}{sign}digest={digest}")).body(bytes).send().await.unwrap()
    } else {
        client.put(&url).header(header::CONTENT_TYPE, kind).body(bytes).send().await.unwrap()
    };
    let status = answer.status();
    assert!(status.is_success(), "{url}: {status} {}", answer.text().await.unwrap_or_default());
}

fn response(status: u16) -> axum::http::response::Builder {
    Response::builder().status(StatusCode::from_u16(status).unwrap())
}

/// As upstream's own hosts.
async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let headers = request.headers().clone();
    let part = headers.get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    let (served, token, registry) = {
        let mut content = shared.content.lock().unwrap();
        content.requests.push((path.clone(), part));
        (content.files.get(&path).cloned(), content.token, content.registry)
    };
    if path.starts_with("v2/") {
        if let Some(registry) = registry {
            return forward(registry, &path, headers).await;
        }
        if token && headers.get(header::AUTHORIZATION).is_none_or(|given| given != "Bearer good") {
            let wanted = format!("Bearer realm=\"http://{}/token\",service=\"test\"", shared.address);
            return response(401).header(header::WWW_AUTHENTICATE, wanted).body(Body::empty()).unwrap();
        }
        if path == "v2/" {
            return response(200).body(Body::from("{}")).unwrap();
        }
    }
    if path == "token" {
        return response(200).body(Body::from(r#"{"token":"good"}"#)).unwrap();
    }
    let Some(served) = served else {
        return response(404).body(Body::from("not found")).unwrap();
    };
    let is_part = headers.contains_key(header::RANGE);
    match served.manner {
        Manner::Well => send(&served, &headers, usize::MAX),
        Manner::Cut(bytes) => send(&served, &headers, bytes),
        Manner::CutAndForget(bytes) if is_part => {
            let mut content = shared.content.lock().unwrap();
            content.files.get_mut(&path).unwrap().manner = Manner::Cut(bytes);
            send(&served, &HeaderMap::new(), bytes)
        }
        Manner::CutAndForget(bytes) => send(&served, &headers, bytes),
        Manner::Redirect(_) => {
            let mut content = shared.content.lock().unwrap();
            let signature = format!("{}", content.requests.len());
            content.signatures.push(signature.clone());
            let target = format!("http://{}/{path}?signature={signature}", shared.storage);
            response(302).header(header::LOCATION, target).body(Body::empty()).unwrap()
        }
        Manner::Fails(status, text) => response(status).body(Body::from(text)).unwrap(),
        Manner::Page => {
            let page = "<!DOCTYPE html><html><body>Please log in</body></html>";
            response(200).header(header::CONTENT_TYPE, "text/html; charset=utf-8").body(Body::from(page)).unwrap()
        }
    }
}

/// As the storage that upstream redirects to: each signature is good once.
async fn store(State(shared): State<Shared>, request: Request) -> Response {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let signature = request.uri().query().unwrap_or_default().trim_start_matches("signature=").to_owned();
    let served = {
        let mut content = shared.content.lock().unwrap();
        let known = content.signatures.iter().position(|known| *known == signature);
        known.map(|known| content.signatures.remove(known)).and_then(|_| content.files.get(&path).cloned())
    };
    match served {
        Some(Served { bytes, kind, manner: Manner::Redirect(limit) }) => {
            send(&Served { bytes, kind, manner: Manner::Well }, request.headers(), limit)
        }
        _ => response(403).body(Body::from("the signature has expired")).unwrap(),
    }
}

/// Sends what is asked for, and ends the connection after `limit` bytes.
fn send(served: &Served, headers: &HeaderMap, limit: usize) -> Response {
    let Served { bytes, kind, .. } = served;
    let from = headers.get(header::RANGE).map(|range| {
        let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let last = bytes.len().saturating_sub(1);
        (from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap_or(last).min(last))
    });
    let builder = match from {
        Some((from, _)) if from >= bytes.len() => return response(416).body(Body::empty()).unwrap(),
        Some((from, to)) => response(206).header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{}", bytes.len())),
        None => response(200),
    };
    let (from, to) = from.unwrap_or((0, bytes.len().saturating_sub(1)));
    let body = bytes.slice(from..(to + 1).min(bytes.len()));
    let builder = builder.header(header::CONTENT_TYPE, *kind).header(header::CONTENT_LENGTH, body.len());
    if body.len() <= limit {
        return builder.body(Body::from(body)).unwrap();
    }
    let cut = std::io::Error::other("cut");
    let pieces = vec![Ok(body.slice(..limit)), Err(cut)];
    // The first piece has to be on its way before the connection ends.
    let pieces = stream::unfold(pieces.into_iter(), |mut pieces| async move {
        let piece: Result<Bytes, std::io::Error> = pieces.next()?;
        if piece.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Some((piece, pieces))
    });
    builder.body(Body::from_stream(pieces)).unwrap()
}

async fn forward(registry: SocketAddr, path: &str, headers: HeaderMap) -> Response {
    let mut request = reqwest::Client::new().get(format!("http://{registry}/{path}"));
    for name in [header::ACCEPT, header::RANGE] {
        for value in headers.get_all(&name) {
            request = request.header(name.clone(), value);
        }
    }
    let answer = request.send().await.unwrap();
    let mut builder = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != header::TRANSFER_ENCODING && name != header::CONNECTION {
            builder = builder.header(name, value);
        }
    }
    builder.body(Body::from(answer.bytes().await.unwrap())).unwrap()
}
