//! An etcd and a kube-apiserver of a test's own, ended with it.
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::Client;
use kube::config::{AuthInfo, Config};
use serde_json::json;
use tempfile::TempDir;

/// Ends its process with itself.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder with the stock programs.
pub fn programs() -> PathBuf {
    let programs = std::env::var_os("KMCTL_TEST_BIN").map(PathBuf::from);
    programs.expect("KMCTL_TEST_BIN names a folder with etcd and kube-apiserver")
}

/// A running API server.
pub struct Server {
    // The API server goes first, or it waits for etcd.
    _apiserver: Process,
    _etcd: Process,
    folder: TempDir,
    /// Its address on loopback.
    pub url: String,
    /// A token of a user who may do anything.
    pub token: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program whose talk goes into a file.
pub fn start(program: &Path, arguments: &[String], log: &Path) -> Process {
    let log = std::fs::File::create(log).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
    Process(child)
}

impl Server {
    /// Starts both and waits until the API server is ready.
    pub async fn start() -> Server {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let programs = programs();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (client, peer, secure) = (free_port(), free_port(), free_port());
        let etcd = start(
            &programs.join("etcd"),
            &[
                format!("--data-dir={}", path("etcd")),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
            &folder.path().join("etcd.log"),
        );
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(path("service-accounts.key"), key.serialize_pem()).unwrap();
        std::fs::write(path("service-accounts.pub"), key.public_key_pem()).unwrap();
        let token = "test-token".to_owned();
        std::fs::write(path("tokens.csv"), format!("{token},tester,1,system:masters\n")).unwrap();
        let apiserver = start(
            &programs.join("kube-apiserver"),
            &[
                format!("--etcd-servers=http://127.0.0.1:{client}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                // A server on a loopback address may not announce itself as an endpoint of the Service `kubernetes`.
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={secure}"),
                format!("--cert-dir={}", path("certificates")),
                format!("--token-auth-file={}", path("tokens.csv")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-node-port-range=28000-29999".to_owned(),
                "--service-account-issuer=https://test".to_owned(),
                format!("--service-account-key-file={}", path("service-accounts.pub")),
                format!("--service-account-signing-key-file={}", path("service-accounts.key")),
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
            &folder.path().join("kube-apiserver.log"),
        );
        let url = format!("https://127.0.0.1:{secure}");
        let server = Server { _apiserver: apiserver, _etcd: etcd, folder, url, token };
        let client = server.client();
        for _ in 0..120 {
            let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
            let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
            if client.request_text(request).await.is_ok()
                && matches!(namespaces.get_opt("kube-system").await, Ok(Some(_)))
            {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let log = std::fs::read_to_string(server.folder.path().join("kube-apiserver.log")).unwrap_or_default();
        panic!("the API server is not ready after half a minute:\n{log}");
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        let mut config = Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        // As in `k8s::client`.
        config.default_retry = false;
        config.auth_info = AuthInfo { token: Some(self.token.clone().into()), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    }

    /// A kubeconfig with all rights.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": self.url, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "test", "user": { "token": self.token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        })
        .to_string()
    }
}
