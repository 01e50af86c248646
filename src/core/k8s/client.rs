//! A client from a kubeconfig file.
use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be used.
    #[error("use the credentials {path}")]
    Credentials {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: KubeconfigError,
    },
    /// The connection cannot be set up.
    #[error("set up the connection to the API server")]
    Client(#[source] kube::Error),
}

/// A client with the credentials of a kubeconfig file, and nothing from the environment.
pub async fn connect(path: &Path) -> Result<Client, ClientError> {
    let wrong = |source| ClientError::Credentials { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)?;
    // Everybody here comes back by himself, and that a budget forbids an eviction (429) is an answer, not a fault.
    config.default_retry = false;
    Client::try_from(config).map_err(ClientError::Client)
}
