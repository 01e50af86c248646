//! A Kubernetes client whose connections start at a host reached over SSH. TLS is end-to-end between this machine and
//! the API server: the host in between only carries bytes.
use std::sync::Arc;

use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::ServiceBuilder;

use crate::host::{Dialer, Host};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OverHostError {
    /// The kubeconfig is invalid.
    #[error("failed to read the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    /// Its certificates or keys cannot be used.
    #[error("failed to set up TLS for the API server")]
    Tls(#[source] kube::Error),
}

/// A client for the cluster that `kubeconfig` (its content, not its path) describes.
pub async fn client_over(host: Arc<dyn Host>, kubeconfig: &str) -> Result<kube::Client, OverHostError> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).map_err(OverHostError::Kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(OverHostError::Kubeconfig)?;
    let connector = config.rustls_https_connector_with_connector(Dialer::new(host)).map_err(OverHostError::Tls)?;
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(OverHostError::Tls)?)
        .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace))
}
