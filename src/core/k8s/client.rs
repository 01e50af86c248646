//! Creates a client from a kubeconfig file.
use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Why the client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig file cannot be used.
    #[error("invalid credentials {path}")]
    Credentials {
        path: String,
        #[source]
        source: KubeconfigError,
    },
    /// The connection cannot be set up.
    #[error("failed to set up the connection to the API server")]
    Client(#[source] kube::Error),
}

/// Creates a client with the credentials of a kubeconfig file. Nothing is read from the environment.
pub async fn connect(path: &Path) -> Result<Client, ClientError> {
    let wrong = |source| ClientError::Credentials { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)?;
    // Every caller retries on its own. A 429 (a disruption budget forbids an eviction) is an answer, not a failure.
    config.default_retry = false;
    Client::try_from(config).map_err(ClientError::Client)
}
