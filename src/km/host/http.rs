//! The few HTTPS requests that `km host` sends to its own host.
use std::time::{Duration, Instant};

use reqwest::{Certificate, Client, Identity, Method};

use super::AgentError;
use super::events::Reporter;
use super::files::Root;
use super::material::{self, Access};
use kmctl_core::backoff::{Backoff, Retries};
use kmctl_core::protocol::host::Event;
use kmctl_core::protocol::host::HealthSpec;

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

fn client_for(root: &Root, spec: &HealthSpec) -> Result<Http, AgentError> {
    if let Some(path) = &spec.kubeconfig {
        let access = material::access(root, path)?;
        let access = access.ok_or_else(|| AgentError::Refused(format!("{path} cannot be read")))?;
        return Http::with_access(&access);
    }
    let read = |path: String| -> Result<String, AgentError> { Ok(root.text(&path)?.unwrap_or_default()) };
    let authority = match &spec.authority {
        Some(path) => Some(read(format!("{path}.crt"))?),
        None => None,
    };
    let identity = match &spec.client {
        Some(path) => Some((read(format!("{path}.crt"))?, read(format!("{path}.key"))?)),
        None => None,
    };
    Http::new(authority.as_deref(), identity.as_ref().map(|(certificate, key)| (certificate.as_str(), key.as_str())))
}

/// Sends one request: none if healthy, otherwise the answer.
pub(crate) fn probe(root: &Root, spec: &HealthSpec) -> Result<Option<String>, AgentError> {
    let client = client_for(root, spec)?;
    Ok(ask(&client, spec))
}

fn ask(client: &Http, spec: &HealthSpec) -> Option<String> {
    match client.request(Method::GET, &spec.url, None) {
        Ok((200, _)) => None,
        Ok((status, body)) => Some(format!("status {status} {}", body.lines().last().unwrap_or_default())),
        Err(error) => Some(error),
    }
}

/// Waits until the address answers 200.
pub(crate) fn wait(root: &Root, spec: &HealthSpec, reporter: &mut Reporter<'_>) -> Result<(), AgentError> {
    let client = client_for(root, spec)?;
    let started = Instant::now();
    let (mut told, mut pause) = (Instant::now(), Pause::new());
    loop {
        let Some(last) = ask(&client, spec) else { return Ok(()) };
        let seconds = started.elapsed().as_secs();
        if seconds >= spec.seconds {
            return Err(AgentError::Unhealthy { what: spec.name.clone(), seconds, last });
        }
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            reporter.send(&Event::Waiting { item: spec.name.clone(), seconds, last })?;
        }
        pause.wait();
    }
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
