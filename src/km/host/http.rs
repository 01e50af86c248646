//! The few HTTPS requests that `km host` sends to its own host.
use std::time::Duration;

use reqwest::{Certificate, Client, Identity, Method};

use super::AgentError;
use super::access::Access;
use kmctl_core::backoff::{Backoff, Retries};

/// Timeout of one request on loopback; a starting component may hang for a while before it answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between requests to a starting component. Short at first, for components that answer at once; then ten times a
/// second, since a machine whose components are starting has no CPU time to spare.
pub(crate) struct Pause(Retries);

impl Pause {
    const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(10), Duration::from_millis(100));

    pub(crate) fn new() -> Self {
        Pause(Retries::new(Self::BACKOFF))
    }

    pub(crate) fn wait(&mut self) {
        std::thread::sleep(self.0.wait());
    }
}

/// A client of one server.
pub(crate) struct Http {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

fn unusable(what: &str, error: impl std::error::Error) -> AgentError {
    AgentError::Input { what: what.to_owned(), source: std::io::Error::other(error.to_string()) }
}

impl Http {
    /// With the authority for the server's certificate, and the client's certificate and key.
    pub(crate) fn new(authority: Option<&str>, identity: Option<(&str, &str)>) -> Result<Self, AgentError> {
        let mut builder = Client::builder().no_proxy().timeout(TIMEOUT);
        if let Some(authority) = authority {
            let authority =
                Certificate::from_pem(authority.as_bytes()).map_err(|error| unusable("read an authority", error))?;
            builder = builder.tls_certs_only([authority]);
        }
        if let Some((certificate, key)) = identity {
            let identity = Identity::from_pem(format!("{key}\n{certificate}").as_bytes())
                .map_err(|error| unusable("read a client certificate", error))?;
            builder = builder.identity(identity);
        }
        let client = builder.build().map_err(|error| unusable("make an HTTP client", error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| AgentError::Input { what: "start a runtime".to_owned(), source })?;
        Ok(Http { client, runtime })
    }

    /// With the credentials of a kubeconfig.
    pub(crate) fn with_access(access: &Access) -> Result<Self, AgentError> {
        Http::new(Some(&access.authority), Some((&access.certificate, &access.key)))
    }

    /// Status and body, or why the request failed.
    pub(crate) fn request(
        &self,
        method: Method,
        url: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<(u16, String), String> {
        self.runtime.block_on(async {
            let mut request = self.client.request(method, url);
            if let Some((content_type, body)) = body {
                request = request.header("content-type", content_type).body(body);
            }
            let response = request.send().await.map_err(|error| innermost(&error))?;
            let status = response.status().as_u16();
            let body = response.text().await.map_err(|error| innermost(&error))?;
            Ok((status, body))
        })
    }
}

/// reqwest's own message names the address, which the caller's message already contains. The cause is the last error of
/// the chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_soon_is_asked_again_soon_and_others_ten_times_a_second() {
        let mut pause = Pause::new();
        let all: Vec<u128> = (0..8).map(|_| pause.0.wait().as_millis()).collect();
        assert_eq!(all, [10, 20, 40, 80, 100, 100, 100, 100]);
    }
}
