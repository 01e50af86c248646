//! Kubeconfigs of a node. They name files for certificates and keys, so that a renewal needs no new kubeconfig.
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::super::deps::DepError;
use kmctl_core::node::spec::{Folders, KUBELET_ROOT};

/// The credentials in a kubeconfig.
pub enum User<'a> {
    /// A token: the bootstrap token, or the local view's. Only for a file of mode 0600.
    Token(&'a str),
    /// Certificate and key in one file.
    Certificate(&'a Path),
}

/// The kubelet's current client certificate and key: a symlink that the kubelet updates at each renewal.
pub fn client_certificate() -> PathBuf {
    Path::new(KUBELET_ROOT).join("pki/kubelet-client-current.pem")
}

/// A kubeconfig for the API server, as JSON, which every YAML parser accepts.
pub fn document(server: &str, folders: &Folders, user: &User<'_>) -> String {
    for_server(server, &json!({ "certificate-authority": folders.settings("ca.crt") }), user)
}

/// A kubeconfig for a server with this self-signed certificate (PEM).
pub fn for_own_authority(server: &str, certificate: &str, user: &User<'_>) -> String {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    for_server(server, &json!({ "certificate-authority-data": encoded }), user)
}

fn for_server(server: &str, cluster: &serde_json::Value, user: &User<'_>) -> String {
    let mut cluster = cluster.clone();
    cluster["server"] = json!(server);
    let user = match user {
        User::Token(token) => json!({ "token": token }),
        User::Certificate(path) => json!({ "client-certificate": path, "client-key": path }),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "cluster", "cluster": cluster }],
        "users": [{ "name": "node", "user": user }],
        "contexts": [{ "name": "node", "context": { "cluster": "cluster", "user": "node" } }],
        "current-context": "node",
    })
    .to_string()
}

/// Writes a file that only root can read. It appears under its name only when it is complete.
pub fn write_private(path: &Path, text: &str) -> Result<(), DepError> {
    let what = || format!("write {}", path.display());
    let partial = path.with_extension("part");
    let _ = std::fs::remove_file(&partial);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let mut file = file.map_err(DepError::io(what()))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(DepError::io(what()))?;
    std::fs::rename(&partial, path).map_err(DepError::io(what()))
}
